"""`export`: a network with its pooling and what was learned after it, as one file that other programs run.

Reading such a file as a method belongs in `extractors.deep`.
"""
