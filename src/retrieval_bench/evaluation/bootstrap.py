"""Means over resampled clusters, and their intervals.

The queries of one label are not independent: they often come from one series of photos. So labels are drawn with
replacement, each with all of its queries (cluster bootstrap; Field and Welsh, JRSS B 2007), and never single queries.
Intervals over single queries would be too narrow, by the root of how many queries are in truth one observation.
"""

from __future__ import annotations

import math

import numpy as np

from retrieval_bench.evaluation.weighted_sums import weighted_sums

RESAMPLES = 10_000
LEVEL = 0.95
FEW = 9

_BLOCK = 500  # resamples drawn at once: bounds memory, and is part of what the seed means


def resampled_means(values: np.ndarray, clusters: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(q, m) values of q queries, (q,) int cluster of each -> (resamples, m) float64.

    Each resample draws as many clusters as there are, with replacement; its mean is over all queries drawn. The same
    resamples serve all columns, which makes their differences paired. The same seed gives the same bits for every
    thread count and on every processor. Raises ValueError without a query.
    """
    sums, sizes = cluster_sums(values, clusters)
    n = len(sizes)
    both = np.column_stack([sums, sizes])
    random = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for start in range(0, resamples, _BLOCK):
        drawn = random.integers(n, size=(_BLOCK, n))
        owner = np.arange(_BLOCK)[:, None] * n
        times = np.bincount((drawn + owner).ravel(), minlength=_BLOCK * n).reshape(_BLOCK, n)
        block = weighted_sums(times[: resamples - start], both)
        means[start : start + _BLOCK] = block[:, :-1] / block[:, -1:]
    return means


def cluster_sums(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(c, m) float64 sum of each cluster's values, and (c,) float64 how many these are; clusters in ascending order."""
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) != len(clusters) or not len(values):
        raise ValueError(f"values {values.shape} for {len(clusters)} clusters: one row a query, at least one")
    _, cluster_index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    order = np.argsort(cluster_index, kind="stable")
    starts = np.cumsum(sizes) - sizes
    return np.add.reduceat(values[order], starts, axis=0), sizes.astype(np.float64)


def intervals(means: np.ndarray, n_clusters: int, level: float = LEVEL) -> np.ndarray:
    """(resamples, m) of `resampled_means` -> (m, 2) float64, low and high; NaN where there are fewer than 2 clusters.

    Expanded percentiles (Hesterberg, The American Statistician 2015): plain percentiles are too narrow by the factor
    sqrt((n - 1) / n) and by what Student's t has over the normal distribution; the quantiles are moved out by both.

    Below FEW clusters there are too few different resamples to move out to: no mean lies beyond the most extreme
    cluster, and all of three lie on one side of the truth in one case of four. There it is Student's t with the
    resamples' deviation.
    """
    if n_clusters < 2:
        return np.full((means.shape[1], 2), np.nan)
    from scipy import stats

    reach = math.sqrt(n_clusters / (n_clusters - 1)) * stats.t.ppf((1 + level) / 2, n_clusters - 1)
    if n_clusters < FEW:
        centre, away = means.mean(axis=0), reach * means.std(axis=0)
        return np.column_stack([centre - away, centre + away])
    tail = float(stats.norm.cdf(-reach))
    return np.quantile(means, [tail, 1 - tail], axis=0).T
