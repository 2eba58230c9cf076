"""`pynndescent`: a graph of neighbours that is improved by looking at neighbours of neighbours.

Dong, Moses and Li, Efficient k-nearest neighbor graph construction for generic similarity measures, WWW 2011, as
PyNNDescent has it. It compiles itself in every process: 17 seconds or more to load, and a minute before the first index
of a distance is there. A search is the work of one thread.
"""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import numpy as np

from retrieval_bench.core import Distance, Searcher
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.ann.found_rows import ApproximateIndex, threads_allowed
from retrieval_bench.search.ann.given_options import missing, refuses_the_meaningless

SEED = 1234
AT_SEARCH = ("epsilon",)
METRICS = {"cosine": "cosine", "euclidean": "euclidean", "inner_product": "inner_product", "hamming": "bit_hamming"}
FEW = 4
"""Times the neighbours of a row: a gallery of no more rows is compared whole, since a graph of it would have all."""
_BUILDING = threading.Lock()
"""Its parallel loops stand on Numba's threads, which abort the process where two Python threads enter at once."""


class NeighbourDescentIndex(ApproximateIndex):
    """A gallery in a graph of PyNNDescent. Options as those of `pynndescent`, all of them given."""

    def __init__(self, gallery: np.ndarray, distance: Distance, neighbours: int, epsilon: float) -> None:
        self._neighbours = neighbours
        super().__init__("pynndescent", gallery, distance, {"epsilon": epsilon})

    def _builder(self) -> Any:
        return pynndescent

    def _fill(self, gallery: np.ndarray) -> None:
        if importlib.util.find_spec("pynndescent") is None:
            raise missing("pynndescent", "pynndescent")
        kind = np.uint8 if self.distance == "hamming" else np.float32
        self._rows = np.empty((self._n, self.dim), kind)
        first = 0
        for block in self._blocks(gallery):
            self._rows[first : first + len(block)] = block
            first += len(block)
        self._graph: Any = None
        if self._n <= FEW * self._neighbours:
            return
        with _BUILDING:
            self._graph = importlib.import_module("pynndescent").NNDescent(
                self._rows,
                metric=METRICS[self.distance],
                n_neighbors=self._neighbours,
                random_state=SEED,
                n_jobs=threads_allowed(),
                compressed=False,
            )
            self._graph.prepare()

    def _count_bytes(self) -> int:
        """The rows, and the links that a search follows."""
        links = getattr(self._graph, "_search_graph", None)
        parts = () if links is None else (links.data, links.indices, links.indptr)
        return int(self._rows.nbytes + sum(part.nbytes for part in parts))

    def _nearest(self, queries: np.ndarray, wanted: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        if self._graph is None:
            rows = np.broadcast_to(np.arange(self._n), (len(queries), self._n))
        else:
            with _BUILDING:
                rows, _ = self._graph.query(queries, k=wanted, epsilon=self.search_options["epsilon"])
        distances = np.empty(rows.shape, np.float32)
        for query, some in enumerate(rows):
            distances[query] = self._distances(queries[query], self._rows[some])
        return rows, distances

    def _distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(d,) and (m, d) -> (m,); rows of length 0 have none of its own."""
        if self.distance == "hamming":
            return np.bitwise_count(query ^ rows).sum(axis=1)
        if self.distance == "euclidean":
            return np.sqrt(np.square(rows.astype(np.float64) - query).sum(axis=1))
        products = rows.astype(np.float64) @ query
        return -products if self.distance == "inner_product" else np.clip(1 - products, 0, 2)


def _called(distance: Any, given: Mapping[str, Any]) -> str:
    return "pynndescent"


def _allowed(distance: Any, given: Mapping[str, Any]) -> Collection[str]:
    return ("neighbours", "epsilon")


@BACKENDS(
    "pynndescent",
    about="a graph of neighbours by PyNNDescent, which compiles itself for a minute or more; approximate",
    exact=False,
    at_search=AT_SEARCH,
)
@refuses_the_meaningless(_called, _allowed)
def pynndescent(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    neighbours: Annotated[int, Range(2, 512)] = 30,
    epsilon: Annotated[float, Range(0, 1)] = 0.1,
) -> Searcher:
    """Build a graph of PyNNDescent.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.
        neighbours: links of a row in the graph.
        epsilon: how much farther than the k-th nearest a search still looks; more finds more and takes longer.

    Returns:
        The index.
    """
    return NeighbourDescentIndex(gallery, distance, neighbours, epsilon)
