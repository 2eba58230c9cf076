"""Which images lie within a distance of each other: all pairs, and the components that these make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Distance, Images, Split
from retrieval_bench.search.index import ExactIndex

MOST_PAIRS = 20_000_000
"""More are refused: that many pairs are no duplicates, and would fill the memory."""

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


def check_within(within: float, distance: Distance) -> None:
    """Raise BenchError where no two features can lie within this distance of each other."""
    if math.isnan(within) or (within < 0 and distance != "inner_product"):
        raise BenchError(f"--within {within:g}: no pair lies within it; a {distance} distance is 0 for equal images")


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
        raise BenchError(
            f"more than {most:,} pairs lie within {radius:g}, too many to look at; "
            "lower the radius, or put equal files away first: `dedupe FOLDER DIR --within 0 --apply move --yes`"
        )
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

    def origin(self, row: int) -> tuple[Images, int]:
        """The collection that an image is of, and its row there."""
        return self._origins[row]

    def take(self, rows: Sequence[int]) -> Images:
        return Gathered([self._origins[row] for row in rows])
