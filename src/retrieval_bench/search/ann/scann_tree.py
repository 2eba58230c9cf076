"""`scann`: lists around centroids, of codes of four bits for each two columns, ranked again by float vectors.

Guo et al., Accelerating large-scale inference with anisotropic vector quantization, ICML 2020: under cosine and the
inner product, codes are chosen so that errors along a row, which change products most, are small. Its wheels are for
Linux; TensorFlow is not needed.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import numpy as np

from retrieval_bench.core import BenchError, Distance, Searcher
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.ann.found_rows import ApproximateIndex, threads_allowed
from retrieval_bench.search.ann.given_options import missing, refuses_the_meaningless

AT_SEARCH = ("probes", "refine")
FEW = 64
"""A gallery of no more rows is compared whole."""
TRAIN_PER_LIST = 64
TRAIN_CODES = 65_536
COLUMNS_OF_A_CODE = 2
ALONG = 0.2
"""The anisotropic threshold of ScaNN's own examples."""


class ScannIndex(ApproximateIndex):
    """A gallery in an index of ScaNN. Options as those of `scann`, all of them given."""

    def __init__(self, gallery: np.ndarray, distance: Distance, options: Mapping[str, int]) -> None:
        self._options = options
        try:
            self._scann: Any = importlib.import_module("scann.scann_ops.py.scann_ops_pybind")
        except ImportError:
            raise missing("scann", "scann", "scann") from None
        super().__init__("scann", gallery, distance, {name: options[name] for name in AT_SEARCH})

    def _builder(self) -> Any:
        return scann

    def _check(self, gallery: np.ndarray) -> None:
        if self.distance == "hamming":
            raise BenchError("scann has no form for bits; for hamming take faiss:hnsw, faiss:ivf, usearch or exact")
        if 0 < len(gallery) < self._options["lists"]:
            raise BenchError(
                f"scann: lists={self._options['lists']} is more than the gallery's {len(gallery)} rows; give at most "
                f"{len(gallery)}, or 0 for a number that suits it"
            )

    def _fill(self, gallery: np.ndarray) -> None:
        self._lock = threading.Lock()
        self._shared["threads"] = 0
        self._lists = self._options["lists"] or max(1, round(math.sqrt(self._n)))
        self._searcher: Any = None
        if not self._n:
            return
        rows = np.empty((self._n, self.dim), np.float32)
        first = 0
        for block in self._blocks(gallery):
            rows[first : first + len(block)] = block
            first += len(block)
        squared = self.distance == "euclidean"
        building = self._scann.builder(rows, 1, "squared_l2" if squared else "dot_product")
        most = threads_allowed()
        building = building.set_n_training_threads(min(most, self._options["build_threads"] or most))
        self._whole = self._n <= FEW
        if self._whole:
            self._searcher = building.score_brute_force().build()
            return
        building = building.tree(
            num_leaves=self._lists,
            num_leaves_to_search=1,  # each search says how many
            training_sample_size=min(self._n, max(TRAIN_PER_LIST * self._lists, TRAIN_CODES)),
        )
        building = building.score_ah(
            COLUMNS_OF_A_CODE, anisotropic_quantization_threshold=math.nan if squared else ALONG
        )
        self._searcher = building.reorder(1).build()

    def _count_bytes(self) -> int:
        """Float rows, codes of four bits, the list of each row, and centroids."""
        rows = 4 * self._n * self.dim
        if self._whole:
            return rows
        codes = self._n * -(-self.dim // (2 * COLUMNS_OF_A_CODE))
        return rows + codes + 4 * self._n + 4 * self._lists * self.dim

    def _nearest(self, queries: np.ndarray, wanted: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        how: dict[str, int] = {"final_num_neighbors": wanted}
        if not self._whole:
            again = min(self._n, wanted * self.search_options["refine"])
            how |= {"pre_reorder_num_neighbors": again, "leaves_to_search": self.search_options["probes"]}
        if threads == 1:
            rows, values = self._searcher.search_batched(queries, **how)
        else:
            with self._lock:  # the threads are the index's own
                if self._shared["threads"] != threads:
                    self._searcher.set_num_threads(threads)
                    self._shared["threads"] = threads
                rows, values = self._searcher.search_batched_parallel(queries, **how)
        rows = np.where(np.isnan(values), -1, rows.astype(np.int64))
        if self.distance == "cosine":
            values = np.clip(np.float32(1) - values, 0, 2)
        elif self.distance == "inner_product":
            values = -values
        else:
            values = np.sqrt(np.maximum(values, 0))
        return rows, values


def _called(distance: Any, given: Mapping[str, Any]) -> str:
    return "scann"


def _allowed(distance: Any, given: Mapping[str, Any]) -> Collection[str]:
    return ("lists", "probes", "refine", "build_threads")


@BACKENDS(
    "scann",
    about="lists of short codes by ScaNN, ranked again by float vectors; approximate, for Linux",
    exact=False,
    at_search=AT_SEARCH,
)
@refuses_the_meaningless(_called, _allowed)
def scann(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    lists: Annotated[int, Range(0, 1_000_000)] = 0,
    probes: Annotated[int, Range(1, 1_000_000)] = 16,
    refine: Annotated[int, Range(1, 1000)] = 10,
    build_threads: Annotated[int, Range(0, 1024)] = 0,
) -> Searcher:
    """Build an index of ScaNN.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.
        lists: lists that the gallery is divided into; 0 for the square root of its rows.
        probes: lists that a search reads; more find more and take longer.
        refine: how many times k rows are ranked again by their float vectors.
        build_threads: threads that build it, at most; 0 for all. It takes no seed, so two indexes differ.

    Returns:
        The index.
    """
    return ScannIndex(
        gallery, distance, {"lists": lists, "probes": probes, "refine": refine, "build_threads": build_threads}
    )
