"""`faiss:KIND`: graphs, inverted lists, product quantisation and 8-bit codes, as FAISS builds and searches them.

Douze et al., The Faiss library, 2024. What an index learns (centroids of lists, codebooks, ranges of codes), it learns
from the gallery itself, as any search engine does.

- flat: every row, in float32. Only this one misses nothing but what float32 sums cannot tell apart.
- hnsw: a graph of neighbours in layers. Malkov and Yashunin, PAMI 2020.
- ivf: rows in lists around centroids; a search reads the lists whose centroids are nearest.
- ivfpq: the same lists, of codes of a few bytes a row. Jegou, Douze and Schmid, PAMI 2011.
- sq8: every row, one byte a column.
"""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np

from retrieval_bench.core import BenchError, Distance, Searcher
from retrieval_bench.registry import BACKENDS, Range
from retrieval_bench.search.ann.found_rows import ApproximateIndex, threads_allowed
from retrieval_bench.search.ann.given_options import missing, refuses_the_meaningless

Kind = Literal["hnsw", "ivf", "ivfpq", "sq8", "flat"]

SEED = 1234
TRAIN_PER_LIST = 64
"""Rows for each centroid that k-means learns from: FAISS warns below 39 and takes 256, four times as long."""
CODEWORDS = 256  # of one byte
TRAIN_CODEWORDS = 256 * CODEWORDS
MOST_CODE_BYTES = 1024
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "hnsw": ("m", "build_ef", "ef", "build_threads"),
    "ivf": ("lists", "probes", "build_threads"),
    "ivfpq": ("lists", "probes", "bytes", "refine", "build_threads"),
    "sq8": ("refine", "build_threads"),
    "flat": ("build_threads",),
}
"""Kind -> the options that mean something for it."""
AT_SEARCH = ("ef", "probes", "refine")
OF_BITS = ("hnsw", "ivf", "flat")


