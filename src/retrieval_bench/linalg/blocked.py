"""Products of large matrices block by block on several threads: the rounding does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_BLOCK = 512  # rows taken at once; fixed, so that the rounding does not depend on the number of threads
_NOISE = 1e-6  # what rounding to float32 leaves in the inner products of rows, against the largest spread
_RIDGE = 1e-5


def gram(rows: np.ndarray, threads: int) -> np.ndarray:
    """(n, d) float32 -> (n, n) float64 inner products, symmetric, each pair computed once."""
    n = len(rows)
    products = np.empty((n, n), np.float64)

    def fill(some: slice) -> None:
        products[some, : some.stop] = rows[some] @ rows[: some.stop].T
        square = products[some, some]
        products[some, some] = np.tril(square) + np.tril(square, -1).T
        products[: some.start, some] = products[some, : some.start].T

    # The last rows have the most to multiply with: they go first.
    _share(fill, blocks(n)[::-1], threads)
    return products


def corner(inner: np.ndarray) -> np.ndarray:
    """(n, n) inner products -> (n, n) float64 lower triangle whose rows have these products.

    The rows, turned: a turn changes neither a product nor a length, so a linear classifier with a penalty on its length
    learns the same from n numbers a row as from d, up to rounding. A little is added to the diagonal, as centred rows
    and duplicates leave it singular.
    """
    ridge = _RIDGE
    while True:
        try:
            return np.linalg.cholesky(inner + ridge * np.eye(len(inner)))
        except np.linalg.LinAlgError:
            ridge *= 10


def mixed(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(C, n) float64 times (n, d) float32 -> (C, d) float64, without a float64 copy of all rows."""
    out = np.empty((len(weights), rows.shape[1]), np.float64)
    for some in blocks(rows.shape[1]):
        out[:, some] = weights @ rows[:, some].astype(np.float64)
    return out


def blocked_principal_axes(rows: np.ndarray, threads: int, at_most: int) -> np.ndarray:
    """(n, d) centred -> (d, k) float32 orthonormal columns, in descending order of the spread of the rows along them.

    k: at_most, or less where the rows spread along fewer. Rows that are all 0 give one column of 0.
    """
    n, d = rows.shape
    spread, vectors = np.linalg.eigh(gram(rows, threads) if n < d else gram(np.ascontiguousarray(rows.T), threads))
    spread, vectors = spread[::-1], vectors[:, ::-1]
    keep = min(at_most, max(1, int((spread > spread[0] * _NOISE).sum())))
    if n >= d:
        return np.ascontiguousarray(vectors[:, :keep] if spread[0] > 0 else np.zeros((d, 1)), np.float32)
    deviations = np.sqrt(np.where(spread[:keep] > 0, spread[:keep], np.inf))
    mixture = np.ascontiguousarray(vectors[:, :keep] / deviations, np.float32)
    basis = np.empty((d, keep), np.float32)

    def fill(some: slice) -> None:
        basis[some] = rows[:, some].T @ mixture

    _share(fill, blocks(d), threads)
    return basis


def blocked_projection(rows: np.ndarray, basis: np.ndarray, threads: int) -> np.ndarray:
    """(n, d) @ (d, k) -> (n, k) float32."""
    points = np.empty((len(rows), basis.shape[1]), np.float32)

    def fill(some: slice) -> None:
        points[some] = rows[some] @ basis

    _share(fill, blocks(len(rows)), threads)
    return points


def blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def _share(fill: Callable[[slice], None], pieces: list[slice], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, pieces))
