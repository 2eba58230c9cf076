"""Vectors and rankings that another program computed, as they lie in its files, and whose image each of them is.

What a method makes of them belongs in `extractors`; records of this program belong in `records`.
"""
