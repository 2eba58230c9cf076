"""Who searches: this package's engines and their peers, each at its best setting.

A rival is a function (shape, queries, gallery) that builds what it needs and returns its settings: a dict of a name to
a search, a function without arguments that returns (rows, distances or None), nearest first. Where it knows more than
one sensible setting the race tries all and keeps the fastest. It returns {} where it does not take part. Unit vectors
are searched by inner product (for unit vectors the order of every distance), codes by Hamming distance.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from retrieval_bench.peer_benchmarks.shapes import Shape
from retrieval_bench.search.stats import ScanStats


class PeerResult(NamedTuple):
    """rows: (q, k) integers; distances: (q, k) -product or differing bits, or None where the search gives none."""

    rows: np.ndarray
    distances: np.ndarray | None


Search = Callable[[], PeerResult]
Rival = Callable[[Shape, np.ndarray, np.ndarray], dict[str, Search]]

OURS = ("float32", "int8")
PEERS = ("numpy", "torch", "faiss", "usearch", "numkong", "sklearn", "sklearn64")

# A whole product of queries and gallery does not stay in a cache, and beyond some size not in memory: numpy and torch
# are also tried on as many queries at a time as give a product of this size, written into the same memory each time.
PRODUCT_BYTES = {"blocks of 16 MiB": 16 << 20, "blocks of 128 MiB": 128 << 20}
LARGEST_PRODUCT = 1 << 30  # bytes; larger ones are computed in blocks only


@dataclass(frozen=True, eq=False)
class OwnSearch:
    """A search of this package, which also tells what it did."""

    index: Any
    queries: np.ndarray
    k: int

    def __call__(self) -> PeerResult:
        ranking = self.index.search(self.queries, self.k)
        return PeerResult(ranking.indices, ranking.distances)

    @property
    def stats(self) -> ScanStats:
        """Of the last call."""
        return self.index.last  # type: ignore[no-any-return]


def rivals() -> dict[str, Rival]:
    """All by name, ours first; libraries that are not installed are left out."""
    every: dict[str, tuple[str, Rival]] = {
        "float32": ("numba", ours_float32),
        "int8": ("numba", ours_int8),
        "numpy": ("numpy", search_numpy),
        "torch": ("torch", search_torch),
        "faiss": ("faiss", search_faiss),
        "usearch": ("usearch", search_usearch),
        "numkong": ("numkong", search_numkong),
        "sklearn": ("sklearn", search_sklearn),
        "sklearn64": ("sklearn", search_sklearn64),
    }
    return {name: rival for name, (library, rival) in every.items() if importlib.util.find_spec(library)}


def ours_float32(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    from retrieval_bench.search.index import ExactIndex

    return {"": OwnSearch(ExactIndex(gallery, "hamming" if shape.bits else "inner_product"), queries, shape.k)}


def ours_int8(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    from retrieval_bench.search.index import ExactIndex

    return {} if shape.bits else {"": OwnSearch(ExactIndex(gallery, "inner_product", scan="int8"), queries, shape.k)}


def search_numpy(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """BLAS product, argpartition, and a sort of the k; for codes xor and bit counts, one query only."""
    if shape.bits:
        return (
            {"": lambda: _numpy_codes(queries, gallery, shape.k)} if shape.queries == 1 and shape.dim % 64 == 0 else {}
        )
    negated = -queries  # so that the k smallest are wanted, and the whole product need not be negated

    def search(block: int) -> PeerResult:
        product = np.empty((min(block, len(queries)), len(gallery)), np.float32)
        parts = []
        for start in range(0, len(queries), block):
            part = negated[start : start + block]
            parts.append(_k_smallest(np.matmul(part, gallery.T, out=product[: len(part)]), shape.k))
        rows, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
        return PeerResult(rows, distances)

    settings: dict[str, Search] = {}
    if shape.queries == 1:  # a matrix-vector product
        settings["whole"] = lambda: _k_smallest((gallery @ negated[0])[None], shape.k)
    elif 4 * shape.queries * shape.rows <= LARGEST_PRODUCT:
        settings["whole"] = lambda: _k_smallest(negated @ gallery.T, shape.k)
    for name, block in _blocks(shape):
        settings[name] = functools.partial(search, block)
    return settings


def _k_smallest(distances: np.ndarray, k: int) -> PeerResult:
    nearest = np.argpartition(distances, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(distances, nearest, axis=1)
    order = np.argsort(values, axis=1)
    return PeerResult(np.take_along_axis(nearest, order, axis=1), np.take_along_axis(values, order, axis=1))


def _numpy_codes(queries: np.ndarray, gallery: np.ndarray, k: int) -> PeerResult:
    bits = np.bitwise_count(gallery.view(np.uint64) ^ queries.view(np.uint64))
    return _k_smallest(bits.sum(axis=1, dtype=np.uint16)[None], k)


def search_torch(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """matmul and topk on the CPU; torch has no bit count."""
    if shape.bits:
        return {}
    import torch

    asked, transposed = torch.from_numpy(queries), torch.from_numpy(gallery).T

    def found(best: Any) -> PeerResult:
        return PeerResult(best.indices.numpy(), -best.values.numpy())

    def whole() -> PeerResult:
        with torch.inference_mode():
            return found(torch.topk(asked @ transposed, shape.k))

    def search(block: int) -> PeerResult:
        with torch.inference_mode():
            product = torch.empty((min(block, len(asked)), len(gallery)))
            parts = []
            for start in range(0, len(asked), block):
                part = asked[start : start + block]
                scores = torch.matmul(part, transposed, out=product[: len(part)])
                parts.append(found(torch.topk(scores, shape.k)))
        rows, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
        return PeerResult(rows, distances)

    settings: dict[str, Search] = {}
    if 4 * shape.queries * shape.rows <= LARGEST_PRODUCT:
        settings["whole"] = whole
    for name, block in _blocks(shape):
        settings[name] = functools.partial(search, block)
    return settings


def _blocks(shape: Shape) -> Iterator[tuple[str, int]]:
    """Settings of numpy and torch that go through the queries in blocks; none where one block would hold them all."""
    for name, size in PRODUCT_BYTES.items():
        block = max(1, size // (4 * shape.rows))
        if block < shape.queries:
            yield name, block


def search_faiss(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """IndexFlatIP with and without BLAS (it decides by a threshold); IndexBinaryFlat with and without a heap."""
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(_openmp_threads())
    if shape.bits:
        binary = faiss.IndexBinaryFlat(shape.dim)
        binary.add(gallery)

        threads = _openmp_threads()

        def search_codes(heap: bool, batch: int, workers: int) -> PeerResult:
            binary.use_heap, binary.query_batch_size = heap, batch
            faiss.omp_set_num_threads(workers)  # it shares out queries: for one query the others only wait
            try:
                distances, rows = binary.search(queries, shape.k)
            finally:
                faiss.omp_set_num_threads(threads)
            return PeerResult(rows, distances)

        return {
            f"{'heap' if heap else 'counting'}, {batch} queries at a time, threads: {workers}": functools.partial(
                search_codes, heap, batch, workers
            )
            for heap in (True, False)
            for batch in ((32, 500) if shape.queries > 32 else (32,))
            for workers in sorted({threads, 1 if shape.queries == 1 else threads})
        }
    index = faiss.IndexFlatIP(shape.dim)
    index.add(gallery)
    default = faiss.cvar.distance_compute_blas_threshold, faiss.cvar.distance_compute_blas_database_bs

    def search(threshold: int, rows_at_once: int) -> PeerResult:
        faiss.cvar.distance_compute_blas_threshold, faiss.cvar.distance_compute_blas_database_bs = (
            threshold,
            rows_at_once,
        )
        try:
            products, rows = index.search(queries, shape.k)
        finally:
            faiss.cvar.distance_compute_blas_threshold, faiss.cvar.distance_compute_blas_database_bs = default
        return PeerResult(rows, -products)

    return {
        "as it comes": functools.partial(search, *default),
        "BLAS": functools.partial(search, 1, default[1]),
        "BLAS, 4,096 rows at a time": functools.partial(search, 1, 4096),
        "no BLAS": functools.partial(search, 2**31 - 1, default[1]),
    }


def search_sklearn(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """ArgKmin, what NearestNeighbors(algorithm="brute") runs, but with the gallery's norms computed beforehand."""
    if shape.bits:
        return {}
    from sklearn.metrics._pairwise_distances_reduction import ArgKmin

    norms = np.einsum("nd,nd->n", gallery, gallery, dtype=np.float64)

    def search(strategy: str) -> PeerResult:
        rows = ArgKmin.compute(
            queries,
            gallery,
            shape.k,
            metric="sqeuclidean",
            metric_kwargs={"Y_norm_squared": norms},
            strategy=strategy,
            return_distance=False,
        )
        return PeerResult(rows, None)

    return {strategy: functools.partial(search, strategy) for strategy in ("parallel_on_X", "parallel_on_Y")}


