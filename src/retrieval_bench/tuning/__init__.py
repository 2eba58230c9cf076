"""A search for methods and options on train and val alone: data to choose by, what to try next, and what became of it.

What a run measures of one method belongs in `experiment`; what to build, given measurements, in `choosing`.
"""
