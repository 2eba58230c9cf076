"""Several methods as one: joined into one vector, or by the rankings of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Protocol, Self, runtime_checkable

import numpy as np

from retrieval_bench.core import BenchError, Bundle, Distance, Judged, Ranking, Searcher
from retrieval_bench.evaluation.metrics import map_at_r
from retrieval_bench.evaluation.relevance import count_relevant
from retrieval_bench.linalg.pca import principal_axes, projected
from retrieval_bench.linalg.rows import signs, unit_rows
from retrieval_bench.registry import JOINS, Range, at_least_one

VECTOR = "vector"
"""What the one vector of a method is called in a Bundle."""

LEARN_FROM = 2000
"""Training images that a join learns from, at most, drawn by the seed."""

TUNE_QUERIES = 500
"""Of these, as many in turn search among all of them when weights are tuned."""

TENTHS = 10

RRF_CONSTANT = 60
"""Of Cormack, Clarke and Buettcher, who found that little depends on it."""

TIE_SHARE = 0.1
"""What reciprocal ranks count beside a vote. Each is below 1 / 61, so that at a tenth those of 600 methods together are
less than one vote: they only put in order what has equally many."""


@dataclass(frozen=True, eq=False)
class Member:
    """A method that is joined with others. features: (n, d) float32, or (n, bytes) uint8 for hamming."""

    name: str
    distance: Distance
    features: np.ndarray


class Join(Protocol):
    """learns: `fit` is to be called before anything else. weights: what each member counts, once that is known.

    comparable: the distances of two queries are on one scale. A join that learns also has the two methods of
    `StoredJoin`.
    """

    distance: Distance
    learns: bool
    comparable: bool
    weights: dict[str, float]

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        """Learn from the features of training images, in the same order for each member."""

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        """What is kept of n images, by name: (n, ...) arrays."""

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        """Over what `combine` gave. build: (name, features) -> the searcher of that one array."""


@runtime_checkable
class StoredJoin(Protocol):
    """A join whose learning can be kept in a file and brought back."""

    def learned_arrays(self) -> dict[str, np.ndarray]:
        """What `fit` left behind, by name."""

    def restore(self, members: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Take the place of `fit`. members: their names, in the order in which they were fitted."""


def as_vectors(member: Member) -> np.ndarray:
    """(n, d) float32 whose inner product is the similarity: 1 - distance for cosine, 1 - 2 h / bits for hamming.

    A zero row of floats stays one: its similarity with everything is 0. BenchError for euclidean, where no vectors do
    that.
    """
    rows: np.ndarray
    if member.distance == "hamming":
        bits = signs(member.features)
        return bits / np.float32(np.sqrt(max(bits.shape[1], 1)))
    if member.distance == "euclidean":
        raise BenchError(
            f"{member.name} is compared by euclidean distance, which is no weighted sum of vectors; "
            "join it by +concat, +rrf or +vote"
        )
    rows = member.features.astype(np.float32)
    return unit_rows(rows) if member.distance == "cosine" else rows


