"""From measurements to what to build: what a number of images costs, which method to take.

Measuring a method on a dataset belongs in `experiment`; comparing two records in `compare`.
"""
