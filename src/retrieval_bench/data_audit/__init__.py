"""What is wrong with a dataset before any method runs: duplicates, leaks, label conflicts.

Images that cannot be decoded are found in `images`.
"""
