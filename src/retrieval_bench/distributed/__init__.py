"""Who does the work of a run: this machine alone, or workers on several machines.

Importing this folder loads no library beside NumPy.
"""
