"""What approximate indexes share: rows as they compare them, and what they found as a ranking in our distances.

An index of another library compares float32 rows, for cosine of length 1. What it finds is put in the order of
(distance, row), rows that are excluded are taken out, and what is missing is padded: it may know less of a query's
neighbours than there are, so a ranking may end before the gallery does.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

import numpy as np

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.search.ann.given_options import checked
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_range,
    room_for,
)
from retrieval_bench.system.progress import Count

ROWS_AT_ONCE = 16_384
"""Gallery rows that are converted and handed over at a time: the only copy beside the index itself."""
QUERIES_AT_ONCE = 8_192


_progress: ContextVar[Count | None] = ContextVar("progress of building", default=None)


@contextlib.contextmanager
def building_shown(progress: Count) -> Iterator[None]:
    """Tell how far an index has come while it is built within this block.

    Args:
        progress: called with the rows that it holds, and with all.
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


class ComparedRows(NamedTuple):
    """rows: (n, d) float32 in C order, as an index compares them; (n, bytes) uint8 for hamming. longest: of them."""

    rows: np.ndarray
    longest: float


def vectors_of(name: str, block: np.ndarray, distance: Distance, first: int = 0) -> ComparedRows:
    """Convert rows; those of length 0 stay so, and have a product of 0 with everything.

    Args:
        name: "gallery" or "queries", for the error sentence.
        block: (n, d) rows that `check_matrix` has let through.
        distance: by which they are compared.
        first: the number of the first of them.

    Returns:
        The rows, and the greatest length among them.

    Raises:
        BenchError: A value is NaN, inf or more than float32 can hold.
    """
    if distance == "hamming":
        return ComparedRows(np.ascontiguousarray(block), 0.0)
    from retrieval_bench.search.points import values_of

    values = values_of(name, block, distance, first)
    wide = values.astype(np.float64, copy=False)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    check_finite(name, np.isfinite(lengths), first)  # no sum of squares of float32 is too large for float64
    if distance == "cosine":
        lengths[lengths == 0.0] = 1.0
        values = wide / lengths[:, None]
    return ComparedRows(np.ascontiguousarray(values, np.float32), float(lengths.max(initial=0.0)))


def threads_allowed() -> int:
    """Threads that a search or a build may use now: those of Numba, as for the exact engine."""
    import numba

    return int(numba.get_num_threads())


