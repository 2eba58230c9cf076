"""`usearch`: a graph of neighbours in layers (HNSW) by USearch, of vectors in 32, 16 or 8 bits a column, or of bits.

Malkov and Yashunin, PAMI 2020; https://github.com/unum-cloud/usearch.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import numpy as np

from retrieval_bench.core import BenchError, Distance, Searcher
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.ann.found_rows import ApproximateIndex, threads_allowed
from retrieval_bench.search.ann.given_options import missing, refuses_the_meaningless

Dtype = Literal["auto", "f32", "f16", "i8", "b1"]

AT_SEARCH = ("ef",)
LARGEST_HALF = 65_504.0
"""Of all values that 16 bits hold."""
FIRST_ALONE = 1_000
"""Rows that one thread links before several go on. Several that begin an empty graph at once lose links: of 500 and
2,000 rows, up to 1.5 % of the nearest were then not found, however wide the search."""


class UsearchIndex(ApproximateIndex):
    """A gallery in a graph of USearch. Options as those of `usearch`, all of them given."""

    def __init__(self, gallery: np.ndarray, distance: Distance, dtype: Dtype, options: Mapping[str, int]) -> None:
        self._options = options
        try:
            self._usearch: Any = importlib.import_module("usearch.index")
        except ImportError:
            raise missing("usearch", "usearch") from None
        self.dtype = ("b1" if distance == "hamming" else "f32") if dtype == "auto" else dtype
        super().__init__("usearch", gallery, distance, {"ef": options["ef"]})

    def _builder(self) -> Any:
        return usearch

    def _check(self, gallery: np.ndarray) -> None:
        if (self.dtype == "b1") != (self.distance == "hamming"):
            takes = "dtype=b1" if self.distance == "hamming" else "dtype=f32, f16 or i8"
            raise BenchError(f"usearch: dtype={self.dtype} does not go with {self.distance}; it takes {takes}")
        if self.dtype == "i8" and self.distance != "cosine":
            raise BenchError(
                f"usearch: dtype=i8 keeps directions alone, which is not enough for {self.distance}; take f32 or f16, "
                "or cosine"
            )

    def _fill(self, gallery: np.ndarray) -> None:
        # Unit rows have a product of their cosine; codes in 8 bits have lengths of their own.
        names = {"euclidean": "l2sq", "hamming": "hamming", "cosine": "cos" if self.dtype == "i8" else "ip"}
        self._graph = self._usearch.Index(
            ndim=8 * self.dim if self.distance == "hamming" else self.dim,
            metric=names.get(self.distance, "ip"),
            dtype=self.dtype,
            connectivity=self._options["m"],
            expansion_add=self._options["build_ef"],
            expansion_search=self._options["ef"],
            enable_key_lookups=False,
        )
        self._lock = threading.Lock()
        most = threads_allowed()
        threads = min(most, self._options["build_threads"] or most)
        self._zeros = np.zeros(self._n, bool)
        first = 0
        for block in self._blocks(gallery):
            self._fits(block, "gallery", first)
            numbers = np.arange(first, first + len(block), dtype=np.uint64)
            if self.distance == "cosine":
                self._zeros[first : first + len(block)] = ~block.any(axis=1)
            alone = max(0, min(len(block), FIRST_ALONE - first))
            for some, by in ((slice(0, alone), 1), (slice(alone, len(block)), threads)):
                if len(block[some]):
                    self._graph.add(numbers[some], block[some], threads=by, copy=True)
            first += len(block)

    def _fits(self, rows: np.ndarray, name: str, first: int = 0) -> None:
        """Values must be such that 16 bits hold them, where that is how they are kept."""
        if self.dtype == "f16" and self.distance != "cosine":
            beyond = np.asarray(np.abs(rows).max(axis=1) > LARGEST_HALF)
            if beyond.any():
                row = int(beyond.argmax())
                raise BenchError(
                    f"usearch: {name} row {first + row} holds a value beyond {LARGEST_HALF:.0f}, the largest of "
                    "dtype=f16; take dtype=f32"
                )

    def _count_bytes(self) -> int:
        return int(self._graph.serialized_length)

    def _nearest(self, queries: np.ndarray, wanted: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        self._fits(queries, "queries")
        with self._lock:  # how much it looks at is a property of the graph, and so is the room that a search uses
            self._graph.expansion_search = self.search_options["ef"]
            matches = self._graph.search(queries, wanted, threads=threads)
        q = len(queries)
        rows = matches.keys.reshape(q, -1).astype(np.int64)
        values = matches.distances.reshape(q, -1)
        counts = np.atleast_1d(getattr(matches, "counts", rows.shape[1]))
        rows = np.where(np.arange(rows.shape[1]) < counts[:, None], rows, -1)
        if self.distance == "cosine":
            nothing = ~np.asarray(queries.any(axis=1))[:, None] | self._zeros[rows]
            values = np.where(nothing, 1, np.clip(values, 0, 2))
        elif self.distance == "inner_product":
            values = values - 1
        elif self.distance == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        return rows, values


def _called(distance: Any, given: Mapping[str, Any]) -> str:
    return "usearch"


def _allowed(distance: Any, given: Mapping[str, Any]) -> Collection[str]:
    return ("m", "build_ef", "ef", "dtype", "build_threads")


@BACKENDS(
    "usearch",
    about="a graph of neighbours by USearch, in 32, 16 or 8 bits a column, or of bits; approximate",
    exact=False,
    at_search=AT_SEARCH,
)
@refuses_the_meaningless(_called, _allowed)
def usearch(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    m: Annotated[int, Range(2, 512)] = 32,
    build_ef: Annotated[int, Range(1, 65_536)] = 200,
    ef: Annotated[int, Range(1, 1_000_000)] = 64,
    dtype: Dtype = "auto",
    build_threads: Annotated[int, Range(0, 1024)] = 0,
) -> Searcher:
    """Build a graph of USearch.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.
        m: links of a row in the graph (connectivity), twice as many in its lowest layer.
        build_ef: candidates that are kept while a row is linked (expansion_add).
        ef: candidates that a search keeps (expansion_search); more find more and take longer.
        dtype: how a column is kept: f32, f16, i8 (under cosine), or b1, a bit (under hamming). auto: f32 or b1.
        build_threads: threads that build it, at most; 0 for all. With 1, the graph is the same each time.

    Returns:
        The index.
    """
    return UsearchIndex(
        gallery, distance, dtype, {"m": m, "build_ef": build_ef, "ef": ef, "build_threads": build_threads}
    )
