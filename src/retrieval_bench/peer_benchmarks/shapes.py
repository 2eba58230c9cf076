"""What is searched: queries x gallery rows x dimensions, and k."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.data import Data, drawn


@dataclass(frozen=True)
class Shape:
    """One search. bits: packed codes under the Hamming distance; `dim` then counts bits, a multiple of 8."""

    queries: int
    rows: int
    dim: int
    k: int = 10
    bits: bool = False

    @property
    def name(self) -> str:
        return f"{'hamming ' if self.bits else ''}{self.queries} x {self.rows:,} x {self.dim}"

    @property
    def key(self) -> str:
        """The name without blanks and commas, for a command line: hamming-1x1000000x64-k10."""
        return f"{'hamming-' if self.bits else ''}{self.queries}x{self.rows}x{self.dim}-k{self.k}"

    @property
    def flops(self) -> int:
        """A multiplication and an addition per query, row and dimension; none for codes."""
        return 0 if self.bits else 2 * self.queries * self.rows * self.dim

    @property
    def gallery_bytes(self) -> int:
        """What must be read at least once: float32 vectors or packed codes, without any padding."""
        return self.rows * self.dim // 8 if self.bits else 4 * self.rows * self.dim

    def data(self, seed: int = 0, kind: Data = "gauss") -> tuple[np.ndarray, np.ndarray]:
        """Queries and gallery: (q, d) and (n, d) float32 rows of length 1, or (.., dim // 8) uint8 codes."""
        return drawn(kind, np.random.default_rng(seed), self.queries, self.rows, self.dim, self.bits)

    def shrunk(self) -> Shape:
        """The same kind of search, small enough to try the programme out; its times say nothing about the kernel."""
        return replace(self, queries=-(-self.queries // 25), rows=-(-self.rows // 100), dim=min(self.dim, 256))


# The shapes that the first proof was measured on: their batches carry the targets.
SINGLES = (Shape(1, 100_000, 512), Shape(1, 20_000, 2048))
BATCHES = (
    Shape(16, 100_000, 512),
    Shape(256, 100_000, 128),
    Shape(1000, 50_000, 512),
    Shape(1000, 20_000, 2048),
    Shape(2485, 2_640, 512),
    Shape(1000, 100_000, 64, k=100),
)
LARGE = (Shape(1, 1_000_000, 128), Shape(64, 1_000_000, 128), Shape(100, 50_000, 768))
CODES = tuple(Shape(queries, 1_000_000, bits, bits=True) for bits in (64, 256) for queries in (1, 1000))
ALL = SINGLES + BATCHES + LARGE + CODES

MEMORY = Shape(1000, 1_000_000, 128)  # where the memory above gallery and index is measured


def chosen(only: str | None, quick: bool = False) -> list[Shape]:
    """All shapes, or those whose key matches one of the comma-separated patterns: "1x*", "hamming*", "*x512-*"."""
    wanted = [word.strip() for word in (only or "*").split(",") if word.strip()]
    found = [shape for shape in ALL if any(fnmatchcase(shape.key, word) for word in wanted)]
    if not found:
        raise BenchError(f"no shape matches {only!r}; known are {', '.join(shape.key for shape in ALL)}")
    return [shape.shrunk() for shape in found] if quick else found


def by_gallery_size(queries: int, dim: int = 128, smallest: int = 1_000, largest: int = 1_000_000) -> list[Shape]:
    """Two shapes for every factor of ten, for the plot of time against gallery size."""
    steps = round(2 * np.log10(largest / smallest))
    return [Shape(queries, round(smallest * 10 ** (step / 2)), dim) for step in range(steps + 1)]
