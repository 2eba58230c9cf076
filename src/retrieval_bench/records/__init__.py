"""The record of a run: its schema, what must hold of it, its scores by name, saving and loading, conversion.

Comparing records belongs in `compare`, showing them in `report`.
"""
