"""Two or more records or versions: reading back, diff, gates, A/B timing.

Numbers of one run alone belong in `evaluation`.
"""
