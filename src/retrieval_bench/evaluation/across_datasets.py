"""Is one method better than another over datasets? Ranks within each dataset, their means, and tests over datasets.

A dataset is one observation here, however many queries it has (Demšar, "Statistical comparisons of classifiers over
multiple data sets", JMLR 2006). Pairs are compared by the signed-rank test with Holm's correction, and not by mean
ranks: the verdict on two methods would depend on which others are in the table (Benavoli, Corani and Mangili, JMLR
2016). Both tests are exact, or by random permutations, so that they hold with few datasets, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES, intervals, resampled_means
from retrieval_bench.evaluation.significance import groups, holm, sign_flip

FEWEST_DATASETS = 5
"""With fewer, nothing is concluded over datasets: no interval, no test, no line."""

_EQUAL = 1e-9  # scores that differ by rounding alone share a rank
_BLOCK = 500


@dataclass(frozen=True)
class RankPair:
    """p: of the signed-rank test over datasets, of the hypothesis that neither method is better; p_holm: after Holm's
    correction over all pairs."""

    first: str
    second: str
    p: float
    p_holm: float
    different: bool


@dataclass(frozen=True, eq=False)
class RankTests:
    """What ranks over datasets say.

    ranks: (n, m), 1 the best in its dataset, equal scores share the mean of their ranks. means: (m,). reach: (m, 2),
    the interval of each mean rank for other datasets of this kind; None with too few datasets. friedman: p of the
    hypothesis that no method differs from any other; None with too few. pairs: empty with too few. groups: letters as
    `groups` has them; empty with too few, or where no pair could ever differ. needed: datasets with which a pair can
    differ at all.
    """

    ranks: np.ndarray
    means: np.ndarray
    reach: np.ndarray | None
    friedman: float | None
    pairs: tuple[RankPair, ...]
    groups: dict[str, str]
    needed: int

    @property
    def enough(self) -> bool:
        """Whether there are enough datasets for any conclusion over datasets."""
        return len(self.ranks) >= FEWEST_DATASETS

    @property
    def can_differ(self) -> bool:
        """Whether any pair could be told apart, if one were better in every dataset."""
        return len(self.ranks) >= self.needed


def rank_tests(
    names: Sequence[str],
    scores: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RankTests:
    """Compare methods over datasets.

    Args:
        names: m methods, at least two.
        scores: (n, m) of n datasets, more is better.
        level: of intervals and tests.
        resamples: of the bootstrap over datasets, and random permutations of the tests.
        seed: of both.

    Returns:
        Ranks, their means, and what can be concluded.
    """
    scores = np.asarray(scores, np.float64)
    n, m = scores.shape
    ranks = within_ranks(scores)
    pairs = list(combinations(range(m), 2))
    needed = datasets_needed(len(pairs), 1 - level)
    if n < FEWEST_DATASETS:
        return RankTests(ranks, ranks.mean(axis=0), None, None, (), {}, needed)
    own = np.arange(n)
    reach = intervals(resampled_means(ranks, own, resamples, seed), n, level).clip(1, m)
    first, second = np.array(pairs).T
    chances = signed_rank(scores[:, first] - scores[:, second], resamples, seed)
    corrected = holm(chances)
    compared = tuple(
        RankPair(names[a], names[b], p, p_holm, p_holm <= 1 - level)
        for (a, b), p, p_holm in zip(pairs, chances.tolist(), corrected.tolist(), strict=True)
    )
    letters: dict[str, str] = {}
    if n >= needed:
        apart = {frozenset((pair.first, pair.second)) for pair in compared if pair.different}
        letters = groups(names, (-ranks.mean(axis=0)).tolist(), apart)
    return RankTests(ranks, ranks.mean(axis=0), reach, friedman(ranks, resamples, seed), compared, letters, needed)


def within_ranks(scores: np.ndarray) -> np.ndarray:
    """(n, m) scores, more is better -> (n, m) float64 ranks within each row, from 1; equal scores share their mean."""
    better = scores[:, None, :] > scores[:, :, None] + _EQUAL
    equal = np.abs(scores[:, None, :] - scores[:, :, None]) <= _EQUAL
    return 1.0 + better.sum(axis=2) + (equal.sum(axis=2) - 1) / 2


def friedman(ranks: np.ndarray, permutations: int, seed: int) -> float:
    """(n, m) ranks -> p of the hypothesis that within each dataset any order of the methods is as likely.

    Friedman's statistic, the spread of the mean ranks, against random orders; (c + 1) / (permutations + 1).
    """
    n, m = ranks.shape
    seen = ((ranks.sum(axis=0) - n * (m + 1) / 2) ** 2).sum() * (1 - 1e-12) - 1e-12
    random = np.random.default_rng(seed)
    count = 0
    for start in range(0, permutations, _BLOCK):
        block = min(_BLOCK, permutations - start)
        drawn = random.permuted(np.broadcast_to(ranks, (block, n, m)), axis=2)
        count += int((((drawn.sum(axis=1) - n * (m + 1) / 2) ** 2).sum(axis=1) >= seen).sum())
    return (count + 1) / (permutations + 1)


def signed_rank(differences: np.ndarray, flips: int, seed: int) -> np.ndarray:
    """(n, p) differences of n datasets -> (p,) two-sided p of Wilcoxon's signed-rank test.

    Differences of 0 count for neither side; equal sizes share the mean of their ranks. Exact where 2^n <= flips.
    """
    sizes = np.abs(differences)
    sizes[sizes <= _EQUAL] = 0.0
    ranks = np.zeros_like(sizes)
    for column in range(sizes.shape[1]):
        own = np.flatnonzero(sizes[:, column])
        if len(own):
            ranks[own, column] = within_ranks(-sizes[own, column][None])[0]
    return sign_flip(np.sign(differences) * ranks, np.arange(len(differences)), flips, seed)


def datasets_needed(pairs: int, alpha: float) -> int:
    """Datasets with which the smallest p that the signed-rank test knows, 2^(1 - n), passes Holm's first step."""
    n = FEWEST_DATASETS
    while pairs * 2.0 ** (1 - n) > alpha:
        n += 1
    return n


def rank_correlation(values: np.ndarray, others: np.ndarray, permutations: int, seed: int) -> tuple[float, float]:
    """(n,) and (n,) -> Spearman's rho, and its p by random permutations; (0, 1) where either never varies."""
    one, other = (within_ranks(-np.asarray(column, np.float64)[None])[0] for column in (values, others))
    one, other = one - one.mean(), other - other.mean()
    size = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if size <= 1e-12:
        return 0.0, 1.0
    random = np.random.default_rng(seed)
    drawn = random.permuted(np.broadcast_to(other, (permutations, len(other))), axis=1)
    seen = float((one * other).sum())
    count = int((np.abs((drawn * one).sum(axis=1)) >= abs(seen) * (1 - 1e-12) - 1e-12).sum())
    return seen / size, (count + 1) / (permutations + 1)
