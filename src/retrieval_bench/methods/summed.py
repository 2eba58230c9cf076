"""A weighted sum of similarities where a member has no vector, such as one that counts words: each ranks the whole
gallery, and the sums are ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Bundle, Ranking, Searcher

_AT_ONCE = 64


def similarities(searcher: Searcher, queries: np.ndarray, n: int) -> np.ndarray:
    """(q, n) float32, the negated distance of each of n gallery rows to each query."""
    ranking = searcher(queries, n)
    found = np.full((len(queries), n), -np.inf, np.float32)
    rows, places = np.nonzero(ranking.indices >= 0)
    found[rows, ranking.indices[rows, places]] = -ranking.distances[rows, places]
    return found


def nothing_in(features: np.ndarray) -> np.ndarray:
    """(n,) bool: items of which a method saw nothing."""
    return np.logical_not(features.astype(bool).any(axis=1))


@dataclass(eq=False)
class SummedSearcher:
    """searchers, factors: by the name under which queries hold the features of that member.

    lacking: of a member, the gallery rows that it knows nothing of, (n,) bool. To a query they are as similar by it as
    the mean of all others: what is not known speaks neither for nor against an item. A query of which a member knows
    nothing is answered by the others.
    """

    searchers: Mapping[str, Searcher]
    factors: Mapping[str, float]
    lacking: Mapping[str, np.ndarray]
    n: int

    @property
    def bytes(self) -> int:
        return sum(searcher.bytes for searcher in self.searchers.values())

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for start in range(0, len(queries), _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, len(queries)))
            away = -self._sums(queries[part])
            if exclude is not None:
                out = exclude[part].reshape(len(away), -1)
                rows, places = np.nonzero(out >= 0)
                away[rows, out[rows, places]] = np.inf
            order = np.argsort(away, axis=1, kind="stable")[:, :k]
            near = np.take_along_axis(away, order, axis=1)
            indices[part, : order.shape[1]] = np.where(near < np.inf, order, -1)
            distances[part, : order.shape[1]] = near
        return Ranking(indices, distances)

    def _sums(self, queries: Bundle) -> np.ndarray:
        total = np.zeros((len(queries), self.n), np.float32)
        for name, factor in self.factors.items():
            if factor <= 0:
                continue
            features = queries.arrays[name]
            each = similarities(self.searchers[name], features, self.n)
            lacking = self.lacking.get(name)
            if lacking is not None:
                if lacking.all():
                    continue
                if lacking.any():
                    each[:, lacking] = each[:, ~lacking].mean(axis=1, keepdims=True)
                each[nothing_in(features)] = 0
            total += np.float32(factor) * each
        return total
