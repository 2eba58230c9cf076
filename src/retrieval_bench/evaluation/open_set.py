"""How well the distance of the nearest gallery image tells queries without an answer from the others.

In an open set some queries show what the gallery does not hold (Scheirer et al., "Toward Open Set Recognition", PAMI
2013). A method can refuse a query whose nearest image is too far away. Two figures say how well that would work, for
distances alone and before anybody has chosen a threshold (Hendrycks and Gimpel, "A Baseline for Detecting Misclassified
and Out-of-Distribution Examples", ICLR 2017):

auroc: the chance that a query without an answer lies farther from its nearest image than a query with one does; a tie
    counts half. 0 to 1; 0.5 is chance, 1 is perfect, below 0.5 is worse than guessing.
rejected@95: the share of the queries without an answer that lie beyond the threshold which keeps 95 % of the others. 0
    to 1; chance is 0.05. It is 1 - FPR@95TPR, where the positives are the queries with an answer.
"""

from __future__ import annotations

import math

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL
from retrieval_bench.evaluation.mean_intervals import effective_sizes, mean_intervals, wilson
from retrieval_bench.records.schema import Interval, OpenSet

KEPT = 0.95
"""The share of the answerable queries that the threshold keeps, at least."""

NO_LABEL = -1
"""Stands for the label of a query that has none; each such query is an observation of its own."""

DEFINITION = (
    "auroc: mean over all pairs of an answerable and an unanswerable query of 1 where the nearest distance of the "
    "latter is larger, 1/2 where both are equal, else 0. rejected@95: share of the unanswerable with a nearest "
    "distance above t, the smallest nearest distance of an answerable query at or below which at least 95 % of the "
    "answerable lie; what lies at t is kept"
)
"""The two figures, for the documents and the report."""


def placements(answerable: np.ndarray, unanswerable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each query stands among those of the other kind; the mean of either array is the AUROC.

    Args:
        answerable: (a,) nearest distances, at least one.
        unanswerable: (u,) nearest distances, at least one.

    Returns:
        (a,) float64, share of the unanswerable that lie farther than this answerable query; and (u,) float64, share of
        the answerable that lie nearer than this unanswerable one. Ties count half.
    """
    near, far = np.sort(answerable), np.sort(unanswerable)

    def below(values: np.ndarray, among: np.ndarray) -> np.ndarray:
        left, right = (np.searchsorted(among, values, side) for side in ("left", "right"))
        return (left + right) / (2.0 * len(among))

    return 1 - below(answerable, far), below(unanswerable, near)


def threshold(answerable: np.ndarray, kept: float = KEPT) -> float:
    """The smallest of these distances at or below which at least this share (0 to 1) of them lies."""
    n = len(answerable)
    place = math.ceil(kept * n - 1e-9)  # the product may lie a rounding above a whole number
    return float(np.sort(answerable)[max(place, 1) - 1])


def open_set(
    answerable: np.ndarray,
    unanswerable: np.ndarray,
    answerable_labels: np.ndarray,
    unanswerable_labels: np.ndarray,
    level: float = LEVEL,
) -> OpenSet:
    """Compute both figures with their intervals, for other labels of either kind.

    Args:
        answerable: (a,) float32 distance of the nearest gallery image of each query that has an answer.
        unanswerable: (u,) float32 of each query that has none.
        answerable_labels: (a,) int64 first label of each query, by which photos are no independent observations.
        unanswerable_labels: (u,) int64; NO_LABEL for a query that has no label.
        level: how often an interval should hold the figure of all such queries.

    Returns:
        The figures; without intervals where the queries of either kind have fewer than two labels.

    Raises:
        ValueError: There is no query of a kind, or a distance is NaN.
    """
    if not len(answerable) or not len(unanswerable):
        raise ValueError(f"{len(answerable)} answerable and {len(unanswerable)} unanswerable queries: one at least")
    if np.isnan(answerable).any() or np.isnan(unanswerable).any():
        raise ValueError("a nearest distance is NaN")
    clusters = own_clusters(unanswerable_labels)
    kept, refused = placements(answerable, unanswerable)
    at = threshold(answerable)
    rejected = float((unanswerable > at).mean())
    scores = {"auroc": float(refused.mean()), "rejected@95": rejected}
    intervals = {}
    if min(len(np.unique(answerable_labels)), len(np.unique(clusters))) >= 2:
        intervals["auroc"] = _auroc_interval(kept, refused, answerable_labels, clusters, level)
        intervals["rejected@95"] = _rejected_interval(answerable, unanswerable, answerable_labels, clusters, level)
    return OpenSet(
        answerable=len(answerable),
        unanswerable=len(unanswerable),
        scores=scores,
        intervals=intervals,
        threshold=at if math.isfinite(at) else None,
    )


def own_clusters(labels: np.ndarray) -> np.ndarray:
    """(u,) labels with a number of its own for each that is NO_LABEL."""
    lone = labels == NO_LABEL
    numbers = np.array(labels, np.int64)
    numbers[lone] = numbers.max(initial=0) + 1 + np.arange(int(lone.sum()))
    return numbers


def _auroc_interval(
    kept: np.ndarray, refused: np.ndarray, kept_clusters: np.ndarray, refused_clusters: np.ndarray, level: float
) -> Interval:
    """DeLong's variance with labels as clusters (Obuchowski, Biometrics 1997), as an interval by Wilson's formula.

    The variance of an AUROC is that of the mean placement of the one kind plus that of the other. Either is A (1 - A)
    over an effective number of queries, as for any mean between 0 and 1 (`mean_intervals`), which also holds where the
    AUROC is 1 and all placements are the same; so the AUROC has the effective number n m / (n + m).
    """
    from scipy import stats

    sizes = [
        float(effective_sizes(values[:, None], clusters, level)[1][0])
        for values, clusters in ((kept, kept_clusters), (refused, refused_clusters))
    ]
    both = np.array([sizes[0] * sizes[1] / (sizes[0] + sizes[1])])
    low, high = wilson(np.array([refused.mean()]), both, float(stats.norm.ppf((1 + level) / 2)))
    return Interval(low=float(low[0]), high=float(high[0]))


def _rejected_interval(
    answerable: np.ndarray,
    unanswerable: np.ndarray,
    kept_clusters: np.ndarray,
    refused_clusters: np.ndarray,
    level: float,
) -> Interval:
    """Both uncertainties in one interval: of the share beyond a given threshold, and of the threshold itself.

    The threshold may be the quantile at either end of the interval of the share that it keeps (Woodruff, JASA 1952).
    The distances of both ends from the figure are added by their squares (MOVER: Zou and Donner, Statistics in Medicine
    2008).
    """
    at = threshold(answerable)
    beyond = (unanswerable > at).astype(np.float64)
    figure = float(beyond.mean())
    (low, high) = mean_intervals(beyond[:, None], refused_clusters, level)[0]
    (least, most) = mean_intervals((answerable <= at).astype(np.float64)[:, None], kept_clusters, level)[0]
    # A share of KEPT may in truth be anything from KEPT - up to KEPT + down.
    share = float((answerable <= at).mean())
    looser, tighter = KEPT + (share - least), KEPT - (most - share)
    fewest = 0.0 if looser >= 1 else float((unanswerable > threshold(answerable, looser)).mean())
    highest = float((unanswerable > threshold(answerable, max(tighter, 0.0))).mean())
    down = math.hypot(figure - low, figure - min(fewest, figure))
    up = math.hypot(high - figure, max(highest, figure) - figure)
    return Interval(low=max(0.0, figure - down), high=min(1.0, figure + up))
