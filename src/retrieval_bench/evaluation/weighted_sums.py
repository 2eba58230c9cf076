"""Weighted sums of rows: the inner loop of every resample and of every pattern of signs.

Numba and one order of addition, where a matrix product by BLAS would do: that sums in an order of the processor's
own, so that the last digits of an interval would tell on which machine it was computed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def weighted_sums(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(b, n) whole weights, (n, m) rows -> (b, m) float64, what `weights @ rows` is.

    Rows are added in ascending order: the same bits on every processor.
    """
    out = np.zeros((len(weights), rows.shape[1]))
    _compiled()(np.ascontiguousarray(weights, np.int64), np.ascontiguousarray(rows, np.float64), out)
    return out


@functools.cache
def _compiled() -> Any:
    from numba import types

    from retrieval_bench.search import jit

    def array(of: Any) -> Any:
        return types.Array(of, 2, "C")

    return jit.compiled(_add, types.none(array(types.int64), array(types.float64), array(types.float64)))


def _add(weights: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    for one in range(weights.shape[0]):
        for row in range(rows.shape[0]):
            weight = weights[one, row]
            if weight != 0:
                for column in range(rows.shape[1]):
                    out[one, column] += weight * rows[row, column]
