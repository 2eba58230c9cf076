"""What a vector store is to this package, and a search over one that keeps our rules.

The rules are those of `search.index`: a vector of zeros is at a cosine distance of 1 from all, excluded rows are not
found, what is missing at the end is -1 at inf.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking
from retrieval_bench.registry import BACKENDS
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
    room_for,
)

Attributes = Mapping[str, np.ndarray]
"""Name -> (n,) int64: what is known of each row, to filter by."""
Where = Mapping[str, tuple[int, int]]
"""Name -> (least, most), both taken in: which rows may be found. All of several must hold."""


class Nearby(NamedTuple):
    """The k nearest rows of each query, nearest first.

    Attributes:
        ids: (q, k) int64, padded with -1.
        distances: (q, k) float32, padded with inf.
    """

    ids: np.ndarray
    distances: np.ndarray


class Store(Protocol):
    """Rows that are kept by a database: each has an id, a vector and attributes."""

    def insert(self, ids: np.ndarray, vectors: np.ndarray, attributes: Attributes | None = None) -> None:
        """Add rows; when this returns, they survive the end of the store's process.

        Args:
            ids: (n,) int64, none of them there yet.
            vectors: (n, d) float32, or (n, bytes) uint8 codes.
            attributes: of each row, under the names that the store was made with.

        Raises:
            BenchError: The vectors have another length than those of the store, or the store cannot take them.
        """

    def build_index(self) -> float:
        """Make the index that the store was asked for, of the rows that are there -> seconds."""

    def delete(self, ids: np.ndarray) -> None:
        """Remove rows; those that are not there are no error."""

    def as_stored(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors as they come back from the store: float32 in the store's precision and scale, or codes."""

    def ids(self, where: Where | None = None) -> np.ndarray:
        """All ids, ascending, among those that `where` allows; the name `id` in it stands for the ids themselves."""

    def vectors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of these ids that are there, ascending, and their vectors as `as_stored` returns them."""

    def compact(self) -> None:
        """Give back what deleted rows took on disk."""

    def search(self, queries: np.ndarray, k: int, where: Where | None = None) -> Nearby:
        """Find the k nearest rows of each query, among those that `where` allows."""

    def count(self, where: Where | None = None) -> int:
        """How many rows there are, among those that `where` allows, as in `ids`."""

    def disk_bytes(self) -> int:
        """Bytes that rows and index take on disk."""

    def with_search_options(self, **options: Any) -> Self:
        """The same rows, searched with other options; `close` of the first one closes both."""

    def close(self) -> None:
        """Remove what the store keeps, and let go of its server."""


def check_vectors(name: str, vectors: np.ndarray, distance: Distance, dim: int | None = None) -> np.ndarray:
    """Rows as a store takes them: (n, d) float32 in C order, or (n, bytes) uint8 codes.

    Raises:
        BenchError: NaN, inf, or a wrong shape or dtype, or another number of columns than `dim`.
    """
    rows = check_matrix(name, vectors, check_distance(distance), dim)
    if distance == "hamming":
        return np.ascontiguousarray(rows)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(rows, np.float32)
    check_finite(name, np.asarray(np.isfinite(values).all(axis=1)))
    return values


def scaled_for(distance: Distance, rows: np.ndarray, most: int = 30) -> np.ndarray:
    """Rows whose cosine a database can compute: a power of two brings values of other sizes near 1.

    Sums of squares in float32 then neither overflow nor vanish, and no angle changes.

    Args:
        distance: others than cosine leave all rows as they are.
        rows: (n, d) float32.
        most: rows stay as they are where the largest value of each lies within 2 ** -most and 2 ** most.

    Returns:
        (n, d) float32.
    """
    if distance != "cosine" or not len(rows):
        return rows
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    far = (largest >= 2.0**most) | (largest <= 2.0**-most)
    if not far.any():
        return rows
    _, exponents = np.frexp(largest)
    return np.ldexp(rows, np.where(far, -exponents, 0)[:, None])


def lowest_first(found: Nearby) -> Nearby:
    """The same neighbours by (distance, id); what is no distance goes to the end."""
    if found.ids.shape[1] > 1 and (found.distances[:, 1:] > found.distances[:, :-1]).all():
        return found  # as they nearly always are: nothing is missing, no two are equal
    missing = (found.ids < 0) | np.isnan(found.distances)
    distances = np.where(missing, np.float32(np.inf), found.distances)
    ids = np.where(missing, -1, found.ids)
    order = np.lexsort((ids, distances, missing), axis=1)
    return Nearby(np.take_along_axis(ids, order, axis=1), np.take_along_axis(distances, order, axis=1))


def largest_norm(rows: np.ndarray) -> float:
    """The length of the longest row; 0 where there is none."""
    return float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)).max(initial=0.0))


class ZeroRows:
    """The rows that have no direction: no database compares them by cosine, and here all are at a distance of 1."""

    def __init__(self, distance: Distance) -> None:
        self._counts = distance == "cosine"
        self._rows: dict[int, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def are_zero(self, vectors: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these have no direction."""
        if not self._counts:
            return np.zeros(len(vectors), bool)
        return np.logical_not(vectors.any(axis=1))

    def add(self, ids: np.ndarray, vectors: np.ndarray, attributes: Attributes) -> None:
        for row in np.flatnonzero(self.are_zero(vectors)).tolist():
            self._rows[int(ids[row])] = {name: int(column[row]) for name, column in attributes.items()}

    def remove(self, ids: np.ndarray) -> None:
        if self._rows:
            for row in ids.tolist():
                self._rows.pop(row, None)

    def merge_into(self, found: Nearby, where: Where | None) -> None:
        """Put those that may be found where a distance of 1 belongs, by id among equals, and nowhere else."""
        wrong = np.isin(found.ids, list(self._rows))  # where vectors are quantised, zero may have a direction
        if wrong.any():
            kept = lowest_first(Nearby(np.where(wrong, -1, found.ids), np.where(wrong, np.inf, found.distances)))
            found.ids[:], found.distances[:] = kept
        allowed = [row for row, known in self._rows.items() if _allows(where, known)]
        if not allowed or not found.ids.size:
            return
        extra = np.tile(np.array(allowed, np.int64), (len(found.ids), 1))
        ids = np.concatenate([found.ids, extra], axis=1)
        distances = np.concatenate([found.distances, np.ones_like(extra, np.float32)], axis=1)
        order = np.lexsort((ids, distances), axis=1)[:, : found.ids.shape[1]]
        found.ids[:] = np.take_along_axis(ids, order, axis=1)
        found.distances[:] = np.take_along_axis(distances, order, axis=1)


