"""Intervals of means of values between 0 and 1, such as scores, also where the mean lies next to 0 or 1.

A bootstrap can only repeat what it saw: of a perfect score it says 1 to 1, and of two failures in a thousand queries
that there is next to no doubt. Wilson's interval (JASA 1927) asks in place of that which means in truth would give
what was seen, so it never has length 0. It counts independent observations, though, and queries of one label are not
independent; so it gets an effective number of queries (Korn and Graubard, Survey Methodology 1998): as many
independent ones as would leave the mean as uncertain as it is with queries so much alike within their labels.

How much alike is the intra-class correlation, to which each label adds as much as it can tell (Paule and Mandel,
Journal of Research of the NBS 1982). The spread of sums over labels alone would do where labels are of one size; where
they are not, it takes large labels to be perfect as long as only small ones fail. The more doubtful of both counts.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, cluster_sums

FREEDOM = 2
"""Degrees of freedom for each effective count of failing queries, by the variance of a sample variance."""

LEAST_SPREAD = 0.25
"""The smallest spread that is believed, in parts of what independent queries would have."""

ROUNDS = 20
"""How often the correlation is estimated again, with the weights that follow from it."""

DEFINITION = (
    "Wilson's interval with n* in place of the number of queries, its end next to 0 or 1 moved outwards. w: weight of"
    " a query, 1 (class means: 1 / queries of its label); W, S, X, Q: sums over a label of w, w x value, w x value^2,"
    " w^2; y = S / W; k = W^2 / Q, its effective number of queries; s = W / sum W; m = sum S / sum W; c = 1 / sum "
    "s^2, the effective number of labels; T = sum X / sum W - m^2. r, the correlation within labels, is b / (b + e), "
    "1 where e = 0, with e = sum k (X / W - y^2) / sum (k - 1) and b = sum u^2 ((y - m)^2 - e ((1 - 2 s) / k + sum "
    "s^2 / k)) / sum u^2 (1 - 2 s + 1 / c), u = 1 / (p + (1 - p) / k), p = r within 0 to 1; from r = 1, 20 times "
    "over. v = the largest of T (r / c + (1 - r) h), T h / 4 and c / (c - 1) sum (S - m W)^2 / (sum W)^2, h = sum s^2"
    " / k; n = m (1 - m) / v. K, the effective number of failures, is (sum F)^2 / (sum F^2 + sum (u w / W)^2 (1 - "
    "value)) with F = u (1 - y), or the same of y and value in place of 1 - y and 1 - value where that is smaller; C "
    "= (sum u)^2 / sum u^2; K' = K / (1 - K / C); d = the smaller of C - 1 and 2 K'. n* = the larger of n (z / t_d)^2"
    " and the smaller of c and n, but at most c (1 + K')^2; where all values are the same, n* = c. z, t: quantiles of"
    " the normal distribution and of Student's with so many degrees of freedom, at the level. Where m < 1/2 and the "
    "lower end lies above g, it is moved by 1 - 2 m of the way to g, which is where P(B(n* m, n* - n* m + 1) < g) + "
    "P(B(n* m + 1, n* - n* m) < g) = 1 - level, B: beta distribution; the upper end likewise where m > 1/2"
)
"""How `intervals` are computed, for the record."""

_SAME = 1e-12  # what values of equal queries differ by, from rounding
_LEAST_FREEDOM = 0.05  # where the quantile of Student's t is 1e20 already
_TINY = 1e-15  # a variance from rounding
_HALVINGS = 60


def mean_intervals(
    values: np.ndarray, clusters: np.ndarray, level: float = LEVEL, *, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute the interval of each mean by Wilson's formula, with the effective number of queries.

    Next to 0 or 1 Wilson's formula is too sure of the near end: one failure of ten seems to rule out 1 %, where one in
    ten such samples has a failure. There that end is drawn to where half of what lies beyond is counted (mid-P).

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
    rare = np.minimum(means, 1 - means)
    near = np.where(means < 0.5, low, 1 - high)
    moved = near - (1 - 2 * rare) * np.maximum(near - mid_p(rare, sizes, (1 - level) / 2), 0)
    low, high = np.where(means < 0.5, moved, low), np.where(means < 0.5, high, 1 - moved)
    low, high = np.minimum(low, means), np.maximum(high, means)
    return np.column_stack([np.where(means <= 0, 0.0, low), np.where(means >= 1, 1.0, high)])


def wilson(means: np.ndarray, sizes: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of Wilson's interval: the means in truth from which the one seen lies z standard deviations away.

    means: (m,) 0 to 1; sizes: (m,) above 0, how many independent observations each rests on.
    """
    # Multiplied out, so that sizes near 0 lead to the interval from 0 to 1.
    centre = (sizes * means + z * z / 2) / (sizes + z * z)
    away = z * np.sqrt(sizes * means * (1 - means) + z * z / 4) / (sizes + z * z)
    return np.clip(np.minimum(centre - away, means), 0, 1), np.clip(np.maximum(centre + away, means), 0, 1)


