"""Intervals of means of values between 0 and 1, such as scores, also where the mean lies next to 0 or 1.

A bootstrap can only repeat what it saw: of a perfect score it says 1 to 1, and of two failures in a thousand queries
that there is next to no doubt. Wilson's interval (JASA 1927) asks in place of that which means in truth would give
what was seen, so it never has length 0. It counts independent observations, though, and queries of one label are not
independent; so it gets an effective number of queries (Korn and Graubard, Survey Methodology 1998): as many
independent ones as would leave the mean as uncertain as its spread over labels shows.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, cluster_sums

FREEDOM = 1.25
"""Degrees of freedom for each effective count of failing queries.

2 by the variance of a sample variance; a smaller number makes good that the spread is small in just those samples whose
mean is too near to 0 or 1. Chosen by the simulation in docs/intervals.md.
"""

LEAST_SPREAD = 0.25
"""The smallest spread over clusters that is believed, in parts of what independent queries would have."""

DEFINITION = (
    "Wilson's interval with n* in place of the number of queries. w: weight of a query, 1 (class means: 1 / queries of "
    "its label); W, S: sums over a label of w and of w x value; m = sum S / sum W; c = (sum W)^2 / sum W^2, the "
    "effective number of labels; v = c / (c - 1) sum (S - m W)^2 / (sum W)^2, at least 1/4 of "
    "sum w^2 (value - m)^2 / (sum w)^2; n = m (1 - m) / v. K, the effective number of failures, is "
    "(sum F)^2 / (sum F^2 + sum w^2 (1 - value)) with F, the sum of w (1 - value) over a label, or the same of w x "
    "value where that is smaller; d = the smaller of c - 1 and 1.25 K / (1 - K / c). n* = the larger of n (z / t_d)^2 "
    "and the smaller of c and n (z / t_(c-1))^2; where all values are the same, n* = c. z, t: quantiles of the normal "
    "distribution and of Student's with so many degrees of freedom, at the level"
)
"""How `intervals` are computed, for the record."""

_SAME = 1e-12  # what values of equal queries differ by, from rounding
_LEAST_FREEDOM = 0.05  # where the quantile of Student's t is 1e20 already


def mean_intervals(
    values: np.ndarray, clusters: np.ndarray, level: float = LEVEL, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute the interval of each mean by Wilson's formula, with the effective number of queries.

    Args:
        values: (q, m) float64, 0 to 1, one column for each mean.
        clusters: (q,) int, the label of each query.
        level: how often the interval should hold the mean over all such queries.
        weights: (q,) float64 above 0, what each query counts in the mean. None: all the same.

    Returns:
        (m, 2) float64, low and high, 0 to 1; low <= mean <= high. NaN if there are fewer than 2 clusters.

    Raises:
        ValueError: There is no query, or values lie outside 0 to 1.
    """
    from scipy import stats

    values = np.asarray(values, np.float64)
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(f"values from {values.min()} to {values.max()}; an interval of this kind is for 0 to 1")
    means, sizes = effective_sizes(values, clusters, level, weights=weights)
    if np.isnan(sizes).any():
        return np.full((len(means), 2), np.nan)
    low, high = wilson(means, sizes, float(stats.norm.ppf((1 + level) / 2)))
    return np.column_stack([np.where(means <= 0, 0.0, low), np.where(means >= 1, 1.0, high)])


def wilson(means: np.ndarray, sizes: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of Wilson's interval: the means in truth from which the one seen lies z standard deviations away.

    means: (m,) 0 to 1; sizes: (m,) above 0, how many independent observations each rests on.
    """
    # Multiplied out, so that sizes near 0 lead to the interval from 0 to 1.
    centre = (sizes * means + z * z / 2) / (sizes + z * z)
    away = z * np.sqrt(sizes * means * (1 - means) + z * z / 4) / (sizes + z * z)
    return np.clip(np.minimum(centre - away, means), 0, 1), np.clip(np.maximum(centre + away, means), 0, 1)


def effective_sizes(
    values: np.ndarray, clusters: np.ndarray, level: float = LEVEL, *, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) weighted means, and (m,) how many independent queries each is worth; NaN with fewer than 2 clusters.

    Arguments as for `mean_intervals`. The names of the lines are those of DEFINITION.

    Near 0 or 1 few clusters hold what little spread there is, so the spread itself is hardly known; the sample cannot
    say whether its failures came singly or whether a whole cluster failed. Its uncertainty is that of Student's t
    with few degrees of freedom. However few they are, n* does not fall below the effective number of clusters: that is
    what is left where all queries of a cluster fail or succeed together.
    """
    from scipy import stats

    values = np.asarray(values, np.float64)
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    column = weight[:, None]
    sums, _ = cluster_sums(np.hstack([column * values, column, column**2 * values, column**2]), clusters)
    m = values.shape[1]
    total, whole, squares = sums[:, :m], sums[:, m : m + 1], sums[:, m + 1 : -1]
    everything = whole.sum()
    means = total.sum(axis=0) / everything
    if len(sums) < 2:
        return means, np.full(m, np.nan)
    c = float(everything**2 / (whole**2).sum())
    v = c / (c - 1) * ((total - means * whole) ** 2).sum(axis=0)
    v = np.maximum(v, LEAST_SPREAD * (column**2 * (values - means) ** 2).sum(axis=0)) / everything**2
    succeeding = _counted(total, squares.sum(axis=0))
    failing = _counted(whole - total, sums[:, -1].sum() - squares.sum(axis=0))
    k = np.minimum(succeeding, failing)
    normal = stats.norm.ppf((1 + level) / 2)
    d = np.minimum(c - 1, FREEDOM * k / np.maximum(1 - k / c, 1e-9))
    alike = (values.max(axis=0) - values.min(axis=0) < _SAME) | (v <= 0)
    n = means * (1 - means) / np.where(alike, 1.0, v)
    narrow = normal / stats.t.ppf((1 + level) / 2, np.maximum([np.full(m, c - 1), d], _LEAST_FREEDOM))
    known = n * narrow[1] ** 2
    return means, np.where(alike, c, np.maximum(known, np.minimum(c, n * narrow[0] ** 2)))


def _counted(mass: np.ndarray, single: np.ndarray) -> np.ndarray:
    """(m,) how many failures are independent: (c, m) their sum in each cluster, (m,) sum over queries, squared weights.

    Single ones in k clusters are k / 2, whole clusters are k, and a small part of one failure is next to nothing.
    """
    summed = mass.sum(axis=0)
    below = (mass**2).sum(axis=0) + np.maximum(single, 0)
    return np.divide(summed**2, below, out=np.zeros_like(summed), where=below > 0)
