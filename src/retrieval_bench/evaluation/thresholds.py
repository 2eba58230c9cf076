"""Search by a threshold: all items that are near enough are the answer, however many these are.

Of all pairs of a query and an item, those at most t apart are returned. Precision is the share of the returned pairs
that are right, recall the share of the right pairs that are returned, and F1 their harmonic mean, each over the pairs
of all queries together (micro-averaged: Manning, Raghavan, Schuetze, Introduction to Information Retrieval, 2008,
13.6). The threshold is the one of the highest F1 among training items, each of which searches among all others; what it
gives on the queries is what a user gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Rows, Searcher
from retrieval_bench.evaluation.bootstrap import intervals, resampled_means
from retrieval_bench.evaluation.relevance import count_relevant, relevant_among

MOST_PAIRS = 20_000_000
"""JudgedPairs that are looked at; of more queries than that allows, as many are drawn as it does."""

RESAMPLES = 2_000
POINTS = 100


@dataclass(frozen=True, eq=False)
class JudgedPairs:
    """Distances of queries to items, nearest first, and which of these are right.

    Args:
        distances: (q, n) float32, ascending along a row; inf where there is no item.
        right: (q, n) bool, in the same order.
        n_right: (q,) int64, right items of each query.
        labels: (q,) int64, of the queries.
    """

    distances: np.ndarray
    right: np.ndarray
    n_right: np.ndarray
    labels: np.ndarray

    def returned(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """(q,) right items and (q,) items at most so far away."""
        near = self.distances <= np.float32(threshold)
        return (near & self.right).sum(axis=1), near.sum(axis=1)


@dataclass(frozen=True, eq=False)
class Curve:
    """(t,) float64 each: distinct distances, ascending, and what each of them gives as a threshold."""

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def pairs_of(
    searcher: Searcher,
    queries: Rows,
    query_labels: np.ndarray,
    item_labels: np.ndarray,
    exclude: np.ndarray | None,
    seed: int,
) -> JudgedPairs:
    """Search for queries among all items, as far as MOST_PAIRS allows. labels may be (n,) or (n, m) label sets."""
    n = len(item_labels)
    rows = np.sort(np.random.default_rng(seed).permutation(len(query_labels))[: max(1, MOST_PAIRS // max(n, 1))])
    hidden = None if exclude is None else exclude[rows]
    ranking = searcher(queries[rows], n, hidden)
    asked = query_labels[rows]
    right = relevant_among(ranking.indices, asked, item_labels)
    distances = np.where(ranking.indices >= 0, ranking.distances, np.float32(np.inf))
    first = asked if asked.ndim == 1 else asked[:, 0]
    return JudgedPairs(distances, right, count_relevant(asked, item_labels, hidden), first)


def curve(pairs: JudgedPairs) -> Curve:
    """What each distance that occurs gives as a threshold."""
    real = np.isfinite(pairs.distances)
    distances, right = pairs.distances[real], pairs.right[real]
    order = np.argsort(distances, kind="stable")
    distances, hits = distances[order], np.cumsum(right[order])
    last = np.flatnonzero(np.append(distances[1:] != distances[:-1], True)) if len(distances) else np.empty(0, np.int64)
    hits, returned, total = hits[last].astype(np.float64), last + 1.0, float(pairs.n_right.sum())
    precision, recall = hits / returned, hits / max(total, 1.0)
    return Curve(distances[last].astype(np.float64), precision, recall, 2 * hits / (returned + total))


def chosen(train: Curve) -> int:
    """The place of the highest F1; of equal ones the smallest distance."""
    return int(np.argmax(train.f1))


def thinned(whole: Curve, points: int = POINTS) -> list[tuple[float, float, float]]:
    """At most so many (threshold, precision, recall) at equal steps of recall, for a picture."""
    if len(whole.thresholds) <= points:
        places = np.arange(len(whole.thresholds))
    else:
        steps = np.linspace(whole.recall[0], whole.recall[-1], points)
        places = np.unique(np.searchsorted(whole.recall, steps, "left").clip(0, len(whole.recall) - 1))
    columns = (whole.thresholds[places], whole.precision[places], whole.recall[places])
    return [tuple(map(float, point)) for point in zip(*columns, strict=True)]  # type: ignore[misc]


def scores_at(
    pairs: JudgedPairs, threshold: float, seed: int
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """precision, recall and f1 at a threshold, and their 95 % intervals, by drawing labels with all their queries."""
    hits, returned = pairs.returned(threshold)
    counts = np.column_stack([hits, returned, pairs.n_right]).astype(np.float64)

    def of(sums: np.ndarray) -> np.ndarray:
        right, answered, total = sums[..., 0], sums[..., 1], sums[..., 2]
        return np.stack(
            [
                right / np.where(answered > 0, answered, 1),
                right / np.where(total > 0, total, 1),
                2 * right / np.where(answered + total > 0, answered + total, 1),
            ],
            axis=-1,
        )

    names = ("precision", "recall", "f1")
    scores = dict(zip(names, map(float, of(counts.sum(axis=0))), strict=True))
    drawn = of(resampled_means(counts, pairs.labels, RESAMPLES, seed))
    ends = np.clip(intervals(drawn, len(np.unique(pairs.labels))), 0, 1)
    known = {name: (float(low), float(high)) for name, (low, high) in zip(names, ends, strict=True) if low == low}
    return scores, known
