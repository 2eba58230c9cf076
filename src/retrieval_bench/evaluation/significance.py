"""Is one method better than another on the same queries? Pairwise, and with all pairs accounted for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES, cluster_sums, intervals, resampled_means
from retrieval_bench.evaluation.weighted_sums import weighted_sums
from retrieval_bench.records.schema import Pair

_BLOCK = 500


def compare(
    names: Sequence[str],
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Pair]:
    """Every pair of methods, (q, m) values of one metric, one column each; pairs in the order of `names`."""
    pairs = list(combinations(range(len(names)), 2))
    if not pairs:
        return []
    first, second = np.array(pairs).T
    differences = np.asarray(values, np.float64)[:, first] - np.asarray(values, np.float64)[:, second]
    n_clusters = len(np.unique(clusters))
    reach = intervals(resampled_means(differences, clusters, resamples, seed), n_clusters, level)
    chances = sign_flip(differences, clusters, resamples, seed)
    corrected = holm(chances)
    return [
        Pair(first=names[a], second=names[b], mean=mean, low=low, high=high, p=p, p_holm=p_holm)
        for (a, b), mean, (low, high), p, p_holm in zip(
            pairs, differences.mean(axis=0).tolist(), reach.tolist(), chances.tolist(), corrected.tolist(), strict=True
        )
    ]


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
