"""Which images are the same picture: pairs within a distance, the groups these make, and where to draw the line.

Where the line is drawn is measured on planted copies: perturbed pictures whose originals are known. The threshold is
chosen on one half of the originals and judged on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from retrieval_bench.core import BenchError, Distance, Images, Split
from retrieval_bench.images.perturbations import Perturbed
from retrieval_bench.search.index import ExactIndex

MOST_PAIRS = 20_000_000
"""More are refused: that many pairs are no duplicates, and would fill the memory."""

COPIED = 0.01
"""The share of a collection's images that are supposed to have a copy in it, where a line is drawn for its size."""

PLANTED = (
    *(("jpeg", 2), ("brightness", 1), ("blur", 2), ("noise", 1), ("crop", 1)),
    *(("rotate", 1), ("occlude", 1), ("background", 1), ("flip", 1)),
)
"""What is done to copies, one of these to each in turn: (perturbation, severity)."""


Describe = Callable[[Split, Mapping[str, Split]], tuple[str, Distance, dict[str, np.ndarray]]]
"""(train, splits by name) -> a method's name, its distance, and the features of each split, learned from train."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two images each: first and second are (p,) int64 rows, first < second; distances (p,) float32."""

    first: np.ndarray
    second: np.ndarray
    distances: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def pairs_within(features: np.ndarray, radius: float, distance: Distance, *, most: int = MOST_PAIRS) -> Pairs:
    """All pairs of rows at a distance of `radius` or less, by first and then by second row.

    features: (n, d) as for ExactIndex. Equal rows are searched for once, so that a thousand copies of one picture do
    not cost a million neighbours. Raises BenchError for more than `most` pairs.
    """
    distinct, owner, counts = np.unique(features, axis=0, return_inverse=True, return_counts=True)
    owner = owner.reshape(-1)
    members = np.argsort(owner, kind="stable")
    starts = np.cumsum(counts) - counts
    found = ExactIndex(distinct, distance).search_radius(distinct, radius)
    left = np.repeat(np.arange(len(distinct)), np.diff(found.offsets))
    once = left <= found.indices  # the diagonal too: copies of one row are pairs among themselves
    left, right, near = left[once], found.indices[once], found.distances[once]
    if int((counts[left] * counts[right]).sum()) > 2 * most:
        raise BenchError(f"more than {most:,} pairs lie within {radius:g}, too many to be duplicates; lower the radius")
    alone = (counts[left] == 1) & (counts[right] == 1)
    plain = alone & (left != right)
    first, second = [members[starts[left[plain]]]], [members[starts[right[plain]]]]
    distances = [near[plain]]
    for a, b, apart in zip(left[~alone].tolist(), right[~alone].tolist(), near[~alone].tolist(), strict=True):
        ours = members[starts[a] : starts[a] + counts[a]]
        theirs = members[starts[b] : starts[b] + counts[b]]
        if a == b:
            one, two = (ours[side] for side in np.triu_indices(len(ours), 1))
        else:
            one, two = np.repeat(ours, len(theirs)), np.tile(theirs, len(ours))
        first.append(one)
        second.append(two)
        distances.append(np.full(len(one), apart, np.float32))
    low, high = (np.concatenate(side) for side in (first, second))
    low, high = np.minimum(low, high), np.maximum(low, high)
    order = np.lexsort((high, low))
    return Pairs(low[order], high[order], np.concatenate(distances)[order])


