"""Local descriptors and what encodes them: keypoints and grids, then bag of words, VLAD or Fisher vector.

Histograms of a whole image belong in `extractors.histograms`.
"""

from retrieval_bench.extractors.local import color, dense_sift, hog, sift

__all__ = ["color", "dense_sift", "hog", "sift"]
