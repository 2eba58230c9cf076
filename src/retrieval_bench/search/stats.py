"""What a search did: how many candidates needed a float64 distance, and how many queries a second look."""

from __future__ import annotations

import threading
from typing import NamedTuple


class ScanStats(NamedTuple):
    """What one search did.

    Attributes:
        queries: how many there were.
        rows: gallery rows that each was compared with.
        rescored: float64 distances computed for all queries together; none for hamming, whose scan is exact.
        doubtful: queries that the first scan could not settle. Of a scan in float32, they looked once more for all rows
            no farther than what they had found; of a scan of int8 codes, they were scanned again in float32.
    """

    queries: int = 0
    rows: int = 0
    rescored: int = 0
    doubtful: int = 0

    @property
    def share(self) -> float:
        """Float64 distances computed, of all pairs of a query and a row."""
        return self.rescored / (self.queries * self.rows) if self.queries * self.rows else 0.0


class LastSearch(threading.local):
    """The figures of the last search, as each thread made it: others that search the same index do not mix in."""

    figures: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __reduce__(self) -> tuple[type[LastSearch], tuple[()]]:
        return LastSearch, ()  # a copy of an index has not searched yet

    @property
    def stats(self) -> ScanStats:
        return ScanStats(*self.figures)