def mid_p(means: np.ndarray, sizes: np.ndarray, tail: float) -> np.ndarray:
    """(m,) the smallest mean in truth of which a share as large as the one seen is not rarer than `tail`.

    means, sizes: as for `wilson`. Of the chance of just this share one half is counted, so that it is neither as long
    as Clopper and Pearson's nor too short for few failures (Berry and Armitage, The Statistician 1995).
    """
    from scipy import special

    hits = np.maximum(sizes * means, 1e-12)
    others = np.maximum(sizes - hits, 1e-12)
    low, high = np.zeros(len(means)), np.array(means, np.float64)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        chance = special.betainc(hits, others + 1, middle) + special.betainc(hits + 1, others, middle)
        likely = chance > 2 * tail
        low, high = np.where(likely, low, middle), np.where(likely, middle, high)
    return low


def effective_sizes(
    values: np.ndarray, clusters: np.ndarray, level: float = LEVEL, *, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(m,) weighted means, and (m,) how many independent queries each is worth; NaN with fewer than 2 clusters.

    Arguments as for `mean_intervals`. The names of the lines are those of DEFINITION.

    Near 0 or 1 few clusters hold what little spread there is, so the correlation is hardly known; the sample cannot
    say whether its failures came singly or whether a whole cluster failed. Its uncertainty is that of Student's t
    with few degrees of freedom. However few they are, n* does not fall below the effective number of clusters: that is
    what is left where all queries of a cluster fail or succeed together; nor does it rise above c (1 + K')^2, so that a
    few failures cannot make an interval far narrower than it is without any.
    """
    from scipy import stats

    values = np.asarray(values, np.float64)
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    column = weight[:, None]
    m = values.shape[1]
    sums, _ = cluster_sums(
        np.hstack([column * values, column * values**2, column**2 * values, column, column**2]), clusters
    )
    whole, squared = sums[:, -2:-1], sums[:, -1:]
    total, powers, single = sums[:, :m], sums[:, m : 2 * m], sums[:, 2 * m : 3 * m]
    means = total.sum(axis=0) / whole.sum()
    if len(sums) < 2:
        return means, np.full(m, np.nan)
    y, k, s = total / whole, whole**2 / squared, whole / whole.sum()
    c = float(1 / (s**2).sum())
    spread = np.maximum(powers.sum(axis=0) / whole.sum() - means**2, 0)
    within = k * np.maximum(powers / whole - y**2, 0)
    r, u = _correlation(y - means, within, k, s)
    h = float((s**2 / k).sum())
    v = spread * np.maximum(r / c + (1 - r) * h, LEAST_SPREAD * h)
    v = np.maximum(v, c / (c - 1) * ((total - means * whole) ** 2).sum(axis=0) / whole.sum() ** 2)
    known = u.sum(axis=0) ** 2 / (u**2).sum(axis=0)
    failing = _counted(u * (1 - y), (u / whole) ** 2 * (squared - single))
    succeeding = _counted(u * y, (u / whole) ** 2 * single)
    count = np.minimum(succeeding, failing)
    count = count / np.maximum(1 - count / known, 1e-9)
    d = np.minimum(known - 1, FREEDOM * count)
    alike = (values.max(axis=0) - values.min(axis=0) < _SAME) | (v <= 0)
    n = means * (1 - means) / np.where(alike, 1.0, v)
    level_of = (1 + level) / 2
    narrow = stats.norm.ppf(level_of) / stats.t.ppf(level_of, np.maximum(d, _LEAST_FREEDOM))
    sizes = np.minimum(np.maximum(n * narrow**2, np.minimum(c, n)), c * (1 + count) ** 2)
    return means, np.where(alike, c, sizes)


def _correlation(off: np.ndarray, within: np.ndarray, k: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) the intra-class correlation, and (c, m) what each cluster tells of it.

    off: (c, m) mean of a cluster minus mean of all. within: (c, m) summed squares of its values about its mean. k, s:
    (c, 1) its effective number of queries and its share in all.
    """
    inner = float((k - 1).sum())
    e = within.sum(axis=0) / inner if inner > _SAME else np.zeros(off.shape[1])
    between = off**2 - e * ((1 - 2 * s) / k + (s**2 / k).sum())
    expected = 1 - 2 * s + (s**2).sum()
    r = np.ones(off.shape[1])
    u = np.ones_like(off)
    for _ in range(ROUNDS):
        b = (u**2 * between).sum(axis=0) / (u**2 * expected).sum(axis=0)
        before, r = r, np.where(e <= _TINY, 1.0, b / np.where(b + e > 0, b + e, np.inf))
        held = r.clip(0, 1)
        u = 1 / (held + (1 - held) / k)
        if np.array_equal(before, r):
            break
    return r, u


def _counted(mass: np.ndarray, single: np.ndarray) -> np.ndarray:
    """(m,) how many failures are independent: (c, m) their mass in each cluster, and the sum over its queries, squared.

    Single ones in k clusters are k / 2, whole clusters are k, and a small part of one failure is next to nothing.
    """
    summed = mass.sum(axis=0)
    below = (mass**2 + np.maximum(single, 0)).sum(axis=0)
    return np.divide(summed**2, below, out=np.zeros_like(summed), where=below > 0)
