"""The record of a run: its schema, what must hold of it, its scores by name, saving and loading.

Comparing records belongs in `compare`, showing them in `report`.
"""
