"""The uncertainty of a run: from the values of each query to intervals of means and comparisons of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES
from retrieval_bench.evaluation.mean_intervals import DEFINITION, mean_intervals
from retrieval_bench.evaluation.metrics import class_means_of, class_weights
from retrieval_bench.evaluation.significance import DIFFERENCES, compare, groups
from retrieval_bench.records.schema import Comparison, Interval, Statistics

COMPARED = ("accuracy", "map@r")
"""Metrics by which all pairs of methods are compared."""


def statistics(clusters: np.ndarray, seed: int) -> Statistics:
    """How intervals and comparisons are computed. clusters: (q,) the label of each query."""
    return Statistics(
        resamples=RESAMPLES,
        level=LEVEL,
        seed=seed,
        clusters=len(np.unique(clusters)),
        intervals=DEFINITION,
        differences=DIFFERENCES,
    )


def intervals_of(values: Mapping[str, np.ndarray], clusters: np.ndarray, how: Statistics) -> dict[str, Interval]:
    """Metric -> (q,) values of the queries, to metric -> interval of its mean; empty where all have one label."""
    return _intervals(values, clusters, how, None)


def class_mean_intervals_of(
    values: Mapping[str, np.ndarray], labels: np.ndarray, how: Statistics
) -> dict[str, Interval]:
    """The same of the class means that average any of these metrics, by their own names."""
    averaged = {name: values[of] for name, of in class_means_of(values).items()}
    return _intervals(averaged, labels, how, class_weights(labels))


def _intervals(
    values: Mapping[str, np.ndarray], clusters: np.ndarray, how: Statistics, weights: np.ndarray | None
) -> dict[str, Interval]:
    if not values or how.clusters < 2:
        return {}
    reach = mean_intervals(np.column_stack(list(values.values())), clusters, how.level, weights=weights)
    return {name: Interval(low=low, high=high) for name, (low, high) in zip(values, reach.tolist(), strict=True)}


def comparisons(
    values: Mapping[str, Mapping[str, np.ndarray]],
    clusters: np.ndarray,
    how: Statistics,
    metrics: Sequence[str] = COMPARED,
) -> dict[str, Comparison]:
    """Method -> metric -> (q,) values, to metric -> all pairs of methods. Empty for fewer than two methods."""
    names = list(values)
    if len(names) < 2 or how.clusters < 2:
        return {}
    found = {}
    for metric in metrics:
        columns = np.column_stack([values[name][metric] for name in names])
        pairs = compare(names, columns, clusters, resamples=how.resamples, level=how.level, seed=how.seed)
        different = {frozenset((pair.first, pair.second)) for pair in pairs if pair.p_holm <= 1 - how.level}
        found[metric] = Comparison(
            pairs=tuple(pairs),
            groups=groups(names, columns.mean(axis=0).tolist(), different),
        )
    return found