def groups(n: int, pairs: Pairs) -> list[np.ndarray]:
    """Connected components of at least two of n images: rows ascending, the group with the lowest row first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs.first, pairs.second)), shape=(n, n))
    _, owner = connected_components(graph, directed=False)
    order = np.argsort(owner, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(owner[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


class Gathered:
    """Images of several collections in a row, each given as (images, row). Implements `core.Images`."""

    def __init__(self, origins: Sequence[tuple[Images, int]]) -> None:
        self._origins = list(origins)

    def __len__(self) -> int:
        return len(self._origins)

    def __getitem__(self, row: int) -> np.ndarray:
        images, row_there = self._origins[row]
        return images[row_there]

    def read(self, row: int) -> bytes:
        images, row_there = self._origins[row]
        return images.read(row_there)

    def digest(self, row: int) -> str:
        images, row_there = self._origins[row]
        return images.digest(row_there)

    def take(self, rows: Sequence[int]) -> Images:
        return Gathered([self._origins[row] for row in rows])


class Copies:
    """Images that were copied, behind them a perturbed copy of each. Implements `core.Images`.

    Row i < n is original i, row n + i its copy; `changes[i]` says what was done to it.
    """

    def __init__(self, originals: Images, changes: Sequence[tuple[str, int]], seed: int) -> None:
        if len(originals) != len(changes):
            raise ValueError(f"{len(changes)} changes for {len(originals)} images")
        self.originals, self.changes, self.seed = originals, tuple(changes), seed

    def __len__(self) -> int:
        return 2 * len(self.originals)

    def _at(self, row: int) -> tuple[Images, int]:
        n = len(self.originals)
        if row < n:
            return self.originals, row
        name, severity = self.changes[row - n]
        return Perturbed(self.originals, name, severity, self.seed), row - n

    def __getitem__(self, row: int) -> np.ndarray:
        images, at = self._at(row)
        return images[at]

    def read(self, row: int) -> bytes:
        images, at = self._at(row)
        return images.read(at)

    def digest(self, row: int) -> str:
        images, at = self._at(row)
        return images.digest(at)

    def take(self, rows: Sequence[int]) -> Images:
        raise TypeError("copies stay with their originals; take from the originals before copying")


def planted(n: int) -> list[tuple[str, int]]:
    """What is done to n copies: each of PLANTED in turn."""
    return [PLANTED[number % len(PLANTED)] for number in range(n)]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Quality at every distance that any pair has, ascending; all (t,) float64.

    precision: of the pairs within the threshold, how many are true, false ones counted by their weight. recall: of the
    true pairs, how many are within.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """Precision (1 where nothing is within), recall and F1 of this threshold."""
        place = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
        if place < 0:
            return {"precision": 1.0, "recall": 0.0, "f1": 0.0}
        return {name: float(getattr(self, name)[place]) for name in ("precision", "recall", "f1")}

    def best(self, precision: float | None = None) -> float:
        """The threshold of the best F1; or, of those of at least this precision, the one of the most recall.

        Of equals the lowest. Where no threshold is that precise, a distance below all: nothing is a duplicate.
        """
        if precision is None:
            return float(self.thresholds[int(np.argmax(self.f1))])
        good = np.flatnonzero(self.precision >= precision)
        if not len(good):
            return float(np.nextafter(np.float32(self.thresholds[0]), np.float32(-np.inf)))
        return float(self.thresholds[good[int(np.argmax(self.recall[good]))]])


def sweep(distances: np.ndarray, true: np.ndarray, weight: float = 1.0) -> Sweep:
    """distances: (p,) of all pairs. true: (p,) bool, at least one. weight: how many pairs one false pair stands for."""
    if not true.any():
        raise ValueError("no pair is true: there is nothing to find")
    thresholds, place = np.unique(distances, return_inverse=True)
    wrong = weight * np.cumsum(np.bincount(place[~true], minlength=len(thresholds)))
    right = np.cumsum(np.bincount(place[true], minlength=len(thresholds)))
    precision = np.divide(right, right + wrong, out=np.ones(len(right)), where=right + wrong > 0)
    f1 = 2 * right / (right + wrong + true.sum())
    return Sweep(thresholds.astype(np.float64), precision, right / true.sum(), f1)


class Judgement(NamedTuple):
    """threshold: chosen on half of the originals. tuned, held_out: precision, recall and F1 on that half, and on the
    other. found: by perturbation, the share of the held-out copies that were found. false_per_million: of a million
    held-out pairs of different pictures, how many are taken for duplicates. curve: the sweep of the held-out half.
    """

    threshold: float
    tuned: dict[str, float]
    held_out: dict[str, float]
    found: dict[str, float]
    false_per_million: float
    curve: Sweep


def judged(
    features: np.ndarray,
    distance: Distance,
    changes: Sequence[tuple[str, int]],
    seed: int,
    precision: float | None = None,
    size: int | None = None,
) -> Judgement:
    """Where to draw the line between duplicates and others, and how good that is in a collection of `size` images.

    False pairs grow with the square of the images and true ones do not, and among the planted every image has a copy: a
    line that is right there would drown the duplicates of a collection in strangers. So a false pair counts as many
    times as there are more of them for each true one in a collection of which COPIED have a copy; without a size, once.

    features: (2 n, d) of `Copies`, n at least 2. A half is a collection of its own: its originals, their copies, and
    every pair among these. Pairs other than an original and its copy count as false, also of pictures that resemble
    each other by nature; so the precision is a lower bound where the collection holds duplicates already.
    """
    n = len(changes)
    if len(features) != 2 * n or n < 2:
        raise ValueError(f"{len(features)} features for {n} originals and their copies")
    order = np.random.default_rng(seed).permutation(n)
    halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    tuned, held_out = (_pairs_of(features, distance, half, n) for half in halves)
    # A half of m has m true pairs and 2 m² false ones, the collection COPIED * size and size² / 2.
    weights = [1.0 if size is None else max(1.0, size / (4 * COPIED * len(half))) for half in halves]
    chosen_on, curve = sweep(*tuned, weights[0]), sweep(*held_out, weights[1])
    threshold = chosen_on.best(precision)
    distances, true = held_out
    own = distances[true]  # in the order of the half: see _pairs_of
    kinds = np.array([f"{name} {severity}" for name, severity in changes])[halves[1]]
    return Judgement(
        threshold,
        chosen_on.at(threshold),
        curve.at(threshold),
        {kind: float((own[kinds == kind] <= threshold).mean()) for kind in dict.fromkeys(kinds.tolist())},
        float((distances[~true] <= threshold).sum() / max(1, (~true).sum()) * 1e6),
        curve,
    )


def _pairs_of(features: np.ndarray, distance: Distance, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances of all pairs among these originals and their copies, and which are true, those by ascending row."""
    both = features[np.concatenate([rows, rows + n])]
    ranking = ExactIndex(both, distance).search(both, len(both))
    apart = np.empty((len(both), len(both)), np.float32)
    np.put_along_axis(apart, ranking.indices, ranking.distances, axis=1)
    first, second = np.triu_indices(len(both), 1)
    return apart[first, second], second == first + len(rows)
