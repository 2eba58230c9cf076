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
from retrieval_bench.methods.summed import SummedSearcher, nothing_in
from retrieval_bench.methods.summed import similarities as ranked
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
    """A method that is joined with others. features: (n, d) float32, or (n, bytes) uint8 for hamming.

    may_lack: an item may lack what the method reads, a text or a picture; its row is then all zeros, and joins let the
    other members decide of it. search: (features) -> its own searcher, of a method without vectors.
    """

    name: str
    distance: Distance
    features: np.ndarray
    may_lack: bool = False
    search: Callable[[np.ndarray], Searcher] | None = None


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
        vectors: np.ndarray = bits / np.float32(np.sqrt(max(bits.shape[1], 1)))
        if member.may_lack:
            vectors[nothing_in(member.features)] = 0
        return vectors
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
    Each similarity counts in units of its deviation over pairs of training images. Where a member has no vectors, the
    sum is taken of the rankings of the whole gallery (`summed`).

    Vectors of a member that items may lack have their mean over train taken off, and those that are lacking are zeros:
    to each other item these are as similar as a pair is in the mean.
    """

    distance: Distance = "inner_product"
    learns: bool = True
    comparable: bool = True
    weights: dict[str, float] = field(default_factory=dict)
    scales_: dict[str, float] = field(default_factory=dict)
    means_: dict[str, np.ndarray] = field(default_factory=dict)
    one_vector_: bool = True
    may_lack_: list[str] = field(default_factory=list)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        queries = np.unique(np.linspace(0, len(labels) - 1, TUNE_QUERIES).astype(np.int64))
        self.one_vector_ = all(member.search is None for member in members)
        similarities = []
        for member in members:
            if member.search is not None:
                similarity = ranked(member.search(member.features), member.features[queries], len(labels))
            else:
                rows = as_vectors(member)
                if member.may_lack and self.one_vector_:
                    self.means_[member.name] = mean_of_seen(rows)
                    rows = centred(rows, self.means_[member.name])
                similarity = rows[queries] @ rows.T
            similarity[np.arange(len(queries)), queries] = np.nan
            deviation = float(np.nanstd(similarity)) if len(labels) > 1 else 0.0
            self.scales_[member.name] = deviation if deviation > 1e-9 else 1.0
            similarities.append(similarity / np.float32(self.scales_[member.name]))
        chosen = tuned(similarities, labels, queries)
        self.weights = {member.name: float(weight) for member, weight in zip(members, chosen, strict=True)}
        return self

    def learned_arrays(self) -> dict[str, np.ndarray]:
        scales = [self.scales_[name] for name in self.weights]
        means = {f"mean of {name}": mean for name, mean in self.means_.items()}
        by_rank = {} if self.one_vector_ else {"one vector": np.array(False)}
        return {"weights": np.array(list(self.weights.values())), "scales": np.array(scales), **means, **by_rank}

    def restore(self, members: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        self.weights = dict(zip(members, arrays["weights"].tolist(), strict=True))
        self.scales_ = dict(zip(members, arrays["scales"].tolist(), strict=True))
        self.one_vector_ = "one vector" not in arrays
        self.means_ = {name: arrays[f"mean of {name}"] for name in members if f"mean of {name}" in arrays}

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        self.may_lack_ = [member.name for member in members if member.may_lack]
        if not self.one_vector_:
            return {member.name: member.features for member in members}
        scaled = []
        for member in members:
            if self.weights[member.name] > 0:
                rows = as_vectors(member)
                if member.name in self.means_:
                    rows = centred(rows, self.means_[member.name])
                scaled.append(rows * np.float32(np.sqrt(self.weights[member.name] / self.scales_[member.name])))
        return {VECTOR: np.ascontiguousarray(np.concatenate(scaled, axis=1), np.float32)}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        if self.one_vector_:
            return build(VECTOR, gallery.arrays[VECTOR])
        searchers = {name: build(name, features) for name, features in gallery.arrays.items()}
        factors = {name: self.weights[name] / self.scales_[name] for name in searchers}
        lacking = {name: nothing_in(gallery.arrays[name]) for name in self.may_lack_}
        return SummedSearcher(searchers, factors, lacking, len(gallery))


def mean_of_seen(rows: np.ndarray) -> np.ndarray:
    """(d,) float32, the mean of the rows that are not all zeros."""
    seen = rows[rows.any(axis=1)]
    mean: np.ndarray = seen.mean(axis=0, dtype=np.float64) if len(seen) else np.zeros(rows.shape[1])
    return mean.astype(np.float32)


def centred(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The rows without the mean; a row of zeros stays one."""
    return np.where(rows.any(axis=1, keepdims=True), rows - mean, np.float32(0))


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
        return _comparable_rows(member)


Points = Callable[[np.ndarray], np.ndarray]
"""Ranks from 0 -> what an item earns by standing there."""