@dataclass(eq=False)
class Scores:
    """Weighted sum of similarities: one vector of all members, each scaled by the root of its weight, whose inner
    product is that sum, so that the search stays exact and one.

    The weights are the ones with which training images find their label best among other training images (see `tuned`).
    Each similarity counts in units of its deviation over pairs of training images.
    """

    distance: Distance = "inner_product"
    learns: bool = True
    comparable: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    scales_: dict[str, float] = field(default_factory=dict)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        queries = np.unique(np.linspace(0, len(labels) - 1, TUNE_QUERIES).astype(np.int64))
        similarities = []
        for member in members:
            rows = as_vectors(member)
            similarity = rows[queries] @ rows.T
            similarity[np.arange(len(queries)), queries] = np.nan
            deviation = float(np.nanstd(similarity)) if len(rows) > 1 else 0.0
            self.scales_[member.name] = deviation if deviation > 1e-9 else 1.0
            similarities.append(similarity / np.float32(self.scales_[member.name]))
        chosen = tuned(similarities, labels, queries)
        self.weights = {member.name: float(weight) for member, weight in zip(members, chosen, strict=True)}
        return self

    def learned_arrays(self) -> dict[str, np.ndarray]:
        scales = [self.scales_[name] for name in self.weights]
        return {"weights": np.array(list(self.weights.values())), "scales": np.array(scales)}

    def restore(self, members: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        self.weights = dict(zip(members, arrays["weights"].tolist(), strict=True))
        self.scales_ = dict(zip(members, arrays["scales"].tolist(), strict=True))

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        scaled = [
            as_vectors(member) * np.float32(np.sqrt(self.weights[member.name] / self.scales_[member.name]))
            for member in members
            if self.weights[member.name] > 0
        ]
        return {VECTOR: np.ascontiguousarray(np.concatenate(scaled, axis=1), np.float32)}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        return build(VECTOR, gallery.arrays[VECTOR])


def tuned(similarities: Sequence[np.ndarray], labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(m,) weights that add up to 1: those of the highest map@r; between equally good ones the most even.

    similarities: m times (q, n), of training images with all of them. labels: (n,). queries: (q,) their own rows, which
    they must not find. map@r rather than accuracy: photos come in series, and nearly every training image has a
    neighbour from its own series with whatever weights (0.99 of the Grocery photos), which says nothing.
    Up to three members: every tenth is tried. More: each weight in turn, until none changes for the better.
    """
    m = len(similarities)
    even = np.full(m, 1 / m)
    n_relevant = count_relevant(labels[queries], labels, queries)
    answerable = np.flatnonzero(n_relevant)
    if not len(answerable):
        return even
    most = int(n_relevant.max())

    def judged(weights: np.ndarray) -> tuple[float, float]:
        total = np.zeros((len(answerable), len(labels)), np.float32)
        for weight, each in zip(weights, similarities, strict=True):
            total += np.float32(weight) * each[answerable]
        total[np.arange(len(answerable)), queries[answerable]] = -np.inf
        nearest = np.argsort(-total, axis=1, kind="stable")[:, :most]
        found = Judged(labels[queries[answerable]], labels[nearest], n_relevant[answerable])
        return round(float(map_at_r(found).mean()), 9), -float(np.square(weights - even).sum())

    if m <= 3:
        tenths = [parts for parts in product(range(TENTHS + 1), repeat=m) if sum(parts) == TENTHS]
        return max((np.array(parts) / TENTHS for parts in tenths), key=judged)
    best = even
    while True:
        tried = [best]
        for place in range(m):
            for change in (-1 / TENTHS, 1 / TENTHS):
                moved = best.copy()
                moved[place] = max(moved[place] + change, 0)
                if moved.sum() > 0:
                    tried.append(moved / moved.sum())
        better = max(tried, key=judged)
        if judged(better) <= judged(best):
            return best
        best = better


@dataclass(eq=False)
class Concatenation:
    """Each member half whitened to at most `dims` components, at length 1, one after the other."""

    dims: int
    level: float
    distance: Distance = "cosine"
    learns: bool = True
    comparable: bool = True
    weights: dict[str, float] = field(default_factory=dict)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        self.axes_ = {member.name: principal_axes(self._rows(member), self.dims, self.level) for member in members}
        self.weights = {member.name: 1 / len(members) for member in members}
        return self

    def learned_arrays(self) -> dict[str, np.ndarray]:
        kept = [(f"mean {place}", f"axes {place}") for place in range(len(self.axes_))]
        return {
            name: array
            for names, own in zip(kept, self.axes_.values(), strict=True)
            for name, array in zip(names, own, strict=True)
        }

    def restore(self, members: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        self.axes_ = {name: (arrays[f"mean {place}"], arrays[f"axes {place}"]) for place, name in enumerate(members)}
        self.weights = {name: 1 / len(members) for name in members}

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        parts = []
        for member in members:
            rows = self._rows(member)
            part = unit_rows(projected(rows, *self.axes_[member.name]))
            part[~rows.any(axis=1)] = 0
            parts.append(part)
        return {VECTOR: np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        return build(VECTOR, gallery.arrays[VECTOR])

    def _rows(self, member: Member) -> np.ndarray:
        return member.features if member.distance == "euclidean" else as_vectors(member)


Points = Callable[[np.ndarray], np.ndarray]
"""Ranks from 0 -> what an item earns by standing there."""


@dataclass(eq=False)
class ByRanks:
    """Each member ranks the gallery; an item earns points for its place in the first `depth` of each ranking.

    Items that are in none of these come behind, in the order of the first member. Distances: 1 - points / most points
    for the former, 1 + place for the latter.
    """

    depth: int
    points: Points
    distance: Distance = "inner_product"
    learns: bool = False
    comparable: bool = False  # ranks, which a query has whether or not anything is near
    weights: dict[str, float] = field(default_factory=dict)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        return self

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        return {member.name: member.features for member in members}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        searchers = {name: build(name, features) for name, features in gallery.arrays.items()}
        return RankSearcher(searchers, len(gallery), min(self.depth, len(gallery)), self.points)


@dataclass(eq=False)
class RankSearcher:
    """searchers: by the name under which a query holds the features of that member. n: gallery rows."""

    searchers: Mapping[str, Searcher]
    n: int
    depth: int
    points: Points

    @property
    def bytes(self) -> int:
        return sum(searcher.bytes for searcher in self.searchers.values())

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        lists = [
            searcher(queries.arrays[name], self.depth, exclude).indices for name, searcher in self.searchers.items()
        ]
        first = next(iter(self.searchers))
        behind = None
        earned = self.points(np.arange(self.depth))
        most = float(earned[0]) * len(lists)
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for row in range(len(queries)):
            found = np.concatenate([ranked[row] for ranked in lists])
            points = np.tile(earned, len(lists))[found >= 0]
            items, which = np.unique(found[found >= 0], return_inverse=True)
            total = np.bincount(which, points, minlength=len(items))
            order = np.lexsort((items, -total))[:k]
            indices[row, : len(order)] = items[order]
            distances[row, : len(order)] = 1 - total[order] / most
            if k > len(items):
                if behind is None:
                    behind = self.searchers[first](queries.arrays[first], self.n, exclude).indices
                rest = behind[row][(behind[row] >= 0) & ~np.isin(behind[row], items)][: k - len(items)]
                place = slice(len(items), len(items) + len(rest))
                indices[row, place] = rest
                distances[row, place] = 1 + np.arange(place.start, place.stop)
        return Ranking(indices, distances)


@JOINS("scores", about="weighted sum of similarities, weights tuned on train")
def scores() -> Join:
    return Scores()


@JOINS("concat", about="each vector half whitened on train, then one after the other")
def concat(*, dims: Annotated[int, Range(1)] = 512, level: Annotated[float, Range(0, 1)] = 0.5) -> Join:
    """Vectors one after the other.

    Args:
        dims: components that are kept of each vector, at most
        level: how far they are whitened, 0 (not at all) to 1 (fully)
    """
    if dims < 1 or not 0 <= level <= 1:
        raise BenchError(f"concat: dims={dims}, level={level}: dims must be at least 1 and level between 0 and 1")
    return Concatenation(dims, level)


@JOINS("rrf", about="reciprocal-rank fusion: 1 / (60 + rank) in the ranking of each")
def rrf(*, depth: Annotated[int, Range(1)] = 1000, constant: Annotated[int, Range(1)] = RRF_CONSTANT) -> Join:
    """Cormack, Clarke, Buettcher: Reciprocal rank fusion outperforms Condorcet, SIGIR 2009.

    Args:
        depth: how far each ranking is read
        constant: what is added to every rank; the larger, the less the first ranks stand out
    """
    at_least_one("rrf", depth=depth, constant=constant)
    return ByRanks(depth, lambda ranks: 1 / (constant + 1.0 + ranks))


@JOINS("vote", about="each method votes for its 10 nearest; equal votes go by rrf")
def vote(*, depth: Annotated[int, Range(1)] = 10) -> Join:
    """Votes for the nearest.

    Args:
        depth: how many of its nearest each method votes for
    """
    at_least_one("vote", depth=depth)
    return ByRanks(depth, lambda ranks: 1 + TIE_SHARE / (RRF_CONSTANT + 1.0 + ranks))
