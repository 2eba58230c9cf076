"""What this machine has that a run stands on, what is wrong with it, and what to do about that; nothing is changed.

What the search engine made of the processor belongs in `search`.
"""
