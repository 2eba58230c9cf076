"""The uncertainty of a run: from the values of each query to intervals of means and comparisons of pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES, intervals, resampled_means
from retrieval_bench.evaluation.significance import compare, groups
from retrieval_bench.records.schema import Comparison, Interval, Statistics

COMPARED = ("accuracy", "map@r")
"""Metrics by which all pairs of methods are compared."""


def statistics(clusters: np.ndarray, seed: int) -> Statistics:
    """How intervals and comparisons are computed. clusters: (q,) the label of each query."""
    return Statistics(resamples=RESAMPLES, level=LEVEL, seed=seed, clusters=len(np.unique(clusters)))


def intervals_of(values: Mapping[str, np.ndarray], clusters: np.ndarray, how: Statistics) -> dict[str, Interval]:
    """Metric -> (q,) values of the queries, to metric -> interval of its mean; empty where all have one label.

    All metrics lie between 0 and 1, and so do the intervals.
    """
    if not values or how.clusters < 2:
        return {}
    means = resampled_means(np.column_stack(list(values.values())), clusters, how.resamples, how.seed)
    reach = intervals(means, how.clusters, how.level).clip(0.0, 1.0)
    return {name: Interval(low=low, high=high) for name, (low, high) in zip(values, reach.tolist(), strict=True)}


def comparisons(
    values: Mapping[str, Mapping[str, np.ndarray]], clusters: np.ndarray, how: Statistics
) -> dict[str, Comparison]:
    """Method -> metric -> (q,) values, to metric -> all pairs of methods. Empty for fewer than two methods."""
    names = list(values)
    if len(names) < 2 or how.clusters < 2:
        return {}
    found = {}
    for metric in COMPARED:
        columns = np.column_stack([values[name][metric] for name in names])
        pairs = compare(names, columns, clusters, resamples=how.resamples, level=how.level, seed=how.seed)
        different = {frozenset((pair.first, pair.second)) for pair in pairs if pair.p_holm <= 1 - how.level}
        found[metric] = Comparison(
            pairs=tuple(pairs),
            groups=groups(names, columns.mean(axis=0).tolist(), different),
        )
    return found
