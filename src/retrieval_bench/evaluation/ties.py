"""What a score owes to the order of equal distances: its worst, its expected and its best value.

Hash distances take few values, so whole groups of items lie at the same distance, and the tie rule (lower gallery row
first) decides what stands where. Within every group of equal distances, `worst` puts the relevant items last, `best`
puts them first, and `expected` is the mean over all orders of every group, each equally likely. It is computed in
closed form, never drawn: McSherry and Najork, Computing information retrieval performance measures efficiently in the
presence of tied scores, ECIR 2008.

Class means are left out: they average what is here for each query. The votes (knn_accuracy, macro_*) are left out: who
wins depends on how all the labels of a group are arranged, and no closed form is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import Judged
from retrieval_bench.evaluation import metrics
from retrieval_bench.registry import METRICS

_CELLS = 1 << 20  # how many places of tied groups are looked at together


class Bounds(NamedTuple):
    """A metric's mean over all queries: worst <= expected <= best, all equal where no distance decides."""

    worst: float
    expected: float
    best: float


class QueryBounds(NamedTuple):
    """A metric's values for each query, each (q,) float64, worst <= expected <= best."""

    worst: np.ndarray
    expected: np.ndarray
    best: np.ndarray


def tie_bounds(
    n_relevant: np.ndarray, tie_starts: np.ndarray, tie_sizes: np.ndarray, ks: Iterable[int], truncated: bool = False
) -> dict[str, Bounds]:
    """Mean over queries of what ties can make of each metric, {"accuracy": Bounds, "recall@10": ...}.

    n_relevant: (q,) from `count_relevant`, all above 0; tie_starts, tie_sizes: (q, max n_relevant) of `rank_gallery`.
    truncated: rankings may end before the gallery does; a relevant item without a tie was not found in any order.
    Names and order are those of `metrics.scores`, without the votes; its value lies between worst and best.
    Raises ValueError without queries, for a cutoff below 1, and where relevant items lack a tie.
    """
    found = tie_bounds_per_query(n_relevant, tie_starts, tie_sizes, ks, truncated)
    return {name: Bounds(*(float(np.mean(values)) for values in bounds)) for name, bounds in found.items()}


def tie_bounds_per_query(
    n_relevant: np.ndarray, tie_starts: np.ndarray, tie_sizes: np.ndarray, ks: Iterable[int], truncated: bool = False
) -> dict[str, QueryBounds]:
    """As `tie_bounds`, for each query: what an interval by resampling needs."""
    ks = list(ks)
    ties = _Ties(n_relevant, tie_starts, tie_sizes, truncated)
    if any(k < 1 for k in ks):
        raise ValueError(f"cutoff {min(ks)}; the first place is 1")
    worst, best = (_judged(ties, ranks, max(ks, default=1)) for ranks in (ties.worst_ranks, ties.best_ranks))
    bounds = {}
    for name, facts in metrics.describe().items():
        if name not in EXPECTED:
            continue
        for k in ks if facts["at_k"] else [None]:
            low, high = METRICS[name].build(worst, k), METRICS[name].build(best, k)
            mean = EXPECTED[name](ties, k or 1)
            # a sum in another order may end one rounding step beyond the bound that it equals
            bounds[f"{name}@{k}" if facts["at_k"] else name] = QueryBounds(low, np.clip(mean, low, high), high)
    return bounds


class _Ties:
    """The groups of equal distances that hold something relevant, told once for each relevant item in them.

    All (q, max n_relevant): starts, the rank from 0 at which the group begins; sizes, its items; inside, how many of
    these are relevant; before, how many relevant items stand before the group; share, 1 / sizes, so that a sum over
    relevant items weighs each place of the group by the chance that it holds one of them. Padding has share 0.
    """

    def __init__(
        self, n_relevant: np.ndarray, tie_starts: np.ndarray, tie_sizes: np.ndarray, truncated: bool = False
    ) -> None:
        self.n_relevant = np.asarray(n_relevant, np.int64)
        if not len(self.n_relevant):
            raise ValueError("no query to judge")
        if truncated and not tie_starts.shape[1]:  # nothing was found at all
            tie_starts = tie_sizes = np.full((len(tie_starts), 1), -1)
        real = np.asarray(tie_starts) >= 0
        self.found = real[:, 0]
        lacking = real.sum(axis=1) != self.n_relevant
        if (self.n_relevant < 1).any() or (lacking.any() and not truncated):
            raise ValueError("tie_starts does not hold a tie for every relevant item of every query")
        self.starts = np.where(real, tie_starts, 0)
        self.sizes = np.where(real, tie_sizes, 1)
        self.share = np.where(real, 1.0 / self.sizes, 0.0)
        column = np.arange(real.shape[1])
        opens = np.ones(real.shape, bool)
        opens[:, 1:] = (self.starts[:, 1:] != self.starts[:, :-1]) | ~real[:, 1:]
        closes = np.roll(opens, -1, axis=1)  # the last column closes, as the first one always opens
        first = np.maximum.accumulate(np.where(opens, column, 0), axis=1)
        last = np.minimum.accumulate(np.where(closes, column, len(column))[:, ::-1], axis=1)[:, ::-1]
        self.before = first
        self.inside = last - first + 1
        self.best_ranks = np.where(real, self.starts + (column - first), -1)
        self.worst_ranks = np.where(real, self.starts + self.sizes - 1 - (last - column), -1)

    def total(self, values: np.ndarray) -> np.ndarray:
        """(q,): over the relevant items, the sum of `values`, each summed up over the places of the item's group."""
        return (values * self.share).sum(axis=1)

    def places(self, end: int | np.ndarray) -> np.ndarray:
        """(q, max n_relevant) int64: how many places of the group lie before rank `end`."""
        return np.clip(end - self.starts, 0, self.sizes)


