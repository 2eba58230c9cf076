"""Features as a classifier likes them: of length 1, centred, of one scale, on as few axes as hold everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from retrieval_bench.linalg.blocked import blocks
from retrieval_bench.linalg.rows import signs, unit_rows_of_any_size

_EPS = float(np.finfo(np.float32).eps)


def unit(features: np.ndarray, bits: bool) -> np.ndarray:
    """(n, d) float32, or (n, bytes) packed uint8 read as -1 and +1 -> (n, d) float32 rows of length 1; 0 stays 0."""
    n, width = features.shape
    rows = np.empty((n, width * 8 if bits else width), np.float32)
    for some in blocks(n):
        if bits:
            rows[some] = signs(features[some]) / np.float32(np.sqrt(8 * width))
        else:
            rows[some] = unit_rows_of_any_size(features[some])
    return rows


@dataclass(frozen=True, eq=False)
class Scale:
    """Moves the mean of train to 0 and the mean squared length of its rows to 1, all axes alike: a strength then means
    the same for every feature. Rows that are all equal become 0.

    mean: (d,) float32. length: what the centred rows are divided by.
    """

    mean: np.ndarray
    length: float

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        squares = sum(float(np.square(rows[some] - mean).sum(dtype=np.float64)) for some in blocks(len(rows)))
        length = float(np.sqrt(squares / len(rows)))
        # What is left of equal rows after rounding is no spread.
        return cls(mean, length if length > 8 * _EPS else np.inf)

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """The same array, changed in place: rows of a joined method fill a third of the memory that there is."""
        rows -= self.mean
        rows /= np.float32(self.length)
        return rows
