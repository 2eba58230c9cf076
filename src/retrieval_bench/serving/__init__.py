"""A search service over indexes: uploads, the queue of extraction, answers by every method side by side, HTTP.

How items are stored and searched does not belong here (`indexing/`), nor how a method works (`methods/`).
"""
