"""Query expansion: a second search with the mean of the query and what the first one found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from retrieval_bench.core import BenchError, Bundle, Distance, Extractor, Ranking, Searcher
from retrieval_bench.linalg.rows import signs, unit_rows
from retrieval_bench.methods.reranking.step import Step
from retrieval_bench.registry import STEPS, Range


@dataclass(eq=False)
class QueryExpansion:
    """n: gallery items that join the query. alpha: power of their similarity that weighs them; 0 weighs all alike."""

    n: int
    alpha: float
    extractor: Extractor | None = None
    averages: bool = True
    comparable: bool | None = None

    def searcher(self, inner: Searcher, gallery: Bundle, compared: Mapping[str, Distance], own: str) -> Searcher:
        return ExpandedSearcher(inner, gallery, compared, min(self.n, len(gallery)), self.alpha)


@dataclass(eq=False)
class ExpandedSearcher:
    """Expands every array that is compared, each by its own rule, with what all of them together found."""

    inner: Searcher
    gallery: Bundle
    compared: Mapping[str, Distance]
    n: int
    alpha: float

    @property
    def bytes(self) -> int:
        """What is searched, and the rows that join a query."""
        return self.inner.bytes + sum(self.gallery.arrays[name].nbytes for name in self.compared)

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        found = self.inner(queries, self.n, exclude).indices
        expanded = {
            name: _expanded(queries.arrays[name], self.gallery.arrays[name], found, distance, self.alpha)
            for name, distance in self.compared.items()
        }
        return self.inner(Bundle({**queries.arrays, **expanded}), k, exclude)


def _expanded(
    queries: np.ndarray, gallery: np.ndarray, found: np.ndarray, distance: Distance, alpha: float
) -> np.ndarray:
    """Each query with its `found` (q, n) gallery rows, -1 for none, as one row of the same kind."""
    means = np.empty((len(queries), _numbers(queries[:1], distance).shape[1]), np.float32)
    for row, indices in enumerate(found):
        own = _numbers(queries[row : row + 1], distance)[0]
        some = _numbers(gallery[indices[indices >= 0]], distance)
        weights = _similarity(own, some, distance) ** alpha
        # einsum rather than BLAS, which rounds by the number of its threads.
        total = own + np.einsum("n,nd->d", weights.astype(np.float32), some)
        if distance == "euclidean":
            total = total / np.float32(1 + weights.sum())  # a direction has no length, but a place has one
        if distance == "hamming":
            total = np.where(total == 0, own, total)
        means[row] = total
    return np.packbits(means > 0, axis=1) if distance == "hamming" else means


def _similarity(own: np.ndarray, some: np.ndarray, distance: Distance) -> np.ndarray:
    """(d,) and (n, d) `_numbers` -> (n,) float64, 0 and more, 1 for what is as similar as the query is to itself.

    The inner product in units of the query's with itself, which is the cosine, and 1 - 2 h / bits for h of the bits
    that differ. Euclidean distances have no such unit: theirs is exp(-(d / r)^2 / 2), r the distance of the farthest.
    """
    if distance == "euclidean":
        apart = np.square(some.astype(np.float64) - own).sum(axis=1)
        farthest = apart.max(initial=0)
        return np.exp(-apart / (2 * (farthest if farthest > 0 else 1)))
    products = np.einsum("nd,d->n", some, own, dtype=np.float64)
    itself = np.einsum("d,d->", own, own, dtype=np.float64)
    return np.clip(products, 0, None) / (itself if itself > 0 else 1)


def _numbers(rows: np.ndarray, distance: Distance) -> np.ndarray:
    """(n, d) float32 that may be added up: length 1 for cosine, -1 and 1 for bits."""
    if distance == "hamming":
        return signs(rows)
    rows = rows.astype(np.float32)
    return unit_rows(rows) if distance == "cosine" else rows


@STEPS("qe", about="query expansion by its n nearest, weighed by similarity^alpha", main="n")
def expansion(*, n: Annotated[int, Range(1)] = 5, alpha: Annotated[float, Range(0)] = 1.0) -> Step:
    """Average query expansion (Chum et al., ICCV 2007); with alpha, as in Radenovic, Tolias and Chum (PAMI 2019).

    The similarity is that of the method's own distance; for euclidean, where the literature has none, it is
    exp(-(d / r)^2 / 2), r the distance of the farthest of the n. Where rankings are joined (+rrf, +vote), the array of
    each member is expanded by its own distance, all with the n that the joined ranking found.

    Args:
        n: nearest gallery images that the query is averaged with.
        alpha: they are weighed by similarity to this power; 0 weighs all alike.
    """
    if n < 1 or alpha < 0:
        raise BenchError(f"qe: n={n} must be at least 1 and alpha={alpha} not negative")
    return QueryExpansion(n, alpha)