def _judged(ties: _Ties, ranks: np.ndarray, depth: int) -> Judged:
    """A ranking with the relevant items, called 0, at these ranks, and padding everywhere else."""
    retrieved = np.full((len(ranks), depth), -1, np.int64)
    query, item = np.nonzero((ranks >= 0) & (ranks < depth))
    retrieved[query, ranks[query, item]] = 0
    return Judged(np.zeros(len(ranks), np.int64), retrieved, ties.n_relevant, ranks, truncated=True)


def _hits(ties: _Ties, k: int) -> np.ndarray:
    """Relevant items among the first k: each lies at every place of its group with the same chance."""
    return ties.total(ties.places(k))


def _hit_rate(ties: _Ties, k: int) -> np.ndarray:
    """One minus the chance to meet none in the first group's places before k; later groups only matter once it is full,
    and then it has hit."""
    drawn = ties.places(k)[:, 0]
    none = _none_before(ties.sizes[:, 0], ties.inside[:, 0], int(drawn.max()))
    return np.where(ties.found, 1.0 - none[np.arange(len(drawn)), drawn], 0.0)


def _mrr(ties: _Ties, k: int) -> np.ndarray:
    """The first relevant item is the first of its group; the place where it lies in it is negative hypergeometric."""
    groups = np.stack([ties.sizes[:, 0], ties.inside[:, 0], ties.starts[:, 0]], axis=1)
    groups, owner = np.unique(groups, axis=0, return_inverse=True)
    values = np.empty(len(groups))
    stop = len(groups)
    while stop:  # the largest groups lie behind, and a block is as wide as its largest
        width = int(groups[stop - 1, 0])
        rows = slice(max(0, stop - max(1, _CELLS // width)), stop)
        size, relevant, start = groups[rows].T[:, :, None]
        place = np.arange(width)
        none = _none_before(size[:, 0], relevant[:, 0], width)[:, :-1]
        chance = none * relevant / np.maximum(size - place, 1)
        values[rows] = (chance / (start + place + 1)).sum(axis=1)
        stop = rows.start
    return np.where(ties.found, values[owner.reshape(-1)], 0.0)


def _none_before(size: np.ndarray, relevant: np.ndarray, width: int) -> np.ndarray:
    """(groups, width + 1): the chance that the first 0, 1, ... width places of a group hold nothing relevant."""
    place = np.arange(width)
    others = np.maximum((size - relevant)[:, None] - place, 0)
    kept = others / np.maximum(size[:, None] - place, 1)
    return np.cumprod(np.hstack([np.ones((len(size), 1)), kept]), axis=1)


def _ndcg(ties: _Ties, k: int) -> np.ndarray:
    gain = np.append(0.0, np.cumsum(1.0 / np.log2(np.arange(2, k + 2))))  # of the first 0, 1, ... k places
    before = np.minimum(ties.starts, k)
    return ties.total(gain[before + ties.places(k)] - gain[before]) / gain[np.minimum(k, ties.n_relevant)]


def _average_precision(ties: _Ties, end: np.ndarray | None = None) -> np.ndarray:
    """Sum of the precision at every relevant item that stands before rank `end`, (q, 1), over R.

    Where the i-th place of a group holds a relevant item, (inside - 1) (i - 1) / (size - 1) others are expected before
    it within the group, and the precision there is (before + 1 + that) / (start + i). With i = (start + i) - start its
    sum over the places before `end` is a matter of counting them and of a difference of harmonic numbers.
    """
    places = ties.sizes if end is None else ties.places(end)
    harmonic = _harmonic(ties.starts, ties.starts + places)
    slope = (ties.inside - 1) / np.maximum(ties.sizes - 1, 1)
    summed = (ties.before + 1) * harmonic + slope * (places - (ties.starts + 1) * harmonic)
    return ties.total(summed) / ties.n_relevant


def _harmonic(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """1 / (low + 1) + ... + 1 / high, to the last digits also where both are large and close to each other."""
    terms = 1.0 / np.arange(1, int(high.max()) + 1)
    sums = np.append(0.0, np.cumsum(terms))
    lost = np.append(0.0, np.cumsum(terms - np.diff(sums)))  # what each addition rounded away, itself exact
    return (sums[high] - sums[low]) + (lost[high] - lost[low])


EXPECTED: dict[str, Callable[[_Ties, int], np.ndarray]] = {
    "accuracy": lambda ties, k: _hits(ties, 1),
    "hit_rate": _hit_rate,
    "precision": lambda ties, k: _hits(ties, k) / k,
    "recall": lambda ties, k: _hits(ties, k) / ties.n_relevant,
    "f1": lambda ties, k: 2.0 * _hits(ties, k) / (k + ties.n_relevant),
    "map@r": lambda ties, k: _average_precision(ties, ties.n_relevant[:, None]),
    "map": lambda ties, k: _average_precision(ties),
    "ndcg": _ndcg,
    "mrr": _mrr,
}
