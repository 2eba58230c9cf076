"""What a service does, without HTTP: open indexes, the queue of extraction, answers by every method, changes, feedback.

How items are stored and searched does not belong here (`indexing/`), nor how a method works (`methods/`), nor any page.
"""
