"""The features of a split in one array that is filled row by row, so that they are held once; a large one on disk."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence

import numpy as np

log = logging.getLogger("retrieval_bench")

MOST_IN_MEMORY = 512 << 20
"""Bytes of an array in memory. A larger one is a file without a name, of which the system keeps in memory what fits."""


class FilledRows:
    """(n, ...) features that come in any order.

    Args:
        n: rows; the first that is put says what a row is.
        most_in_memory: bytes of an array that is held in memory.
    """

    def __init__(self, n: int, most_in_memory: int = MOST_IN_MEMORY) -> None:
        self._n, self._most = n, most_in_memory
        self._rows: np.ndarray | None = None
        self._known = np.zeros(n, bool)
        self.count = 0

    def has(self, row: int) -> bool:
        """Whether a row was put."""
        return bool(self._known[row])

    def put(self, row: int, vector: np.ndarray) -> None:
        """Put a row in its place. ValueError where it is of another shape or dtype than the first."""
        if self._rows is None:
            self._rows = self._room(vector)
        if vector.shape != self._rows.shape[1:] or vector.dtype != self._rows.dtype:
            shapes = sorted({str(vector.shape), str(self._rows.shape[1:])})
            kinds = sorted({str(vector.dtype), str(self._rows.dtype)})
            raise ValueError(f"features of different shapes or kinds: {', '.join([*shapes, *kinds])}")
        self._rows[row] = vector
        self.count += not self._known[row]
        self._known[row] = True

    def repeat(self, of: Sequence[int]) -> None:
        """Give every row that was not put the features of another: row i those of row of[i]."""
        assert self._rows is not None
        for row in np.flatnonzero(~self._known).tolist():
            self._rows[row] = self._rows[of[row]]
        self._known[:] = True

    def whole(self) -> np.ndarray:
        """(n, ...), every row of which was put; it can no longer be written to. ValueError where a row is missing."""
        if self._rows is None or not self._known.all():
            raise ValueError(f"{int((~self._known).sum())} of {self._n} rows were not described")
        self._rows.flags.writeable = False
        return self._rows

    def _room(self, vector: np.ndarray) -> np.ndarray:
        shape = self._n, *vector.shape
        total = self._n * vector.nbytes
        if total > self._most and not vector.dtype.hasobject and hasattr(os, "posix_fallocate"):
            try:
                with tempfile.TemporaryFile(prefix="retrieval_bench-features-") as file:
                    os.posix_fallocate(file.fileno(), 0, total)  # else a full disk would end the process later on
                    return np.asarray(np.memmap(file, vector.dtype, "r+", shape=shape))
            except OSError as error:
                log.debug("features are kept in memory: no file for them (%s)", error)
        return np.empty(shape, vector.dtype)
