"""Texts as they are before anything compares them: their words, mistakes in these, and perturbations of queries.

How a text becomes a vector belongs in `extractors.text`.
"""
