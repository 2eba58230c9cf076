"""How many products would decide between two methods: the power of the comparison that is made."""

from __future__ import annotations

import math

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, cluster_sums

POWER = 0.8
"""How often so many products are to show the difference, if it is the true one."""


def standard_error(differences: np.ndarray, clusters: np.ndarray) -> float:
    """Of the mean of (q,) paired differences, with clusters and not queries as the independent observations."""
    sums, sizes = cluster_sums(np.asarray(differences, np.float64)[:, None], clusters)
    c, everything = len(sizes), sizes.sum()
    if c < 2:
        return math.nan
    away = sums[:, 0] - sums.sum() / everything * sizes
    return float(np.sqrt(c / (c - 1) * (away**2).sum()) / everything)


def error_of_interval(low: float, high: float, clusters: int, level: float = LEVEL) -> float:
    """The same from both ends of an interval, where nothing else was kept."""
    from scipy import stats

    return (high - low) / (2 * float(stats.t.ppf((1 + level) / 2, max(1, clusters - 1))))


def products_needed(mean: float, error: float, clusters: int, alpha: float = 1 - LEVEL, power: float = POWER) -> float:
    """With how many clusters a two-sided test at `alpha` finds a difference with this power.

    The spread of the differences between clusters and their mean are taken to be those seen, and the mean of so many to
    be normally distributed: n = clusters ((z(1 - alpha / 2) + z(power)) error / mean)^2.

    Args:
        mean: the difference seen.
        error: its standard error with `clusters` clusters.
        clusters: how many were seen.
        alpha: the level of the test.
        power: how often it is to find the difference.

    Returns:
        How many in all; infinity where no difference was seen.
    """
    from scipy import stats

    if mean == 0:
        return math.inf
    reach = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return clusters * (reach * error / mean) ** 2
