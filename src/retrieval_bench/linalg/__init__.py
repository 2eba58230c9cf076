"""Rows of length 1, bits as signs, principal axes and projections: linear algebra that several rooms share.

Distances and the k nearest belong in `search`; what needs torch stays with the networks.
"""
