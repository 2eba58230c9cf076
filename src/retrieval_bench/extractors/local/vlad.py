"""Vectors of locally aggregated descriptors (Jegou et al., CVPR 2010), normalised as in Arandjelovic and Zisserman
(CVPR 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from retrieval_bench.extractors.local.codebook import learn_words
from retrieval_bench.extractors.local.encoders import Learned, power_law
from retrieval_bench.linalg.rows import unit


@dataclass(frozen=True)
class Vlad:
    """For each word the sum of the differences of its descriptors from it; each word's sum at length 1 (`intra`), then
    the power law, then all at length 1: (words * d,)."""

    words: int
    intra: bool = True
    power: float = 0.5
    learned: ClassVar[tuple[str, ...]] = ("words",)

    def fit(self, images: Sequence[np.ndarray], seed: int, threads: int = 1) -> dict[str, np.ndarray]:
        return {"words": learn_words(np.concatenate(images), self.words, seed)}

    def encode(self, descriptors: np.ndarray, learned: Learned) -> np.ndarray:
        words = learned["words"]
        if not len(descriptors):
            return np.zeros(words.size, np.float32)
        # argmin |x - w|^2 = argmax x.w - |w|^2 / 2
        nearest = np.argmax(descriptors @ words.T - (words * words).sum(axis=1) / 2, axis=1)
        members = np.zeros((len(words), len(descriptors)), np.float32)
        members[nearest, np.arange(len(descriptors))] = 1
        sums = members @ descriptors - members.sum(axis=1)[:, None] * words
        if self.intra:
            sums = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        return unit(power_law(sums.ravel(), self.power))
