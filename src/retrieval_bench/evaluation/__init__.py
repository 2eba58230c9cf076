"""From rankings to numbers: relevance, metrics, ties, intervals, significance, slices.

What a record keeps of these numbers belongs in `records`.
"""