def library(called: str) -> Any:
    """FAISS.

    Args:
        called: the backend that needs it.

    Returns:
        The module.

    Raises:
        BenchError: It is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError:
        raise missing(called, "faiss-cpu") from None


class FaissIndex(ApproximateIndex):
    """A gallery in an index of FAISS. Options as those of `faiss_`, all of them given."""

    def __init__(self, gallery: np.ndarray, distance: Distance, kind: Kind, options: Mapping[str, int]) -> None:
        self.kind = kind
        self._options = options
        self._faiss = library(f"faiss:{kind}")
        search = {name: options[name] for name in AT_SEARCH if name in OPTIONS[kind]}
        super().__init__(f"faiss:{kind}", gallery, distance, search)

    def _builder(self) -> Any:
        return faiss_

    def _check(self, gallery: np.ndarray) -> None:
        n = len(gallery)
        if self.distance == "hamming" and self.kind not in OF_BITS:
            kinds = ", ".join(f"faiss:{kind}" for kind in OF_BITS)
            raise BenchError(f"{self.called} has no form for bits; for hamming take {kinds}")
        if self._options["lists"] > n and n and "lists" in OPTIONS[self.kind]:
            raise BenchError(
                f"{self.called}: lists={self._options['lists']} is more than the gallery's {n} rows; give at most {n}, "
                "or 0 for a number that suits it"
            )
        if self.kind == "ivfpq":
            self._code_bytes = code_bytes(self.called, self.dim, self._options["bytes"])
            if 0 < n < CODEWORDS:
                raise BenchError(
                    f"{self.called} learns {CODEWORDS} codewords from the gallery, which has {n} rows; take faiss:hnsw "
                    "or faiss:flat"
                )

    def _search_changes(self) -> None:
        self._asking: tuple[Any, Any] | None = None
        if self.search_options.get("refine") and not self._options["refine"]:
            raise BenchError(
                f"{self.called}: refine={self.search_options['refine']} needs the float vectors, which this index does "
                "not hold; build it with refine=1 or more"
            )

    def _fill(self, gallery: np.ndarray) -> None:
        self._index: Any = None
        self._asking = None
        self._refined: Any = None
        if not self._n:
            return
        most = threads_allowed()
        with self._on_threads(min(most, self._options["build_threads"] or most)):
            self._index = self._binary(gallery) if self.distance == "hamming" else self._of_floats(gallery)
            rows = self._faiss.IndexFlat(self.dim, self._metric) if self._options["refine"] else None
            for block in self._blocks(gallery):
                self._index.add(block)
                if rows is not None:
                    rows.add(block)
        if rows is not None:
            self._refined = self._faiss.IndexRefine(self._index, rows)
            self._rows = rows

    @property
    def _metric(self) -> int:
        return int(self._faiss.METRIC_L2 if self.distance == "euclidean" else self._faiss.METRIC_INNER_PRODUCT)

    def _of_floats(self, gallery: np.ndarray) -> Any:
        """An index that has learned and holds no row yet."""
        faiss, options = self._faiss, self._options
        if self.kind == "hnsw":
            index = faiss.IndexHNSWFlat(self.dim, options["m"], self._metric)
            index.hnsw.efConstruction = options["build_ef"]
            return index
        if self.kind == "sq8":
            index = faiss.IndexScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_8bit, self._metric)
            index.train(np.stack(self._ranges(gallery)))  # it learns the range of each column, and nothing else
            return index
        if self.kind == "flat":
            return faiss.IndexFlat(self.dim, self._metric)
        lists, quantizer = self._lists(), faiss.IndexFlat(self.dim, self._metric)
        most = TRAIN_PER_LIST * lists
        if self.kind == "ivf":
            index = faiss.IndexIVFFlat(quantizer, self.dim, lists, self._metric)
        else:
            index = faiss.IndexIVFPQ(quantizer, self.dim, lists, self._code_bytes, 8, self._metric)
            quiet(index.pq.cp, CODEWORDS)
            most = max(most, TRAIN_CODEWORDS)
        quiet(index.cp, TRAIN_PER_LIST)
        index.train(self._sample(gallery, most, SEED))
        return index

    def _binary(self, gallery: np.ndarray) -> Any:
        faiss, options, bits = self._faiss, self._options, 8 * self.dim
        if self.kind == "hnsw":
            index = faiss.IndexBinaryHNSW(bits, options["m"])
            index.hnsw.efConstruction = options["build_ef"]
            return index
        if self.kind == "flat":
            return faiss.IndexBinaryFlat(bits)
        lists = self._lists()
        index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(bits), bits, lists)
        quiet(index.cp, TRAIN_PER_LIST)
        index.train(self._sample(gallery, TRAIN_PER_LIST * lists, SEED))
        return index

    def _lists(self) -> int:
        return self._options["lists"] or min(self._n, max(1, round(4 * math.sqrt(self._n))))

    def _ranges(self, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(d,) the least and (d,) the greatest value of each column."""
        least, most = np.full(self.dim, np.inf, np.float32), np.full(self.dim, -np.inf, np.float32)
        for block in self._blocks(gallery):
            least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
        return least, most

    def _nearest(self, queries: np.ndarray, wanted: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
        if self._asking is None:
            self._asking = self._search_with()
        index, parameters = self._asking
        with self._on_threads(threads):
            # Who imports faiss.contrib.torch_utils has `search` replaced by one without parameters.
            own = getattr(index, "search_numpy", index.search)
            values, rows = own(queries, wanted, params=parameters)
        if self.distance == "cosine":
            values = np.clip(np.float32(1) - values, 0, 2)
        elif self.distance == "inner_product":
            values = -values
        elif self.distance == "euclidean":
            values = np.sqrt(np.maximum(values, 0))
        return rows, values

    def _search_with(self) -> tuple[Any, Any]:
        """Which index to ask, and with which parameters. A search reads both and changes neither."""
        faiss, options = self._faiss, self.search_options
        parameters = None
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=options["ef"])
        elif self.kind in ("ivf", "ivfpq"):
            parameters = faiss.SearchParametersIVF(nprobe=options["probes"])
        if not options.get("refine"):
            return self._index, parameters
        refining = faiss.IndexRefineSearchParameters(k_factor=float(options["refine"]), base_index_params=parameters)
        return self._refined, refining

    def _count_bytes(self) -> int:
        """Written to nowhere and counted, a megabyte at a time."""
        faiss = self._faiss
        written = 0

        def count(block: bytes) -> None:
            nonlocal written
            written += len(block)

        writer = faiss.PyCallbackIOWriter(count)
        write = faiss.write_index_binary if self.distance == "hamming" else faiss.write_index
        write(self._index, writer)
        if self._refined is not None:
            write(self._rows, writer)
        return written

    @contextlib.contextmanager
    def _on_threads(self, threads: int) -> Iterator[None]:
        """FAISS shares out queries among the threads of OpenMP, whose number belongs to the calling thread."""
        before = self._faiss.omp_get_max_threads()
        self._faiss.omp_set_num_threads(min(threads, before))
        try:
            yield
        finally:
            self._faiss.omp_set_num_threads(before)


