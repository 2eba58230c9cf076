"""What a distance is worth: the probability that an item found at it is right, and what a threshold would do.

A distance of 0.31 says nothing to a user, and nothing that two methods share. Queries with a known answer tell what it
means: of the items that a method found at about this distance, so many were right. The curve through them falls with
the distance and has no other shape (isotonic regression: Zadrozny and Elkan, "Transforming classifier scores into
accurate multiclass probability estimates", KDD 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL
from retrieval_bench.evaluation.mean_intervals import mean_intervals

FEWEST_QUERIES = 20
"""With fewer queries no probability is given: its interval would say no more than that it lies between 0 and 1."""

FEWEST_ITEMS, FEWEST_LABELS = 20, 5
"""Of found items on a step of the staircase, and of the labels of their queries."""

THRESHOLDS = 100
"""Steps of a threshold's curve, at equal shares of the nearest distances."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The probability of being right as a falling staircase over distances.

    Args:
        distances: (m,) float64 ascending, the last distance of each step.
        probability: (m,) float64, not increasing: the share of right items on each step.
        low: (m,) float64, lower end of its 95 % interval.
        high: (m,) float64, upper end.
        queries: how many queries it was learned from.
    """

    distances: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    queries: int

    def at(self, distances: np.ndarray) -> np.ndarray:
        """Read the staircase.

        Args:
            distances: (...) of found items; inf stands for none.

        Returns:
            (..., 3) float64: probability, low, high. Beyond the last step its values hold; NaN where nothing was found.
        """
        distances = np.asarray(distances, np.float64)
        step = np.minimum(np.searchsorted(self.distances, distances, "left"), len(self.distances) - 1)
        read = np.stack([self.probability[step], self.low[step], self.high[step]], axis=-1)
        read[~np.isfinite(distances)] = np.nan
        return read


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """What would happen if a query were answered only where its nearest item is at most so far away.

    Args:
        thresholds: (t,) float64 ascending distances.
        precision: (t, 3) float64: of the answered queries, the share whose nearest item is right; low and high of its
            95 % interval. NaN where none is answered.
        recall: (t, 3) float64: of all queries that the gallery can answer, the share answered rightly; low, high.
        answered: (t,) float64, the share of all queries that are answered.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    answered: np.ndarray

    def at(self, threshold: float) -> int:
        """The step that a threshold stands on: the last of those not above it; the first where there is none."""
        return max(int(np.searchsorted(self.thresholds, threshold, "right")) - 1, 0)


def calibrated(
    distances: np.ndarray, right: np.ndarray, labels: np.ndarray, level: float = LEVEL
) -> Calibration | None:
    """Learn what a distance is worth from what queries with a known answer found.

    Args:
        distances: (q, k) of the items found for each query, nearest first; inf pads.
        right: (q, k) bool, whether each item is right.
        labels: (q,) int64, the label of each query, by which photos are no independent observations.
        level: how often an interval should hold the probability of all such queries.

    Returns:
        The staircase; None with fewer than `FEWEST_QUERIES` queries, or where nothing was found.

    Raises:
        ValueError: The shapes do not fit, or a distance is NaN.
    """
    distances, right = np.asarray(distances, np.float64), np.asarray(right, bool)
    if distances.ndim != 2 or distances.shape != right.shape or len(labels) != len(distances):
        raise ValueError(f"distances {distances.shape}, right {right.shape} and labels {np.shape(labels)} do not fit")
    if np.isnan(distances).any():
        raise ValueError("a distance is NaN")
    found = np.isfinite(distances)
    if len(distances) < FEWEST_QUERIES or not found.any():
        return None
    from sklearn.isotonic import IsotonicRegression

    x, y = distances[found], right[found].astype(np.float64)
    clusters = np.broadcast_to(np.asarray(labels)[:, None], found.shape)[found]
    fitted = IsotonicRegression(increasing=False, y_min=0, y_max=1, out_of_bounds="clip").fit_transform(x, y)
    order = np.argsort(x, kind="stable")
    x, y, fitted, clusters = x[order], y[order], fitted[order], clusters[order]
    last = _wide_steps(np.flatnonzero(np.append(np.diff(fitted) != 0, True)), clusters)
    steps = [slice(a, b + 1) for a, b in zip(np.append(0, last[:-1] + 1), last, strict=True)]
    means = np.array([y[step].mean() for step in steps])
    ends = np.array([_interval(y[step], clusters[step], level) for step in steps])
    return Calibration(x[last], means, ends[:, 0], ends[:, 1], len(distances))


def _wide_steps(last: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Last rows of steps, each joined with those behind it until it holds enough: joined steps still fall.

    The regression likes to begin with a step of three lucky items, of which nobody could say how lucky they were.
    """
    kept: list[int] = []
    start = 0
    for end in last.tolist():
        inside = clusters[start : end + 1]
        if len(inside) >= FEWEST_ITEMS and len(np.unique(inside)) >= FEWEST_LABELS:
            kept.append(end)
            start = end + 1
    if not kept or kept[-1] != last[-1]:
        kept[-1:] = [int(last[-1])]  # what is left over belongs to the step before it
    return np.array(kept)


def threshold_curve(
    nearest: np.ndarray, right: np.ndarray, answerable: np.ndarray, labels: np.ndarray, level: float = LEVEL
) -> ThresholdCurve:
    """Precision and recall at every threshold that queries with a known answer can tell apart.

    Args:
        nearest: (q,) distance of the nearest item of each query, at least one; inf where nothing was found.
        right: (q,) bool, whether that item is right.
        answerable: (q,) bool, whether the gallery holds a right item at all.
        labels: (q,) int64, the label of each query.
        level: as for `calibrated`.

    Returns:
        The curve.

    Raises:
        ValueError: There is no query, or a distance is NaN.
    """
    nearest, right = np.asarray(nearest, np.float64), np.asarray(right, bool)
    if not len(nearest) or np.isnan(nearest).any():
        raise ValueError(f"{len(nearest)} queries, at least one is needed, and no distance may be NaN")
    finite = np.sort(nearest[np.isfinite(nearest)])
    places = np.linspace(0, len(finite) - 1, THRESHOLDS + 1).round().astype(np.int64)
    thresholds = np.unique(finite[places]) if len(finite) else np.zeros(1)
    precision, recall = [], []
    for threshold in thresholds:
        answered = nearest <= threshold
        precision.append(_share(right[answered], labels[answered], level))
        recall.append(_share((right & answered)[answerable], labels[answerable], level))
    shares = np.searchsorted(np.sort(nearest), thresholds, "right") / len(nearest)
    return ThresholdCurve(thresholds, np.array(precision), np.array(recall), shares)


def _share(values: np.ndarray, clusters: np.ndarray, level: float) -> tuple[float, float, float]:
    if not len(values):
        return (np.nan, np.nan, np.nan)
    low, high = _interval(values.astype(np.float64), clusters, level)
    return (float(values.mean()), low, high)


def _interval(values: np.ndarray, clusters: np.ndarray, level: float) -> tuple[float, float]:
    """Of a mean; 0 to 1 where all queries are of one label, which says nothing about others."""
    low, high = mean_intervals(values[:, None], clusters, level)[0].tolist()
    return (low, high) if low == low else (0.0, 1.0)
