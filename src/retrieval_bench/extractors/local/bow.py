"""Bags of visual words (Sivic and Zisserman, ICCV 2003)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from retrieval_bench.extractors.local.codebook import Vocabulary, learn_words
from retrieval_bench.extractors.local.encoders import Learned, power_law
from retrieval_bench.linalg.rows import unit


@dataclass(frozen=True)
class BagOfWords:
    """Word counts, to the power `power` (bursts count less), times inverse document frequency, at length 1.

    words: vocabulary size. soft: how many words a descriptor is shared out to; with more than one, each gets a weight
    that falls with its distance, exp(-(d / spread)^2 / 2) (Philbin et al., CVPR 2008), spread being the mean distance
    of descriptors to their nearest word.
    """

    words: int
    soft: int = 1
    power: float = 0.5
    learned: ClassVar[tuple[str, ...]] = ("words", "idf", "spread")

    def fit(self, images: Sequence[np.ndarray], seed: int, threads: int = 1) -> dict[str, np.ndarray]:
        stacked = np.concatenate(images)
        vocabulary = Vocabulary(learn_words(stacked, self.words, seed))
        nearest = vocabulary.nearest(stacked)
        seen = np.zeros(len(vocabulary.words))  # images in which the word occurs
        start = 0
        for image in images:
            seen[np.unique(nearest.indices[start : start + len(image)])] += 1
            start += len(image)
        # 1 + keeps a word that is in every image from weighing nothing, which with few images would be all of them.
        idf = np.log(1 + len(images) / np.maximum(seen, 1))
        spread = max(float(nearest.distances.mean()), 1e-6)
        return {"words": vocabulary.words, "idf": idf.astype(np.float32), "spread": np.array([spread], np.float32)}

    def encode(self, descriptors: np.ndarray, learned: Learned) -> np.ndarray:
        words = learned["words"]
        if not len(descriptors):
            return np.zeros(len(words), np.float32)
        found = _vocabulary(words.tobytes(), words.shape[1]).nearest(descriptors, self.soft)
        weights = np.ones(found.indices.shape)
        if self.soft > 1:
            squares = np.square(found.distances.astype(np.float64)) / float(learned["spread"][0]) ** 2
            weights = np.exp((squares[:, :1] - squares) / 2)  # relative to the nearest: far ones do not all vanish
            weights /= weights.sum(axis=1, keepdims=True)
        counts = np.bincount(found.indices.ravel(), weights.ravel(), minlength=len(words))
        return unit(power_law(counts, self.power) * learned["idf"])


@lru_cache(maxsize=4)
def _vocabulary(words: bytes, dim: int) -> Vocabulary:
    """Packed once, not for every image."""
    return Vocabulary(np.frombuffer(words, np.float32).reshape(-1, dim))
