"""Methods: one file a family, found through the EXTRACTORS registry. Importing this package registers them all."""

from retrieval_bench.extractors import (
    blockmean,
    cnn,
    color,
    colorhash,
    controls,
    convnet,
    exported,
    foreign,
    hashes,
    histograms,
    hog,
    lbp,
    moments,
    segments,
    sift,
    whash,
)

__all__ = [
    "blockmean",
    "cnn",
    "color",
    "colorhash",
    "controls",
    "convnet",
    "exported",
    "foreign",
    "hashes",
    "histograms",
    "hog",
    "lbp",
    "moments",
    "segments",
    "sift",
    "whash",
]
