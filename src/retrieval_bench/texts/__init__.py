"""What is done to texts before they are compared: perturbations of queries, and the words that these know.

How a text becomes words or a vector belongs in `extractors.text`.
"""
