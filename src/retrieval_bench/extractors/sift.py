"""SIFT keypoints (Lowe, IJCV 2004) as RootSIFT (Arandjelovic and Zisserman, CVPR 2012) in a bag of visual words."""

from __future__ import annotations

from functools import partial

import numpy as np

from retrieval_bench.core import BenchError, Extractor, Setup
from retrieval_bench.extractors.aggregate import BagOfWords, whole
from retrieval_bench.extractors.grey import grey
from retrieval_bench.registry import EXTRACTORS


def root_sift(image: np.ndarray, *, side: int, keypoints: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB -> (n, 128) int16 whole RootSIFT descriptors (see aggregate.py), n <= about `keypoints`.

    The longer side is first shrunk to `side` pixels, where it is longer.
    """
    import cv2

    # A detector is not safe to share between threads and costs nothing to make.
    _, descriptors = cv2.SIFT.create(nfeatures=keypoints).detectAndCompute(grey(image, side), None)
    if descriptors is None:
        return np.empty((0, 128), np.int16)
    return whole(np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1.0)))


@EXTRACTORS("sift", family="local", about="RootSIFT keypoints, bag of visual words with idf")
def sift(
    setup: Setup, *, words: int = 2048, side: int = 512, keypoints: int = 500, fit_images: int = 1000
) -> Extractor:
    import cv2  # noqa: F401 - loaded here, so that the runner finds it and sets its threads

    for option, value in {"words": words, "side": side, "keypoints": keypoints, "fit_images": fit_images}.items():
        if value < 1:
            raise BenchError(f"sift: {option}={value} must be at least 1")
    describe = partial(root_sift, side=side, keypoints=keypoints)
    return BagOfWords("sift", describe, words, fit_images, setup.seed)
