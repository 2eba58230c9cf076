"""Is one method better than another on the same queries? Pairwise, and with all pairs accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES, cluster_sums
from retrieval_bench.evaluation.mean_intervals import mean_intervals
from retrieval_bench.evaluation.weighted_sums import weighted_sums
from retrieval_bench.records.schema import Pair

_BLOCK = 500

DIFFERENCES = (
    "square-and-add (Newcombe): with m1, m2 the means and l, u the ends of their intervals, m1 - m2 - "
    "sqrt(a^2 - 2 r a b + b^2) with a = m1 - l1, b = u2 - m2, to m1 - m2 + the same with a = u1 - m1, b = m2 - l2; "
    "r: correlation over labels of sum (value - mean) of the one method and of the other, 0 where either is never off"
)
"""How intervals of differences are computed, for the record."""


def compare(
    names: Sequence[str],
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Pair]:
    """Every pair of methods, (q, m) values of one metric, 0 to 1, a column each; pairs in the order of `names`.

    resamples: random sign patterns of the test.
    """
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return []
    first, second = np.array(pairs).T
    values = np.asarray(values, np.float64)
    differences = values[:, first] - values[:, second]
    reach = difference_intervals(values, clusters, first, second, level)
    chances = sign_flip(differences, clusters, resamples, seed)
    corrected = holm(chances)
    return [
        Pair(first=names[a], second=names[b], mean=mean, low=low, high=high, p=p, p_holm=p_holm)
        for (a, b), mean, (low, high), p, p_holm in zip(
            pairs, differences.mean(axis=0).tolist(), reach.tolist(), chances.tolist(), corrected.tolist(), strict=True
        )
    ]


def difference_intervals(
    values: np.ndarray, clusters: np.ndarray, first: np.ndarray, second: np.ndarray, level: float = LEVEL
) -> np.ndarray:
    """(q, m) values, (p,) columns of the one and of the other method -> (p, 2) low and high of mean minus mean.

    From the intervals of both means and their correlation (Newcombe, Statistics in Medicine 1998, method 10 for paired
    shares). A bootstrap of the differences covers as little as a third of what it says where a method hardly fails.
    """
    sums, sizes = cluster_sums(values, clusters)
    means = sums.sum(axis=0) / sizes.sum()
    off = sums - means * sizes[:, None]
    spread = np.sqrt((off**2).sum(axis=0))
    known = np.minimum(spread[first], spread[second]) > 1e-9 * sizes.sum()
    product = spread[first] * spread[second]
    shared = (off[:, first] * off[:, second]).sum(axis=0)
    r = np.divide(shared, product, out=np.zeros(len(first)), where=known).clip(-1, 1)
    down, up = np.abs(mean_intervals(values, clusters, level) - means[:, None]).T

    def away(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(a * a - 2 * r * a * b + b * b, 0))

    found = means[first] - means[second]
    return np.column_stack([found - away(down[first], up[second]), found + away(up[first], down[second])])


def sign_flip(differences: np.ndarray, clusters: np.ndarray, flips: int, seed: int) -> np.ndarray:
    """(q, m) paired differences -> (m,) two-sided p of the hypothesis that each cluster's sum may as well be its
    negative: (c + 1) / (n + 1), where c of n random sign patterns give a sum at least as far from 0 as the one seen
    (Phipson and Smyth, 2010: never 0, as the pattern that was seen is one of them).

    With 2^clusters <= flips every pattern is tried once instead, and p is their share.
    """
    sums, sizes = cluster_sums(differences, clusters)
    n = len(sizes)
    # What differs by rounding alone is equally far.
    seen = np.abs(sums.sum(axis=0)) * (1 - 1e-12) - 1e-12
    counts = np.zeros(differences.shape[1], np.int64)
    whole = n < 60 and 2**n <= flips
    total = 2**n if whole else flips
    random = np.random.default_rng(seed)
    for start in range(0, total, _BLOCK):
        if whole:
            patterns = np.arange(start, min(start + _BLOCK, total))
            bits = (patterns[:, None] >> np.arange(n)) & 1
        else:
            bits = random.integers(2, size=(_BLOCK, n))[: total - start]
        counts += (np.abs(weighted_sums(2 * bits - 1, sums)) >= seen).sum(axis=0)
    return counts / total if whole else (counts + 1) / (total + 1)


def holm(chances: np.ndarray) -> np.ndarray:
    """(m,) p-values -> (m,) p-values that control the chance of any false finding (Holm, 1979)."""
    m = len(chances)
    order = np.argsort(chances, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(chances, np.float64)[order] * (m - np.arange(m)))
    corrected = np.empty(m)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def groups(names: Sequence[str], means: Sequence[float], different: set[frozenset[str]]) -> dict[str, str]:
    """Letters: methods that share one do not differ significantly (compact letter display; Piepho, 2004).

    different: the pairs that can. The best method has the first letter; every method has at least one.
    """
    ranked = [names[place] for place in sorted(range(len(names)), key=lambda place: (-means[place], place))]
    columns: list[set[str]] = [set(ranked)]
    for pair in sorted(map(sorted, different)):
        one, other = pair
        for column in [column for column in columns if one in column and other in column]:
            columns.remove(column)
            for left_out in (one, other):
                smaller = column - {left_out}
                if not any(smaller <= kept for kept in columns):
                    columns = [kept for kept in columns if not kept < smaller] + [smaller]
    columns.sort(key=lambda column: sorted(map(ranked.index, column)))
    return {name: "".join(_letter(place) for place, column in enumerate(columns) if name in column) for name in names}


def _letter(place: int) -> str:
    """a, b, ..., z, a2, b2, ..."""
    again, letter = divmod(place, 26)
    return chr(ord("a") + letter) + (str(again + 1) if again else "")
