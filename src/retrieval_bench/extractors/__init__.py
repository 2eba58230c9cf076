"""Methods: one file a family, found through the EXTRACTORS registry. Importing this package registers them all."""

from retrieval_bench.extractors import cnn, color, controls, hashes, histograms, hog, lbp, moments, sift

__all__ = ["cnn", "color", "controls", "hashes", "histograms", "hog", "lbp", "moments", "sift"]
