"""Visual words: the centres of k-means over local descriptors, and which of them is nearest."""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Ranking
from retrieval_bench.search.index import ExactIndex


def learn_words(descriptors: np.ndarray, words: int, seed: int) -> np.ndarray:
    """(n, d) float32 -> (w, d) float32 k-means centres, w = words; where n <= words, the distinct descriptors.

    One thread fits, so that the words do not depend on how many threads the run was given.
    """
    if len(descriptors) <= words:
        return np.unique(descriptors, axis=0)
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    kmeans = MiniBatchKMeans(words, batch_size=8192, max_iter=20, n_init=1, random_state=seed)
    with threadpool_limits(1):
        kmeans.fit(descriptors)
    centres: np.ndarray = kmeans.cluster_centers_.astype(np.float32)
    return centres


class Vocabulary:
    """Words, ready to be searched."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self._index = ExactIndex(words, "euclidean")

    def nearest(self, descriptors: np.ndarray, k: int = 1) -> Ranking:
        """The k nearest words of each descriptor; ties: the lower word. On this thread alone, as images run side by
        side already."""
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            return self._index.search(descriptors, min(k, len(self.words)))
        finally:
            numba.set_num_threads(before)