def quiet(clustering: Any, most: int) -> None:
    """Let k-means take few rows without a warning on stderr, draw by a fixed seed, and learn from no more than asked.

    Args:
        clustering: the parameters of a clustering of FAISS.
        most: rows that it learns from, for each centroid.
    """
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = most
    clustering.seed = SEED


def code_bytes(called: str, dim: int, wanted: int) -> int:
    """How many bytes the code of a row takes.

    Args:
        called: the backend, for the error sentence.
        dim: columns of the gallery.
        wanted: as the user says; 0 for the largest divisor of `dim` that leaves four columns or more to a byte.

    Returns:
        A divisor of `dim`.

    Raises:
        BenchError: `wanted` does not divide `dim`.
    """
    divisors = [count for count in range(1, min(dim, MOST_CODE_BYTES) + 1) if dim % count == 0]
    if not wanted:
        return max([count for count in divisors if 4 * count <= dim], default=1)
    if wanted not in divisors:
        near = sorted(sorted(divisors, key=lambda count: (abs(math.log(count / wanted)), count))[:6])
        raise BenchError(
            f"{called}: bytes={wanted} must divide the {dim} columns of the gallery; for example "
            f"{', '.join(map(str, near))} do"
        )
    return wanted


def _called(distance: Any, given: Mapping[str, Any]) -> str:
    return f"faiss:{given.get('kind', 'hnsw')}"


def _allowed(distance: Any, given: Mapping[str, Any]) -> Collection[str]:
    return ("kind", *OPTIONS.get(given.get("kind", "hnsw"), ()))


@BACKENDS(
    "faiss",
    about="an index of FAISS: faiss:hnsw, faiss:ivf, faiss:ivfpq, faiss:sq8 or faiss:flat; approximate",
    exact=False,
    argument="kind",
    at_search=AT_SEARCH,
)
@refuses_the_meaningless(_called, _allowed)
def faiss_(
    gallery: np.ndarray,
    distance: Distance = "cosine",
    *,
    kind: Kind = "hnsw",
    m: Annotated[int, Range(2, 512)] = 32,
    build_ef: Annotated[int, Range(1, 65_536)] = 200,
    ef: Annotated[int, Range(1, 1_000_000)] = 64,
    lists: Annotated[int, Range(0, 1_000_000)] = 0,
    probes: Annotated[int, Range(1, 1_000_000)] = 16,
    bytes: Annotated[int, Range(0, MOST_CODE_BYTES)] = 0,
    refine: Annotated[int, Range(0, 1000)] = 0,
    build_threads: Annotated[int, Range(0, 1024)] = 0,
) -> Searcher:
    """Build an index of FAISS.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.
        kind: hnsw (a graph), ivf (inverted lists), ivfpq (lists of short codes), sq8 (a byte a column) or flat.
        m: of hnsw: links of a row in the graph, twice as many in its lowest layer.
        build_ef: of hnsw: candidates that are kept while a row is linked (efConstruction).
        ef: of hnsw: candidates that a search keeps (efSearch); more find more and take longer.
        lists: of ivf and ivfpq: lists that the gallery is divided into; 0 for four times the square root of its rows.
        probes: of ivf and ivfpq: lists that a search reads; more find more and take longer.
        bytes: of ivfpq: bytes of a row's code, a divisor of its columns; 0 for about a quarter of them.
        refine: of ivfpq and sq8: rank this many times k rows again by their float vectors, which are kept; 0 for none.
        build_threads: threads that build it, at most; 0 for all. With 1, hnsw is the same each time.

    Returns:
        The index.
    """
    options = {
        "m": m,
        "build_ef": build_ef,
        "ef": ef,
        "lists": lists,
        "probes": probes,
        "bytes": bytes,
        "refine": refine,
        "build_threads": build_threads,
    }
    return FaissIndex(gallery, distance, kind, options)
