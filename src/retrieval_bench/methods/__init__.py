"""What a name such as `sift+color+verify=100` means: parsing, the pipeline of its parts, fusion, re-ranking.

A single extractor belongs in `extractors`.
"""
