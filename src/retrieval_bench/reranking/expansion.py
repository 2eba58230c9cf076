"""Query expansion: a second search with the mean of the query and what the first one found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from retrieval_bench.core import BenchError, Bundle, Distance, Extractor, Ranking, Searcher
from retrieval_bench.registry import STEPS
from retrieval_bench.reranking.step import Step, vectors


@dataclass(eq=False)
class QueryExpansion:
    """n: gallery items that join the query. alpha: power of their similarity that weighs them; 0 weighs all alike."""

    n: int
    alpha: float
    extractor: Extractor | None = None

    def searcher(self, inner: Searcher, gallery: Bundle, distance: Distance, own: str) -> Searcher:
        if distance == "euclidean" and self.alpha:
            raise BenchError("+qe: euclidean distances are no similarities to weigh by; write +qe:alpha=0")
        return ExpandedSearcher(inner, vectors(gallery, "qe"), distance, min(self.n, len(gallery)), self.alpha)


@dataclass(eq=False)
class ExpandedSearcher:
    inner: Searcher
    gallery: np.ndarray
    distance: Distance
    n: int
    alpha: float

    @property
    def bytes(self) -> int:
        return self.inner.bytes

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        found = self.inner(queries, self.n, exclude)
        expanded = self._expanded(vectors(queries, "qe"), found)
        return self.inner(replace(queries, arrays={**queries.arrays, "vector": expanded}), k, exclude)

    def _expanded(self, queries: np.ndarray, found: Ranking) -> np.ndarray:
        present = found.indices >= 0
        weights = present * self._similarity(queries, found.distances) ** self.alpha
        total = _numbers(queries, self.distance)
        for query, some in enumerate(np.where(present, found.indices, 0)):
            total[query] += weights[query].astype(np.float32) @ _numbers(self.gallery[some], self.distance)
        if self.distance == "hamming":
            own = np.unpackbits(queries, axis=1).astype(bool)
            return np.packbits(np.where(total == 0, own, total > 0), axis=1)
        if self.distance == "euclidean":
            total = total / (1 + weights.sum(axis=1, keepdims=True))
        return np.ascontiguousarray(total, np.float32)

    def _similarity(self, queries: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """0 and more, 1 for what is as similar as the query is to itself; 1 for euclidean, where all count alike."""
        if self.distance == "euclidean":
            return np.ones(distances.shape)
        finite = np.where(np.isfinite(distances), distances, 0).astype(np.float64)
        if self.distance == "hamming":
            return np.clip(1 - 2 * finite / (queries.shape[1] * 8), 0, 1)
        if self.distance == "cosine":
            return np.clip(1 - finite, 0, 1)
        own = np.square(queries, dtype=np.float64).sum(axis=1, keepdims=True)
        return np.clip(-finite, 0, None) / np.where(own > 0, own, 1)


def _numbers(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """(n, d) float32 that may be added up: length 1 for cosine, -1 and 1 for bits."""
    if distance == "hamming":
        return np.unpackbits(rows, axis=1).astype(np.float32) * 2 - 1
    if distance == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.where(lengths > 0, lengths, 1)
    return rows.astype(np.float32)


@STEPS("qe", about="query expansion by its n nearest, weighed by similarity^alpha", main="n")
def expansion(*, n: int = 5, alpha: float = 1.0) -> Step:
    """Average query expansion (Chum et al., ICCV 2007); with alpha, as in Radenovic, Tolias and Chum (PAMI 2019)."""
    if n < 1 or alpha < 0:
        raise BenchError(f"qe: n={n} must be at least 1 and alpha={alpha} not negative")
    return QueryExpansion(n, alpha)