def search_sklearn64(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """The same in float64, which decides here, too; queries and gallery are converted beforehand."""
    return {} if shape.bits else search_sklearn(shape, queries.astype(np.float64), gallery.astype(np.float64))


def search_usearch(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """`search(exact=True)`, which compares all pairs, one by one; codes: one query only, a thousand take minutes."""
    usearch: Any = importlib.import_module("usearch.index")
    kind = usearch.MetricKind
    if shape.bits and shape.queries > 1:
        return {}

    def search(metric: Any, workers: int) -> PeerResult:
        dtype = usearch.ScalarKind.B1 if shape.bits else None
        found = usearch.search(gallery, queries, shape.k, metric, exact=True, threads=workers, dtype=dtype)
        rows, distances = (np.atleast_2d(column) for column in (found.keys, found.distances))
        if metric == kind.IP:
            distances = distances - 1
        elif metric == kind.L2sq:
            distances = distances / 2 - 1
        return PeerResult(rows.astype(np.int64), distances)

    threads = _openmp_threads()
    metrics = {"differing bits": kind.Hamming} if shape.bits else {"products": kind.IP, "squares": kind.L2sq}
    return {
        f"{name}, threads: {workers}": functools.partial(search, metric, workers)
        for name, metric in metrics.items()
        for workers in sorted({threads, 1 if shape.queries == 1 else threads})
    }


def search_numkong(shape: Shape, queries: np.ndarray, gallery: np.ndarray) -> dict[str, Search]:
    """`dots_packed`, which sums products of float32 in float64, and argpartition; each thread takes its own part.

    The gallery is packed beforehand; or, in the search, the queries are. Codes: `hammings_packed`, one query only.
    """
    numkong: Any = importlib.import_module("numkong")
    if shape.bits and shape.queries > 1:
        return {}
    threads = _openmp_threads()
    packing, multiplying, dtype = (
        (numkong.hammings_pack, numkong.hammings_packed, "uint32")
        if shape.bits
        else (numkong.dots_pack, numkong.dots_packed, "float64")
    )

    def nearest(some: np.ndarray, packed: Any, width: int, across: bool) -> PeerResult:
        """Of a block of products; across: of gallery rows and packed queries."""
        out = numkong.empty((len(some), width), dtype=dtype)
        multiplying(some, packed, out=out)
        products = np.asarray(out)
        if across:
            products = np.ascontiguousarray(products.T)
        if not shape.bits:
            np.negative(products, out=products)
        return _k_smallest(products, min(shape.k, products.shape[1]))

    def by_queries(packed: Any, block: int) -> PeerResult:
        parts = [queries[start : start + block] for start in range(0, len(queries), block)]
        found = list(pool.map(lambda some: nearest(some, packed, len(gallery), False), parts))
        rows, distances = (np.concatenate(column) for column in zip(*found, strict=True))
        return PeerResult(rows, distances)

    def by_rows() -> PeerResult:
        packed = packing(queries)
        bounds = [len(gallery) * part // threads for part in range(threads + 1)]
        found = list(
            pool.map(lambda ends: nearest(gallery[slice(*ends)], packed, len(queries), True), pairwise(bounds))
        )
        rows = np.concatenate([part.rows + start for part, start in zip(found, bounds[:-1], strict=True)], axis=1)
        distances = np.concatenate([part.distances for part in found], axis=1)
        best = _k_smallest(distances, shape.k)
        return PeerResult(np.take_along_axis(rows, best.rows, axis=1), best.distances)

    pool = ThreadPoolExecutor(threads)
    settings: dict[str, Search] = {}
    if 8 * shape.queries * shape.rows <= LARGEST_PRODUCT:
        settings["packed queries"] = by_rows
    packed = packing(gallery)
    for size in PRODUCT_BYTES.values():
        block = max(1, min(-(-shape.queries // threads), size // (8 * shape.rows)))
        settings[f"packed gallery, {block} queries at a time"] = functools.partial(by_queries, packed, block)
    return settings


def _openmp_threads() -> int:
    """What the caller pinned all pools to; FAISS has its own count beside that of its OpenMP library."""
    import numba

    return int(numba.get_num_threads())