@dataclass(eq=False)
class ByRanks:
    """Each member ranks the gallery; an item earns points for its place in the first `depth` of each ranking.

    Items that are in none of these come behind, in the order of the first member. Distances: 1 - points / most points
    for the former, 1 + place for the latter. An item that lacks what a member reads earns with it what it earns in the
    mean with the others; a query that lacks it is answered by the others; and what shares no word with a query is not
    found by a member that counts words.
    """

    depth: int
    points: Points
    distance: Distance = "inner_product"
    learns: bool = False
    comparable: bool = False  # ranks, which a query has whether or not anything is near
    weights: dict[str, float] = field(default_factory=dict)
    may_lack_: list[str] = field(default_factory=list)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        return self

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        self.may_lack_ = [member.name for member in members if member.may_lack]
        return {member.name: member.features for member in members}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        searchers = {name: build(name, features) for name, features in gallery.arrays.items()}
        lacking = {name: nothing_in(gallery.arrays[name]) for name in self.may_lack_}
        return RankSearcher(searchers, len(gallery), min(self.depth, len(gallery)), self.points, lacking)


@dataclass(eq=False)
class RankSearcher:
    """searchers: by the name under which a query holds the features of that member. n: gallery rows. lacking: of a
    member, the gallery rows that lack what it reads, (n,) bool."""

    searchers: Mapping[str, Searcher]
    n: int
    depth: int
    points: Points
    lacking: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(searcher.bytes for searcher in self.searchers.values())

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        lists = [self._found(name, queries.arrays[name], exclude) for name in self.searchers]
        mute = {name: nothing_in(queries.arrays[name]) for name in self.lacking}
        shares: dict[tuple[str, ...], np.ndarray | None] = {}
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
            told = tuple(name for name in self.lacking if not mute[name][row])
            if told not in shares:
                shares[told] = self._shares(told)
            share = shares[told]
            total = np.bincount(which, points, minlength=len(items)) * (1.0 if share is None else share[items])
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

    def _found(self, name: str, queries: np.ndarray, exclude: np.ndarray | None) -> np.ndarray:
        """(q, depth) gallery rows that a member finds; -1 for what it knows nothing of."""
        searcher = self.searchers[name]
        ranking = searcher(queries, self.depth, exclude)
        found, lacking = ranking.indices.copy(), self.lacking.get(name)
        nothing_shared = getattr(searcher, "nothing", None)
        if nothing_shared is not None:
            found[ranking.distances >= nothing_shared] = -1
        if lacking is not None:
            found[lacking[found]] = -1
            found[nothing_in(queries)] = -1
        return found

    def _shares(self, told: Sequence[str]) -> np.ndarray | None:
        """(n,) what the points of each gallery row count, as fewer members see it than answer; None: all see all.

        told: of the members that items may lack, those that know something of the query.
        """
        blind = np.sum([self.lacking[name] for name in told], axis=0)
        if not np.any(blind):
            return None
        answer = len(self.searchers) - len(self.lacking) + len(told)
        return np.asarray(answer / np.maximum(answer - blind, 1))


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


@dataclass(eq=False)
class Early:
    """One vector of all members, each centred and at length 1, whitened together on train and cut to `dims`.

    The part of a member that an item lacks is zeros, which is the mean of train.
    """

    dims: int
    level: float
    distance: Distance = "cosine"
    learns: bool = True
    comparable: bool = True
    weights: dict[str, float] = field(default_factory=dict)

    def fit(self, members: Sequence[Member], labels: np.ndarray) -> Self:
        self.means_ = {member.name: mean_of_seen(_comparable_rows(member)) for member in members}
        self.mean_, self.axes_ = principal_axes(self._joined(members), self.dims, self.level)
        self.weights = {member.name: 1 / len(members) for member in members}
        return self

    def learned_arrays(self) -> dict[str, np.ndarray]:
        means = {f"mean {place}": mean for place, mean in enumerate(self.means_.values())}
        return {"mean": self.mean_, "axes": self.axes_, **means}

    def restore(self, members: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        self.means_ = {name: arrays[f"mean {place}"] for place, name in enumerate(members)}
        self.mean_, self.axes_ = arrays["mean"], arrays["axes"]
        self.weights = {name: 1 / len(members) for name in members}

    def combine(self, members: Sequence[Member]) -> dict[str, np.ndarray]:
        whitened = unit_rows(projected(self._joined(members), self.mean_, self.axes_))
        return {VECTOR: np.ascontiguousarray(whitened, np.float32)}

    def searcher(self, gallery: Bundle, build: Callable[[str, np.ndarray], Searcher]) -> Searcher:
        return build(VECTOR, gallery.arrays[VECTOR])

    def _joined(self, members: Sequence[Member]) -> np.ndarray:
        parts = [unit_rows(centred(_comparable_rows(member), self.means_[member.name])) for member in members]
        return np.concatenate(parts, axis=1)


def _comparable_rows(member: Member) -> np.ndarray:
    return member.features if member.distance == "euclidean" else as_vectors(member)


@JOINS("early", about="all vectors as one, whitened together on train")
def early(*, dims: Annotated[int, Range(1)] = 512, level: Annotated[float, Range(0, 1)] = 1.0) -> Join:
    """One vector of all, whitened as a whole.

    Args:
        dims: components that are kept, at most
        level: how far they are whitened, 0 (not at all) to 1 (fully)
    """
    if dims < 1 or not 0 <= level <= 1:
        raise BenchError(f"early: dims={dims}, level={level}: dims must be at least 1 and level between 0 and 1")
    return Early(dims, level)


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
