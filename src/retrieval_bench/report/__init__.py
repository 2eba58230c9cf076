"""Records to tables, plots and pages, never edited by hand.

A new number about a run belongs in `evaluation` or `compare`, not here.
"""
