"""From bytes to upright RGB pixels, decoded once for all methods; screening, resizing and perturbing them.

What turns pixels into vectors belongs in `extractors`.
"""
