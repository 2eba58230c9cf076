"""The exact distances of a few rows, in the engine's own arithmetic: which of the candidates are nearest."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import types

from retrieval_bench.search import jit
from retrieval_bench.search.certified import eight_sums, rescored_distance
from retrieval_bench.search.kernels import EMPTY, array, key_of


@functools.cache
def compiled_rescore() -> Any:
    """`rescore`, compiled."""
    f32, i64 = types.float32, types.int64
    with jit.announced():
        return jit.compiled(
            rescore, types.none(i64, array(f32, 2), array(f32, 2), array(i64, 2), array(types.uint64, 2))
        )


def rescore(kind: int, queries: np.ndarray, rows: np.ndarray, at: np.ndarray, keys: np.ndarray) -> None:
    """Fill keys (q, m) uint64 with (distance, row) of the gallery rows at (q, m) int64; EMPTY where `at` is -1.

    queries: (q, d), rows: (n, d) float32, prepared as the engine prepares them.
    """
    some = np.zeros(8, np.int64)
    for query in range(len(queries)):
        keys[query] = EMPTY
        place = 0
        while place < at.shape[1]:
            count = 0
            first = place
            while place < at.shape[1] and place - first < 8:
                some[place - first] = max(at[query, place], 0)
                count += int(at[query, place] >= 0)
                place += 1
            if count == 0:
                continue
            for lane in range(place - first, 8):
                some[lane] = some[0]
            for lane, value in enumerate(eight_sums(kind, queries[query], rows, some)):
                if lane < place - first and at[query, first + lane] >= 0:
                    keys[query, first + lane] = key_of(rescored_distance(kind, value), at[query, first + lane])
