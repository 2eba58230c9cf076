"""Code of others that registers methods, datasets, metrics and more: how it is found, loaded and begun.

What is checked of a method, whoever wrote it, belongs in `contracts`.
"""
