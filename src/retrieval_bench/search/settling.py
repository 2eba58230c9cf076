"""From the candidates of a scan to the nearest rows: float64 distances, and a second look where the first left a doubt.

What a gallery must keep for it: the rows as they were given (`Kept` in memory, `OnDisk` read again from a file).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numba
import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.checks import check_finite
from retrieval_bench.search.kernels import KINDS
from retrieval_bench.search.keys import EMPTY
from retrieval_bench.search.points import points, value_type, values_of
from retrieval_bench.search.rescore import compiled
from retrieval_bench.search.threads import on_threads

_WORK_PER_THREAD = 1_000_000  # multiply-adds in float64; below this, starting a thread costs more than it saves

_NONE = np.empty(0, np.int64)


class Asked(NamedTuple):
    """Queries that want distances: values (q, d) float32 or float64; squares, factors, facts of `points.points`."""

    values: np.ndarray
    squares: np.ndarray
    factors: np.ndarray
    facts: np.ndarray

    def part(self, rows: slice | np.ndarray) -> Asked:
        return Asked(*(each[rows] for each in self))

    @classmethod
    def joined(cls, parts: Sequence[Asked]) -> Asked:
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Kept:
    """The rows of a gallery in memory, in a type that holds them exactly.

    values: (n, d) float32 or float64. squares, factors: (n,) float64 for cosine, else empty. zeros: ascending rows that
    are all zeros, for cosine.
    """

    def __init__(self, distance: Distance, values: np.ndarray) -> None:
        self.distance, self.values = distance, values
        known = len(values) if distance == "cosine" else 0
        self.squares, self.factors = np.empty(known), np.empty(known)
        self.zeros = np.empty(0, np.int64)

    @classmethod
    def for_gallery(cls, distance: Distance, gallery: np.ndarray) -> Kept:
        """Room for the rows; for a gallery that is read-only and as it must be, the gallery itself."""
        kind = value_type(gallery.dtype)
        flags = gallery.flags
        fits = flags.c_contiguous and flags.aligned and gallery.dtype == kind and gallery.dtype.isnative
        if fits and not gallery.flags.writeable and (kind == np.float32 or distance != "cosine"):
            return cls(distance, gallery)
        return cls(distance, np.empty(gallery.shape, kind))

    def take(self, block: np.ndarray, rows: slice, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keep some rows of the gallery -> their points, facts and squares of `points.points`."""
        values = values_of("gallery", block, self.distance, rows.start)
        some, squares, factors, facts = points(self.distance, values, centre, queries=False)
        check_finite("gallery", np.isfinite(squares), rows.start)
        if self.values.flags.writeable:
            self.values[rows] = values
        if self.distance == "cosine":
            self.squares[rows], self.factors[rows] = squares, factors
        return some, facts, squares

    def complete(self) -> None:
        """All rows are taken."""
        if self.distance == "cosine":
            self.zeros = np.flatnonzero(self.squares == 0.0)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (self.values, self.squares, self.factors, self.zeros))

    def __len__(self) -> int:
        return len(self.values)

    def gathered(self, rows: np.ndarray) -> tuple[Kept, Callable[[np.ndarray], np.ndarray]]:
        """A gallery that holds the rows in question, and the function that gives their numbers in it."""
        return self, lambda numbers: numbers