def _allows(where: Where | None, known: Mapping[str, int]) -> bool:
    return all(least <= known[name] <= most for name, (least, most) in (where or {}).items())


class StoreSearcher:
    """A `Searcher` (see `core`) over a gallery that a store keeps. It closes the store when it goes.

    Args:
        store: holds the gallery; ids are rows of it.
        gallery: (n, d), as `check_vectors` returns it; it is only looked at.
        distance: as the store computes it.
        approximate: a nearest row may be missed.
        build_seconds: how long it took to insert the gallery and to make the index.

    Attributes:
        bytes: what rows and index take on disk.
        truncated: a ranking may end before the gallery does.
    """

    def __init__(
        self, store: Store, gallery: np.ndarray, distance: Distance, *, approximate: bool, build_seconds: float
    ) -> None:
        self.store = store
        self.distance = distance
        self.dim = gallery.shape[1]
        self.approximate = self.truncated = approximate
        self.build_seconds = build_seconds
        self.bytes = store.disk_bytes()
        self._n = len(gallery)
        self._longest = largest_norm(gallery) if distance in ("euclidean", "inner_product") else 0.0
        self._owner: StoreSearcher | None = None  # kept alive: it closes the store
        self._end = weakref.finalize(self, store.close)

    def __len__(self) -> int:
        return self._n

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """Find the k nearest gallery rows of each query; arguments, result and errors as for `ExactIndex.search`."""
        values = check_vectors("queries", queries, self.distance, self.dim)
        if self._longest:
            check_range(self.distance, largest_norm(values), self._longest)
        k = check_k(k)
        hidden = check_exclude(exclude, len(values), self._n)
        ranking = room_for(len(values), k, self._n)
        asked = min(k + hidden.shape[1], self._n)
        if not asked or not len(values):
            return ranking
        found = self.store.search(values, asked)
        ids, distances = found
        if hidden.shape[1]:
            keep = (ids >= 0) & ~(ids[:, :, None] == hidden[:, None, :]).any(axis=2)
            order = np.argsort(~keep, axis=1, kind="stable")  # what is kept comes first, in its order
            ids = np.take_along_axis(np.where(keep, ids, -1), order, axis=1)
            distances = np.take_along_axis(np.where(keep, distances, np.inf), order, axis=1)
        width = min(k, asked)
        ranking.indices[:, :width], ranking.distances[:, :width] = ids[:, :width], distances[:, :width]
        return ranking

    def with_search_options(self, **options: Any) -> StoreSearcher:
        """The same stored rows, searched with other options (those in the entry's fact `at_search`)."""
        other = object.__new__(StoreSearcher)
        other.__dict__.update(self.__dict__)
        other.store = self.store.with_search_options(**options)
        other._owner = self
        return other

    def close(self) -> None:
        """Remove the gallery from the store; a server that nobody else needs is stopped."""
        if self._owner is None:
            self._end()


