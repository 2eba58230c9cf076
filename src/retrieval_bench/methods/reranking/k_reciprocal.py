"""Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017); neighbours are computed within the gallery only.

Two images that have each other among their nearest are better evidence than one that has the other. What is known of
the gallery is worked out once; a query sees no other query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from retrieval_bench.core import BenchError, Bundle, Distance, Extractor, Ranking, Searcher
from retrieval_bench.methods.reranking.step import Step, reordered
from retrieval_bench.registry import STEPS, Range


@dataclass(eq=False)
class Reciprocal:
    """shortlist: items that are re-ranked. k1: neighbours that must be mutual. k2: neighbours whose encodings are
    averaged. share: what the distance itself counts, 0 to 1."""

    shortlist: int
    k1: int
    k2: int
    share: float
    extractor: Extractor | None = None
    averages: bool = False
    comparable: bool | None = False  # a distance counts in parts of the farthest of the query's own short list

    def searcher(self, inner: Searcher, gallery: Bundle, compared: Mapping[str, Distance], own: str) -> Searcher:
        return ReciprocalSearcher(inner, gallery, self)


class ReciprocalSearcher:
    """Holds for every gallery item its encoding: the rows of the items it is mutual with, and their weights, which fall
    with the distance as exp(-x), x running from 0 at the nearest to 1 at the last of the k1."""

    queries_at_once = 256

    def __init__(self, inner: Searcher, gallery: Bundle, step: Reciprocal) -> None:
        n = len(gallery)
        self._inner, self._step, self._n = inner, step, n
        self._k1 = min(step.k1, max(n - 1, 1))
        self._half = max(self._k1 // 2, 1)
        near = inner(gallery, self._k1, np.arange(n))
        self._near = near.indices
        self._reach = np.where(near.indices >= 0, near.distances, -np.inf).max(axis=1)
        self._reach_half = np.where(near.indices >= 0, near.distances, -np.inf)[:, : self._half].max(axis=1)
        self._mutual_half = [
            self._mutual(near.indices[row, : self._half], near.distances[row, : self._half], self._reach_half)
            for row in range(n)
        ]
        encoded = [self._encoded(near.indices[row], near.distances[row], row) for row in range(n)]
        if step.k2 > 1:
            encoded = [
                self._averaged([encoded[row], *(encoded[one] for one in near.indices[row, : step.k2 - 1] if one >= 0)])
                for row in range(n)
            ]
        self._encodings = encoded

    @property
    def bytes(self) -> int:
        known = [self._near, self._reach, self._reach_half, *self._mutual_half]
        known += [array for encoding in self._encodings for array in encoding]
        return self._inner.bytes + sum(array.nbytes for array in known)

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        shortlist = min(self._step.shortlist, self._n)
        found = self._inner(queries, max(k, shortlist, self._k1), exclude)
        scores = np.ones((len(queries), shortlist))
        dense = np.zeros(self._n)
        for query in range(len(queries)):
            indices, distances = found.indices[query], found.distances[query]
            rows, weights = self._encoded(indices[: self._k1], distances[: self._k1], None)
            if self._step.k2 > 1:
                others = [self._encodings[one] for one in indices[: self._step.k2 - 1] if one >= 0]
                rows, weights = self._averaged([(rows, weights), *others])
            hidden = np.empty(0, np.int64) if exclude is None else np.unique(exclude[query])
            hidden = hidden[hidden >= 0]
            rows, weights = _without(hidden, rows, weights)
            dense[rows] = weights
            last = max(float(distances[:shortlist][indices[:shortlist] >= 0].max(initial=0)), 1e-12)
            least = min(float(distances[0]) if len(distances) else 0.0, 0.0)  # inner products are negative where near
            for place, one in enumerate(indices[:shortlist]):
                if one < 0:
                    break
                theirs, their_weights = _without(hidden, *self._encodings[one])
                common = np.minimum(dense[theirs], their_weights).sum()
                jaccard = 1 - common / max(weights.sum() + their_weights.sum() - common, 1e-12)
                relative = (distances[place] - least) / max(last - least, 1e-12)
                scores[query, place] = (1 - self._step.share) * jaccard + self._step.share * relative
            dense[rows] = 0
        result = reordered(found, np.clip(scores, 0, 1))
        return Ranking(result.indices[:, :k], result.distances[:, :k])

    def _mutual(self, indices: np.ndarray, distances: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Those of these neighbours that have the item among theirs too."""
        indices, distances = indices[indices >= 0], distances[indices >= 0]
        return indices[distances <= reach[indices]]

    def _encoded(self, indices: np.ndarray, distances: np.ndarray, own: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows and weights, which add up to 1, of an item whose k1 nearest these are; own: itself, in the gallery."""
        mutual = self._mutual(indices, distances, self._reach)
        wider = mutual
        for one in mutual:
            theirs = self._mutual_half[one]
            if len(np.intersect1d(theirs, mutual)) * 3 >= len(theirs) * 2:
                wider = np.union1d(wider, theirs)
        near = distances[indices >= 0].astype(np.float64)
        relative = (near - near[:1]) / max(float(near[-1] - near[0]), 1e-12) if len(near) else near
        known = dict(zip(indices[indices >= 0].tolist(), relative.tolist(), strict=True))
        if own is not None:
            known[own] = 0.0
            wider = np.union1d(wider, [own])
        rows = np.unique(wider).astype(np.int64)
        weights = np.exp([-known.get(one, 1.0) for one in rows.tolist()])
        return rows, weights / max(weights.sum(), 1e-12)

    def _averaged(self, encodings: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        rows, which = np.unique(np.concatenate([rows for rows, _ in encodings]), return_inverse=True)
        weights = np.bincount(which, np.concatenate([weights for _, weights in encodings]), minlength=len(rows))
        return rows, weights / len(encodings)


def _without(hidden: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An encoding without what the query must not find: its own image must not make anything near to it."""
    if not len(hidden):
        return rows, weights
    kept = (rows[:, None] != hidden).all(axis=1)
    return rows[kept], weights[kept]


@STEPS("reciprocal", about="k-reciprocal neighbours re-rank the first 100", main="shortlist")
def reciprocal(
    *,
    shortlist: Annotated[int, Range(1)] = 100,
    k1: Annotated[int, Range(1)] = 20,
    k2: Annotated[int, Range(1)] = 6,
    share: Annotated[float, Range(0, 1)] = 0.3,
) -> Step:
    """Re-ranking by k-reciprocal neighbours (Zhong et al., CVPR 2017).

    Args:
        shortlist: how many of the first are ranked again
        k1: neighbours of an image that are looked at, in both directions
        k2: nearest images over which an image's neighbours are averaged
        share: weight of the first distance in the new one, 0 to 1
    """
    if min(shortlist, k1, k2) < 1 or not 0 <= share <= 1:
        raise BenchError(
            f"reciprocal: shortlist={shortlist}, k1={k1} and k2={k2} must be at least 1, share={share} from 0 to 1"
        )
    return Reciprocal(shortlist, k1, k2, share)
