"""Perceptual hashes: an image as packed bits, compared by Hamming distance.

What gives float vectors belongs in another family.
"""

from retrieval_bench.extractors.hashes import blockmean, colorhash, crop_resistant, imagehash, whash

__all__ = ["blockmean", "colorhash", "crop_resistant", "imagehash", "whash"]