class OnDisk:
    """The rows of a gallery in a file, read again as they are needed; zeros as for `Kept`, noted while scanning."""

    def __init__(self, distance: Distance, gallery: np.ndarray) -> None:
        self.distance, self._gallery = distance, gallery
        self._zeros: dict[int, np.ndarray] = {}

    def take(self, block: np.ndarray, rows: slice, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As for `Kept`, but only rows of zeros are noted."""
        values = values_of("gallery", block, self.distance, rows.start)
        some, squares, _, facts = points(self.distance, values, centre, queries=False)
        check_finite("gallery", np.isfinite(squares), rows.start)
        if self.distance == "cosine":
            self._zeros[rows.start] = rows.start + np.flatnonzero(squares == 0.0)
        return some, facts, squares

    @property
    def zeros(self) -> np.ndarray:
        parts = [self._zeros[first] for first in sorted(self._zeros)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    bytes = 0

    def __len__(self) -> int:
        return len(self._gallery)

    def gathered(self, rows: np.ndarray) -> tuple[Kept, Callable[[np.ndarray], np.ndarray]]:
        rows = np.unique(rows)
        values = values_of("gallery", np.asarray(self._gallery[rows]), self.distance)
        some = Kept(self.distance, values)
        some.take(values, slice(0, len(values)), np.zeros(values.shape[1]))
        return some, lambda numbers: np.searchsorted(rows, numbers)


class Settled(NamedTuple):
    """rows (q, k) int64, distances (q, k) float64: the nearest, -1 and inf behind the last. doubtful: ascending
    queries for which others could be nearer than the last. rescored: float64 distances computed for all queries."""

    rows: np.ndarray
    distances: np.ndarray
    doubtful: np.ndarray
    rescored: int


def settled(
    asked: Asked, gallery: Kept | OnDisk, exclude: np.ndarray, keys: np.ndarray, k: int, *, slack: np.ndarray, g: float,
    centre_length: float, threads: int | None = None,
) -> Settled:  # fmt: skip
    """The k nearest among the candidates of each query.

    exclude: (q, m), each line ascending. keys: (q, c) uint64 of (-score, row), ascending, EMPTY behind the last: the c
    best scores. slack, g, centre_length: see `rescore.settle`. threads: at most so many.
    """
    q = len(keys)
    rows, distances = np.empty((q, k), np.int64), np.empty((q, k))
    counts = np.empty(q, np.int64)
    zeros = gallery.zeros
    numbers: np.ndarray | None = None
    if isinstance(gallery, OnDisk):
        real = keys != EMPTY
        wanted = np.concatenate([(keys[real] & np.uint64(0xFFFFFFFF)).astype(np.int64), zeros])
        numbers = np.unique(wanted)
        known, place = gallery.gathered(wanted)
        keys = keys.copy()
        keys[real] = (keys[real] & ~np.uint64(0xFFFFFFFF)) | place(
            (keys[real] & np.uint64(0xFFFFFFFF)).astype(np.int64)
        ).astype(np.uint64)
        hidden = np.isin(exclude, numbers)
        local = np.sort(np.where(hidden, place(exclude), -1), axis=1)
        zeros = place(zeros)
    else:
        known, local = gallery, exclude
    settle, _ = compiled(asked.values.dtype.name, known.values.dtype.name)

    of_gallery = known.values, known.squares, known.factors, zeros

    def part(begin: int, end: int) -> None:
        some = slice(begin, end)
        settle(
            *(KINDS[known.distance], *asked.part(some), *of_gallery),
            *(local[some], keys[some], slack[some], g, centre_length, k),
            *(rows[some], distances[some], counts[some]),
        )

    work = q * keys.shape[1] * known.values.shape[1]
    threads = max(1, min(threads or numba.get_num_threads(), work // _WORK_PER_THREAD, q))
    if threads == 1:  # without slices and tasks: for one query they cost as much as its distances
        settle(
            *(KINDS[known.distance], *asked, *of_gallery, local, keys, slack, g, centre_length, k),
            *(rows, distances, counts),
        )
    else:
        bounds = [q * share // threads for share in range(threads + 1)]
        on_threads([functools.partial(part, *stretch) for stretch in pairwise(bounds)])
    if numbers is not None and len(numbers):
        rows = np.where(rows >= 0, numbers[rows], -1)
    return concluded(asked, gallery, exclude, rows, distances, counts, keys.shape[1] < len(gallery))


def concluded(
    asked: Asked, gallery: Kept | OnDisk, exclude: np.ndarray, rows: np.ndarray, distances: np.ndarray,
    counts: np.ndarray, others: bool,
) -> Settled:  # fmt: skip
    """What `rescore.settle` found: rows, distances and counts are its results. others: whether there are rows that were
    no candidates. Queries that no row is nearer to than another get the first rows."""
    computed = counts.tolist()  # for one query, lists are quicker than arrays
    if 0 in computed:
        alike(asked, gallery, exclude, rows, distances)
    doubtful = np.flatnonzero(counts < 0) if others and min(computed, default=0) < 0 else _NONE
    return Settled(rows, distances, doubtful, sum(-count - 1 if count < 0 else count for count in computed))


def directionless(asked: Asked, distance: Distance) -> np.ndarray:
    """Queries to which every row is at the same distance: all zeros, under cosine (at 1) and inner product (at 0)."""
    if distance == "euclidean":
        return np.empty(0, np.int64)
    return np.flatnonzero(asked.squares == 0.0)


def alike(asked: Asked, gallery: Kept | OnDisk, exclude: np.ndarray, rows: np.ndarray, distances: np.ndarray) -> None:
    """Give queries without a direction the first rows that they may find."""
    k = rows.shape[1]
    for query in directionless(asked, gallery.distance):
        first = np.setdiff1d(np.arange(min(len(gallery), k + exclude.shape[1])), exclude[query])[:k]
        rows[query], distances[query] = -1, np.inf
        rows[query, : len(first)] = first
        distances[query, : len(first)] = 1.0 if gallery.distance == "cosine" else 0.0


def distances_of(
    asked: Asked, gallery: Kept | OnDisk, owners: np.ndarray, rows: np.ndarray, threads: int | None = None
) -> np.ndarray:
    """(n,) float64 distances of queries `owners` to gallery rows `rows`, (n,) int64 each; threads: at most so many."""
    known, place = gallery.gathered(rows)
    rows = np.ascontiguousarray(place(rows), np.int64)
    out = np.empty(len(rows))
    _, of_pairs = compiled(asked.values.dtype.name, known.values.dtype.name)

    def part(begin: int, end: int) -> None:
        some = slice(begin, end)
        of_pairs(
            *(KINDS[known.distance], *asked[:3], known.values, known.squares, known.factors),
            *(owners[some], rows[some], out[some]),
        )

    threads = max(1, min(threads or numba.get_num_threads(), len(rows) * known.values.shape[1] // _WORK_PER_THREAD))
    bounds = [len(rows) * share // threads for share in range(threads + 1)]
    on_threads([functools.partial(part, *stretch) for stretch in pairwise(bounds)])
    return out


def best_of_each(
    owners: np.ndarray, rows: np.ndarray, distances: np.ndarray, q: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each of q queries among pairs in any order -> (q, k) rows and float64 distances."""
    order = np.lexsort((rows, distances, owners))
    owners, rows, distances = owners[order], rows[order], distances[order]
    rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
    near, who = np.full((q, k), np.inf), np.full((q, k), -1, np.int64)
    kept = rank < k
    who[owners[kept], rank[kept]], near[owners[kept], rank[kept]] = rows[kept], distances[kept]
    return who, near
