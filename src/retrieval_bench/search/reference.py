"""Exact search in plain NumPy float64: slow, obvious, and the meaning of what the kernels compute.

The distances are those of `rescore.distances_to_all`, which says how they are defined.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Distance, Ranking, Searcher
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
    room_for,
)
from retrieval_bench.search.float_mode import tiny_numbers_kept


class NumpyIndex:
    """Keeps the gallery as it is and ranks all of it for each query. Arguments and errors as in ExactIndex."""

    @tiny_numbers_kept
    def __init__(self, gallery: np.ndarray, distance: Distance = "cosine") -> None:
        self.distance = check_distance(distance)
        self.gallery = _exact_values("gallery", check_matrix("gallery", gallery, distance), distance)
        self.bytes = self.gallery.nbytes

    @tiny_numbers_kept
    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        queries = check_matrix("queries", queries, self.distance, self.gallery.shape[1])
        queries = _exact_values("queries", queries, self.distance)
        check_range(self.distance, _largest_norm(queries), _largest_norm(self.gallery))
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), len(self.gallery))
        found = room_for(len(queries), k, len(self.gallery))
        for query, vector in enumerate(queries):
            to_all = distances_to(vector, self.gallery, self.distance)
            allowed = np.setdiff1d(np.arange(len(self.gallery)), exclude[query])
            # A stable sort of ascending rows: equal distances stay in the order of their rows.
            nearest = allowed[np.argsort(to_all[allowed], kind="stable")][:k]
            found.indices[query, : len(nearest)] = nearest
            found.distances[query, : len(nearest)] = to_all[nearest]
        return found


def distances_to(query: np.ndarray, gallery: np.ndarray, distance: Distance) -> np.ndarray:
    """(d,) and (n, d) float64, or (bytes,) and (n, bytes) uint8 for hamming -> (n,) float64."""
    if distance == "hamming":
        return np.unpackbits(query ^ gallery, axis=1).sum(axis=1).astype(np.float64)
    from retrieval_bench.search.rescore import distances_to_all

    return distances_to_all(query, gallery, distance)


def _exact_values(name: str, array: np.ndarray, distance: Distance) -> np.ndarray:
    """The values as float64; codes stay uint8."""
    if distance == "hamming":
        return array
    from retrieval_bench.search.points import values_of

    values = values_of(name, array, distance)
    check_finite(name, np.isfinite(values).all(axis=1))
    return values.astype(np.float64, copy=False)


def _largest_norm(rows: np.ndarray) -> float:
    return float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0))


@BACKENDS("numpy", about="exact search in plain NumPy float64, for checking the others; slow", exact=True)
def numpy(gallery: np.ndarray, distance: Distance = "cosine") -> Searcher:
    return NumpyIndex(gallery, distance)