def build_searcher(
    gallery: np.ndarray, distance: Distance, opened: Callable[[int], Store], *, approximate: bool
) -> StoreSearcher:
    """Put a gallery into a new store.

    Args:
        gallery: as a backend gets it.
        distance: as a backend gets it.
        opened: makes the store for vectors of so many columns.
        approximate: as for `StoreSearcher`.

    Returns:
        The search over it.

    Raises:
        BenchError: The gallery cannot be searched, or the store cannot be opened or take it; nothing stays behind.
    """
    rows = check_vectors("gallery", gallery, distance)
    check_range(distance, 0.0 if distance == "cosine" else largest_norm(rows), 0.0 if distance == "cosine" else 1.0)
    store = opened(rows.shape[1])
    with contextlib.ExitStack() as undo:
        undo.callback(store.close)
        started = time.perf_counter()
        if len(rows):
            store.insert(np.arange(len(rows)), rows)
        store.build_index()
        seconds = time.perf_counter() - started
        searcher = StoreSearcher(store, rows, distance, approximate=approximate, build_seconds=seconds)
        undo.pop_all()
    return searcher


def check_columns(vectors: np.ndarray, dim: int) -> None:
    """BenchError where the length of vectors has changed since the store was made."""
    if vectors.shape[1] != dim:
        raise BenchError(
            f"the vectors have {vectors.shape[1]} columns but the store was made for {dim}; make a new store for them, "
            "or describe them with the method of the others"
        )


def check_meaning(owner: str, called: str, options: Any, means: Collection[str]) -> None:
    """BenchError where an option that says nothing to this kind of index has another value than its default.

    Args:
        owner: the backend.
        called: how its kind is written.
        options: has the options as attributes.
        means: those that say something.
    """
    for name, parameter in BACKENDS[owner].options.items():
        if hasattr(options, name) and name not in means and getattr(options, name) != parameter.default:
            others = ", ".join(one for one in means if one != "kind") or "no options"
            raise BenchError(f"{called} has no use for {name}; it takes {others}")


def check_search_options(owner: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """BenchError where an option cannot be changed without storing anew."""
    for name in options:
        if name not in known:
            raise BenchError(f"{owner}: {name} cannot change at search; what can is {', '.join(known)}")
