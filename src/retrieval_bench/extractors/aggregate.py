"""Bags of visual words: the many local descriptors of one image become one vector (Sivic and Zisserman, ICCV 2003).

Descriptors and words are unit vectors times SCALE, rounded to whole numbers. Their dot products stay far below 2**24,
so float32 holds every partial sum exactly and no BLAS, batch or number of threads can change which word is nearest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Split

SCALE = 1024
MAX_DESCRIPTORS = 200_000
"""At most this many descriptors go into k-means, drawn from all that the training images gave."""

Describe = Callable[[np.ndarray], np.ndarray]
"""(h, w, 3) uint8 RGB -> (n, d) int16 whole descriptors, n >= 0; must be a pure function of the image."""


def whole(unit: np.ndarray) -> np.ndarray:
    """(n, d) float, rows of norm 1 -> (n, d) int16, the same times SCALE, rounded. Zero rows are left out."""
    described: np.ndarray = unit[np.any(unit, axis=1)]
    return np.rint(described * SCALE).astype(np.int16)


def learn_words(descriptors: np.ndarray, words: int, seed: int) -> np.ndarray:
    """(n, d) whole descriptors -> (words, d) float32 whole k-means centres; fewer where n <= words.

    One thread fits, so that the vocabulary does not depend on how many threads the run was given.
    """
    if len(descriptors) <= words:
        return np.unique(descriptors, axis=0).astype(np.float32)
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    kmeans = MiniBatchKMeans(words, batch_size=8192, max_iter=20, n_init=1, random_state=seed)
    with threadpool_limits(1):
        kmeans.fit(descriptors.astype(np.float32))
    return np.rint(kmeans.cluster_centers_).astype(np.float32)


def nearest_word(descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n, d) and (w, d) whole -> (n,) int64, the word at the smallest Euclidean distance; ties: the lower word."""
    # argmin |x - w|^2 = argmax x.w - |w|^2 / 2, exact because all are whole numbers (see above).
    return np.argmax(descriptors.astype(np.float32) @ words.T - (words * words).sum(axis=1) / 2, axis=1)


@dataclass(eq=False)
class BagOfWords:
    """Square-rooted word counts times inverse document frequency, at unit length; compared by cosine.

    describe: what finds the descriptors of one image. words: vocabulary size asked for.
    fit_images: at most this many training images, drawn by `seed`, are read to learn vocabulary and idf.
    words_: (w, d) float32; idf_: (w,) float32.
    """

    name: str
    describe: Describe
    words: int
    fit_images: int
    seed: int
    distance: Distance = "cosine"
    learned: ClassVar[tuple[str, ...]] = ("words_", "idf_")
    words_: np.ndarray = field(init=False)
    idf_: np.ndarray = field(init=False)

    def fit(self, train: Split) -> Self:
        rng = np.random.default_rng(self.seed)
        rows = np.sort(rng.permutation(len(train))[: self.fit_images])
        described = [self.describe(train.images[row]) for row in rows]
        stacked = np.concatenate(described) if described else np.empty((0, 1), np.int16)
        if not len(stacked):
            raise BenchError(
                f"{self.name}: none of the {len(rows)} training images has anything to describe (all are blank or "
                "tiny), so no vocabulary can be learned; add training images with visible structure"
            )
        drawn = np.sort(rng.permutation(len(stacked))[:MAX_DESCRIPTORS])
        self.words_ = learn_words(stacked[drawn], self.words, self.seed)
        counts = np.array([self._count(descriptors) for descriptors in described])
        # 1 + keeps a word that is in every image from weighing nothing, which with few images would be all of them.
        self.idf_ = np.log(1 + len(rows) / np.maximum(np.count_nonzero(counts, axis=0), 1)).astype(np.float32)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, w) float32, rows of norm 1; an image without a descriptor is a zero row."""
        bags = np.zeros((len(images), len(self.words_)), np.float32)
        for row, image in enumerate(images):
            bag = np.sqrt(self._count(self.describe(image))) * self.idf_
            bags[row] = bag / max(float(np.sqrt(np.sum(bag * bag))), 1e-12)
        return bags

    def _count(self, descriptors: np.ndarray) -> np.ndarray:
        """(n, d) whole descriptors of one image -> (w,) float32 occurrences of each word."""
        if not len(descriptors):
            return np.zeros(len(self.words_), np.float32)
        return np.bincount(nearest_word(descriptors, self.words_), minlength=len(self.words_)).astype(np.float32)
