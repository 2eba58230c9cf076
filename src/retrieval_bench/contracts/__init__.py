"""What a method must keep so that its numbers mean something, checked clause by clause, whoever wrote the method.

How plug-ins are found and loaded belongs in `plugins`.
"""
