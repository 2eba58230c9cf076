"""What every backend asks of its arguments: one BenchError each, naming the argument, the value and what is allowed."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np

from retrieval_bench.core import DISTANCES, BenchError, Distance, Ranking, as_array
from retrieval_bench.registry import unknown

_WHOLE = int, np.integer
_ROWS, _DISTANCES = np.dtype(np.int64), np.dtype(np.float32)  # made once: a small search makes many arrays
_LONGEST_SUM = float(np.finfo(np.float32).max) / 2


def check_distance(distance: Distance) -> Distance:
    if not isinstance(distance, str) or distance not in DISTANCES:
        raise BenchError(unknown("distance", distance, DISTANCES))
    return distance


def check_k(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, _WHOLE) or k < 1:
        raise BenchError(f"k is {k!r}; it must be a whole number, at least 1")
    return int(k)


def check_threads(threads: Any) -> int | None:
    """threads: at most so many, None for as many as `numba.get_num_threads()` says."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, _WHOLE) or threads < 1:
        raise BenchError(f"threads is {threads!r}; it must be a whole number, at least 1, or None for all")
    return int(threads)


def room_for(q: int, k: int, n: int, *, unset: int = 0) -> Ranking:
    """A result that holds nothing yet: (q, k) rows of -1 and distances of inf.

    unset: so many of the first columns may hold anything, because the search writes each of them.
    """
    try:
        if 12 * q * k > _memory():
            raise MemoryError
        ranking = Ranking(np.empty((q, k), _ROWS), np.empty((q, k), _DISTANCES))
        if unset < k:
            ranking.indices[:, unset:] = -1
            ranking.distances[:, unset:] = np.inf
        return ranking
    except (MemoryError, ValueError, OverflowError):
        raise BenchError(
            f"k is {k}: the {k:,} nearest of each of {q:,} queries do not fit into memory; the gallery has {n:,} rows, "
            "and a larger k finds no more"
        ) from None


@functools.cache
def _memory() -> float:
    """Bytes of this machine's memory; inf where the system does not say."""
    sysconf = getattr(os, "sysconf", None)  # Windows has none
    try:
        return float(sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES")) if sysconf else float("inf")
    except (ValueError, OSError):
        return float("inf")


def check_radius(radius: Any) -> np.float32:
    """The largest float32 that does not exceed the radius, as far as a distance can be as large or as small."""
    if isinstance(radius, bool) or not isinstance(radius, int | float | np.integer | np.floating) or radius != radius:
        raise BenchError(f"radius is {radius!r}; it must be a number, in the unit of the distance")
    try:
        value = float(radius)
    except OverflowError:  # a Python integer has no greatest value
        value = np.inf if radius > 0 else -np.inf
    most = float(np.finfo(np.float32).max)
    if abs(value) >= most:  # no distance is
        return np.float32(np.inf if value > 0 else -most)
    limit = np.float32(value)
    return np.nextafter(limit, np.float32(-np.inf)) if float(limit) > value else limit


def check_matrix(name: str, array: Any, distance: Distance, dim: int | None = None) -> np.ndarray:
    """The argument as a two-dimensional array of a dtype that the distance can use; values are not looked at.

    dim: of the gallery, for queries; a single one may have one dimension, and an empty list is none.
    """
    array = as_array(name, array, "all must have as many columns")
    if array.shape == (0,) and dim is not None:  # a list without a query tells no dtype
        array = np.empty((0, dim), np.uint8 if distance == "hamming" else np.float32)
    if array.ndim == 1 and dim is not None:
        array = array[None]
    if array.ndim != 2:
        hint = f"; a single row is {name}[None]" if array.ndim == 1 else ""
        raise BenchError(f"{name} has shape {array.shape}; it must have two dimensions, (rows, columns){hint}")
    if distance == "hamming" and array.dtype != np.uint8:
        raise BenchError(f"{name} is {array.dtype}; hamming takes packed uint8 codes (np.packbits of the bits, axis=1)")
    if distance != "hamming" and array.dtype.kind not in "fiu":
        raise BenchError(f"{name} is {array.dtype}; {distance} takes real numbers (float16/32/64 or integers)")
    if array.shape[1] < 1:
        raise BenchError(f"{name} has shape {array.shape}; it needs at least one column")
    if dim is not None and array.shape[1] != dim:
        raise BenchError(f"{name} has {array.shape[1]} columns but the gallery has {dim}; they must agree")
    return array


def check_finite(name: str, finite: np.ndarray, first: int = 0) -> None:
    """finite: (rows,) bool, does each row hold finite float32 values only; `first` is the row that it begins with."""
    if not finite.all():
        raise BenchError(
            f"{name} row {first + int(np.argmin(finite))} holds NaN, inf or a value that float32 cannot hold; "
            "all values must be finite"
        )


def check_range(distance: Distance, query_norm: float, gallery_norm: float) -> None:
    """The largest lengths among queries and gallery: no partial sum in float32 may overflow.

    By Cauchy-Schwarz none exceeds |q||x| for the inner product, nor (|q| + |x|)^2 for the euclidean distance.
    """
    if distance not in ("inner_product", "euclidean"):
        return
    bound = query_norm * gallery_norm if distance == "inner_product" else (query_norm + gallery_norm) ** 2
    if bound > _LONGEST_SUM:
        raise BenchError(
            f"vectors of length {max(query_norm, gallery_norm):.3g} overflow float32 under {distance}; "
            "scale queries and gallery down by the same factor, or use cosine"
        )


def check_exclude(exclude: Any, q: int, n: int) -> np.ndarray:
    """(q, m) int64, each line in ascending order; m is 0 where nothing is excluded."""
    if exclude is None:
        return _nothing(q)
    rows = as_array("exclude", exclude, "pad the short ones with -1, which stands for none")
    if not rows.size:  # an empty list tells no dtype
        rows = rows.astype(np.int64)
    if rows.dtype.kind not in "iu":
        raise BenchError(f"exclude is {rows.dtype}; it must hold gallery rows as integers, -1 for none")
    if rows.ndim not in (1, 2) or len(rows) != q:
        raise BenchError(f"exclude has shape {rows.shape}; it must be ({q},) or ({q}, m), one line for each query")
    outside = np.argwhere((rows < -1) | (rows >= n))
    if len(outside):
        place = tuple(outside[0])
        raise BenchError(
            f"exclude names row {rows[place]} for query {place[0]}; the gallery has {n} rows, counted from 0, "
            "and -1 stands for none"
        )
    ascending = np.array(rows if rows.ndim == 2 else rows[:, None], np.int64, order="C")
    ascending.sort(axis=1)
    return ascending


@functools.lru_cache(maxsize=64)
def _nothing(q: int) -> np.ndarray:
    """(q, 0) int64, which has no number that anybody could change."""
    return np.empty((q, 0), np.int64)
