"""Records that were kept over time: quality and cost over commits, where they changed, and files for a front page.

Comparing two records belongs in `compare`; a page of records of one time in `report`.
"""
