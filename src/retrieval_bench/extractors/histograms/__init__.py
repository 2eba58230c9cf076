"""Statistics of pixels over regions of the image: colours, moments and binary patterns, without learning.

Descriptors that are encoded by a learned vocabulary belong in `extractors.local`.
"""

from retrieval_bench.extractors.histograms import color, lbp, moments

__all__ = ["color", "lbp", "moments"]