class ApproximateIndex(abc.ABC):
    """A gallery in an index of another library.

    Args:
        called: the backend as it is written, for error sentences.
        gallery: (n, d) as for `ExactIndex`; a memory map is read in parts. It is not kept.
        distance: "cosine", "euclidean", "inner_product" or "hamming".
        search: options that may change without building again -> their values.

    Attributes:
        dim: columns of the gallery.
        approximate: it may miss a nearest row.
        truncated: a ranking may end before the gallery does.
        build_seconds: how long the index took to build.
        search_options: those that `with_search_options` changes.

    Raises:
        BenchError: As for `ExactIndex`.
    """

    approximate = True
    truncated = True

    def __init__(self, called: str, gallery: np.ndarray, distance: Distance, search: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        self.called = called
        self.distance = check_distance(distance)
        self.search_options = dict(search)
        gallery = check_matrix("gallery", gallery, distance)
        self._n, self.dim = (int(side) for side in gallery.shape)
        self._longest = 0.0
        self._shared: dict[str, Any] = {}  # with the copies that search with other options
        self._check(gallery)
        self._fill(gallery)
        self.build_seconds = time.perf_counter() - started

    def __len__(self) -> int:
        return self._n

    @property
    def bytes(self) -> int:
        """Bytes of the index as it would lie on disk."""
        if "bytes" not in self._shared:
            self._shared["bytes"] = self._count_bytes() if self._n else 0
        return int(self._shared["bytes"])

    def with_search_options(self, **options: Any) -> Self:
        """Search the same index in another way; nothing is built again, and this one stays as it is.

        Args:
            **options: some of `search_options`, with new values.

        Returns:
            A searcher that shares the index.

        Raises:
            BenchError: The index has no such option, or the value is not allowed.
        """
        changed = checked(self._builder(), self.called, options, self.search_options)
        other = copy.copy(self)
        other.search_options = {**self.search_options, **changed}
        other._search_changes()  # noqa: SLF001
        return other

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """Find about the k nearest gallery rows of each query.

        Args:
            queries: (q, d) rows of the same kind as the gallery, or (d,).
            k: how many rows to find for each query, at least 1.
            exclude: (q,) or (q, m) gallery rows that query i must not find; -1 stands for none.

        Returns:
            The rows and the library's distances of them, nearest first; padded with -1 and inf where it found fewer.

        Raises:
            BenchError: As for `ExactIndex`.
        """
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        found = room_for(len(queries), k, self._n)
        wanted = min(self._n, k + exclude.shape[1])
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            part = slice(first, first + QUERIES_AT_ONCE)
            asked = vectors_of("queries", queries[part], self.distance, first)
            check_range(self.distance, asked.longest, self._longest)
            if not wanted:
                continue
            threads = min(threads_allowed(), len(asked.rows))
            rows, distances = self._nearest(asked.rows, wanted, threads)
            rows, distances = in_order(rows, distances, exclude[part])
            width = min(k, wanted)
            found.indices[part, :width], found.distances[part, :width] = rows[:, :width], distances[:, :width]
        return found

    def _blocks(self, gallery: np.ndarray) -> Iterator[np.ndarray]:
        """All rows, some at a time, as the index compares them; notes the longest."""
        progress = _progress.get() or (lambda done, total: None)
        for first in range(0, self._n, ROWS_AT_ONCE):
            progress(first, self._n)
            some = vectors_of("gallery", gallery[first : first + ROWS_AT_ONCE], self.distance, first)
            self._longest = max(self._longest, some.longest)
            check_range(self.distance, 0.0, self._longest)
            yield some.rows

    def _sample(self, gallery: np.ndarray, most: int, seed: int) -> np.ndarray:
        """At most so many rows, drawn from all, in the order in which they lie."""
        if self._n <= most:
            rows = np.arange(self._n)
        else:
            rows = np.sort(np.random.default_rng(seed).choice(self._n, most, replace=False))
        parts = [vectors_of("gallery", gallery[some], self.distance).rows for some in _split(rows)]
        return np.concatenate(parts)

    def _check(self, gallery: np.ndarray) -> None:  # noqa: B027
        """Raise BenchError where no index can be made of this gallery."""

    def _search_changes(self) -> None:  # noqa: B027
        """Called where `search_options` is new; raises BenchError where this index cannot be searched with it."""

    @abc.abstractmethod
    def _fill(self, gallery: np.ndarray) -> None:
        """Build the index; the gallery may be empty."""

    @abc.abstractmethod
    def _count_bytes(self) -> int: ...

    @abc.abstractmethod
    def _builder(self) -> Any:
        """The registered function, whose signature says what the options may be."""

    @abc.abstractmethod
    def _nearest(self, queries: np.ndarray, wanted: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        """(q, wanted) integers, -1 where nothing was found, and (q, wanted) distances as `core.Distance` has them.

        queries: as `vectors_of` returns them, at least one. wanted: from 1 to the number of gallery rows.
        """


def _split(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, max(1, len(rows)), ROWS_AT_ONCE):
        yield rows[first : first + ROWS_AT_ONCE]


def in_order(rows: np.ndarray, distances: np.ndarray, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order by (distance, row), with what is missing or excluded behind.

    Args:
        rows: (q, m) gallery rows; -1 where there is none.
        distances: (q, m).
        exclude: (q, e) gallery rows to leave out; -1 for none.

    Returns:
        (q, m) int64 rows and (q, m) float32 distances, padded with -1 and inf.
    """
    rows = rows.astype(np.int64, copy=False)
    distances = distances.astype(np.float32, copy=False)
    if not exclude.shape[1] and rows.min() >= 0 and (distances[:, 1:] > distances[:, :-1]).all():
        return rows, distances
    none = rows < 0
    for column in exclude.T:
        none |= rows == column[:, None]
    rows, distances = np.where(none, -1, rows), np.where(none, np.float32(np.inf), distances)
    order = np.lexsort((rows, distances), axis=-1)
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)
