"""Our verification and OpenCV's parts of it, side by side: `pytest tests/methods/test_verification_benchmark.py
--benchmark-only`; the target is 25 ms for 100 candidates of 256 keypoints on one core."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from retrieval_bench.extractors.local.keypoints import KeypointBlocks, unpack
from retrieval_bench.methods.reranking.geometric_verification import verify
from tests.support.scenes import scene, view

CANDIDATES = 100


@pytest.mark.parametrize("related", [True, False], ids=["related", "unrelated"])
@pytest.mark.parametrize("name", ["ours", "opencv"])
def test_verify(benchmark, name, related):
    image = scene(0, 320, 320)
    images = [image] + [view(image, 20, 1.1) if related else scene(seed, 320, 320) for seed in range(1, 5)]
    blocks = KeypointBlocks(keypoints=256).transform(images)
    query, candidates = blocks[0], np.tile(blocks[1:], (CANDIDATES // 4, 1))
    benchmark.group = f"{CANDIDATES} {'related' if related else 'unrelated'} candidates"
    counts = benchmark(verify if name == "ours" else opencv, query, candidates)
    assert (np.asarray(counts) >= 20).all() == related


def opencv(query, candidates):
    """Brute-force matches, ratio test, affine map by RANSAC."""
    counts = []
    mine = unpack(query)
    for row in candidates:
        other = unpack(row)
        matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(
            mine.descriptors.astype(np.float32), other.descriptors.astype(np.float32), k=2
        )
        good = [first for first, second in matches if first.distance < 0.8 * second.distance]
        here = np.array([mine.points[match.queryIdx] for match in good]).reshape(-1, 2)
        there = np.array([other.points[match.trainIdx] for match in good]).reshape(-1, 2)
        inliers = None
        if len(good) >= 3:
            _, inliers = cv2.estimateAffine2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=8.0)
        counts.append(0 if inliers is None else int(inliers.sum()))
    return counts
