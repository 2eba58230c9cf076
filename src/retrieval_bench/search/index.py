"""The public interface of the search: check the arrays, scan, and decide by float64 distances.

The distances, all small where near:
- cosine: 1 - similarity, from 0 to 2; the similarity with a zero vector is 0, so its distance is 1.
- euclidean: not squared.
- inner_product: the negated product.
- hamming: the number of differing bits.

Vectors are ranked by the float64 distance of the values as they were given, as `rescore.py` defines it; equal distances
rank by gallery row. The distances that are returned are these, rounded to float32. A scan in float32, or of int8 codes,
finds the candidates and leaves out only rows that are farther for certain (`bounds.py`), so the result does not depend
on the scan, thread count, vector width, or on how queries are grouped into calls.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking, Searcher
from retrieval_bench.registry import BACKENDS, unknown
from retrieval_bench.search.checks import (
    check_distance,
    check_exclude,
    check_finite,
    check_k,
    check_matrix,
    check_radius,
    check_range,
    check_threads,
    room_for,
)
from retrieval_bench.search.float_mode import tiny_numbers_kept
from retrieval_bench.search.packed import PackedGallery
from retrieval_bench.search.scans import Layout, Nearest, Queries, Turns, nearest_scans, words_of
from retrieval_bench.search.stats import LastSearch, ScanStats
from retrieval_bench.search.threads import on_threads

if TYPE_CHECKING:
    from retrieval_bench.search.emit import Kernel
    from retrieval_bench.search.first_look import FirstLook
    from retrieval_bench.search.settling import Settled

Scan = Literal["float32", "int8", "auto"]

_SMALL = 20_000_000  # multiply-adds of a search that one thread does in one compiled call
_FEW_DISTANCES = (
    2_000_000  # multiply-adds in float64 for the candidates of few queries; above this, threads share them out
)


class RadiusResult(NamedTuple):
    """All rows within a radius, like a sparse matrix in CSR form.

    Attributes:
        offsets: (q + 1,) int64; the neighbours of query i are `indices[offsets[i] : offsets[i + 1]]`, nearest first.
        indices: (total,) int64 gallery rows.
        distances: (total,) float32, one for each of `indices`.
    """

    offsets: np.ndarray
    indices: np.ndarray
    distances: np.ndarray


def topk(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    distance: Distance = "cosine",
    exclude: np.ndarray | None = None,
    *,
    threads: int | None = None,
) -> Ranking:
    """Find the k nearest gallery rows of each query: `ExactIndex(gallery, distance).search(queries, k, exclude)`.

    Args:
        queries: (q, d), as the gallery; or (d,), a single one.
        gallery: (n, d) of a float or integer dtype; (n, bytes) packed uint8 for hamming.
        k: how many rows to find for each query, at least 1.
        distance: "cosine", "euclidean", "inner_product" or "hamming".
        exclude: (q,) or (q, m) gallery rows that query i must not find; -1 stands for none.
        threads: search on at most so many threads; None for `numba.get_num_threads()`.

    Returns:
        The rows and their distances, nearest first; padded with -1 and inf if fewer than k can be found.

    Raises:
        BenchError: NaN, inf, or a wrong shape, dtype, distance, k or number of threads.
    """
    return ExactIndex(gallery, distance).search(queries, k, exclude, threads=threads)


class ExactIndex:
    """A gallery packed for exact search.

    The index is the rows as they were given, in float32 where that holds all values of their dtype and in float64 else,
    and beside them one float32 copy to scan, filled up to a multiple of 32 rows; for hamming it is one copy in uint64
    words, at least 8 bytes a row. A read-only gallery in C order (and so a memory map of a file opened for reading) is
    not copied but referred to, and must not change.

    Args:
        gallery: (n, d) of any float or integer dtype for cosine, euclidean and inner_product; (n, bytes) packed uint8
            for hamming. It is never written to. n may be 0; then all results are padding.
        distance: "cosine", "euclidean", "inner_product" or "hamming".
        scan: "float32" reads the vectors. "int8" reads codes of a quarter of the size; the result is the same. "auto"
            takes the faster one for each search (see `certified.choose`), and holds both from the first search that
            reads the vectors.
        kernel: "avx512", "avx2", "neon" or "plain". None: RETRIEVAL_BENCH_KERNEL, else the fastest for the processor.

    Attributes:
        dim: columns of the gallery.
        kernel: name of the kernel in use.
        build_seconds: how long packing took, in seconds.

    Raises:
        BenchError: NaN, inf, or a wrong shape, dtype, distance, scan or kernel.
    """

    _packed: PackedGallery  # not there where the gallery is held as codes
    _certified: Any

    @tiny_numbers_kept
    def __init__(
        self,
        gallery: np.ndarray,
        distance: Distance = "cosine",
        *,
        scan: Scan = "float32",
        kernel: str | None = None,
    ) -> None:
        started = time.perf_counter()
        gallery = check_matrix("gallery", gallery, check_distance(distance))
        self._open(gallery, distance, kernel)
        self._scan = scan
        if _use_codes(scan, self._n, self.dim, distance, kernel_for(kernel)):
            from retrieval_bench.search.certified import CertifiedIndex

            self._certified = CertifiedIndex(gallery, distance, kernel=kernel)
        else:
            self._pack(gallery, in_memory=True)
        self.build_seconds = time.perf_counter() - started

    @classmethod
    def from_npy(
        cls, path: str | os.PathLike[str], distance: Distance = "cosine", *, kernel: str | None = None
    ) -> Self:
        """Open a gallery in a .npy file that stays on disk, for galleries larger than memory.

        Each search reads the file from front to back and packs 64 MiB at a time, so put many queries into one call.
        Rows that may be among the nearest are read once more. Results equal those of the index in memory, bit for bit.
        Values are checked while searching. The file must not change meanwhile. `bytes` is 0.

        Args:
            path: a .npy file that holds one array, as `gallery` of `ExactIndex`.
            distance: "cosine", "euclidean", "inner_product" or "hamming".
            kernel: as for `ExactIndex`.

        Returns:
            The index.

        Raises:
            BenchError: The file cannot be read, or holds no such array.
        """
        started = time.perf_counter()
        if not isinstance(path, str | os.PathLike):
            raise BenchError(f"from_npy takes the path of a .npy file, not a {type(path).__name__}")
        try:
            gallery = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise BenchError(f"{os.fspath(path)} cannot be read as a .npy array: {error}") from error
        except (ValueError, EOFError) as error:  # whose words may advise to trust a file that NumPy does not know
            raise BenchError(
                f"{os.fspath(path)} cannot be read as a .npy array of numbers; save one with np.save"
            ) from error
        if not isinstance(gallery, np.ndarray):
            raise BenchError(f"{os.fspath(path)} holds several arrays; save the gallery alone, with np.save")
        index = cls.__new__(cls)
        gallery = check_matrix("gallery", gallery, check_distance(distance))
        index._open(gallery, distance, kernel)  # noqa: SLF001
        index._pack(gallery, in_memory=False)  # noqa: SLF001
        index.build_seconds = time.perf_counter() - started
        return index

    def _open(self, gallery: np.ndarray, distance: Distance, kernel: str | None) -> None:
        from retrieval_bench.search import kernels, keys, one_call

        if len(gallery) > keys.MOST_ROWS:
            raise BenchError(f"gallery has {len(gallery)} rows; at most {keys.MOST_ROWS} are supported")
        self.distance = distance
        self.dim = int(gallery.shape[1])
        self.kernel = kernel_for(kernel).name
        self._n = len(gallery)
        bits = distance == "hamming"
        centre = np.zeros(0)
        self._call: Any
        if bits:
            self._call = one_call.BitSearch(kernel_for(kernel))
        else:
            from retrieval_bench.search import all_rows, points, rescore

            kind = points.value_type(gallery.dtype).name
            points.warm_up(kind)
            rescore.compiled("float32", kind)  # nothing compiles in a search
            all_rows.compiled("float32", kind)
            self._call = one_call.VectorSearch(kernel_for(kernel), distance, self.dim, kind)
            centre = points.find_centre(distance, gallery)
        self._layout = Layout(
            distance,
            kernels.engine(kernel_for(kernel), distance),
            self.dim,
            -(-self.dim // 8) if bits else self.dim,
            np.dtype(np.uint64 if bits else np.float32),
            centre,
            float(np.sqrt((centre**2).sum())),
        )
        self._rows: Any = None
        self._more = 0  # candidates kept beyond the usual number, since it has been too small
        self._certified = None
        self._first_look: FirstLook | None = None
        self._last = LastSearch()
        self.build_seconds = 0.0

    def _pack(self, gallery: np.ndarray, *, in_memory: bool) -> None:
        if self.distance != "hamming":
            from retrieval_bench.search.settling import Kept, OnDisk

            self._rows = Kept.for_gallery(self.distance, gallery) if in_memory else OnDisk(self.distance, gallery)
        self._packed = PackedGallery(self._layout, gallery, self._rows, in_memory=in_memory)
        piece = self._packed.piece
        if piece is not None and self._rows is not None:
            from retrieval_bench.search.first_look import FirstLook

            self._rows.complete()
            index_of = functools.partial(ExactIndex, distance=self.distance, kernel=self.kernel)
            self._first_look = FirstLook(self._rows, piece.largest, index_of)

    def __len__(self) -> int:
        return self._n

    @property
    def bytes(self) -> int:
        """Bytes that the index takes in memory."""
        if self._certified is not None:
            return int(self._certified.bytes)
        return sum(part.bytes for part in (self._packed, self._rows, self._first_look) if part is not None)

    @property
    def last(self) -> ScanStats:
        """`ScanStats` of the last `search` that the calling thread made; zeros before the first."""
        return self._last.stats

    @tiny_numbers_kept
    def search(
        self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None, *, threads: int | None = None
    ) -> Ranking:
        """Find the k nearest gallery rows of each query.

        Args:
            queries: (q, d), as the gallery; q may be 0. Or (d,), a single one.
            k: how many rows to find for each query, at least 1.
            exclude: (q,) or (q, m) gallery rows that query i must not find; -1 stands for none.
            threads: run on at most so many threads, None for `numba.get_num_threads()`; on fewer if there is little to
                do.

        Returns:
            The rows and their distances, nearest first, equal distances by row; padded with -1 and inf if fewer than k
            can be found.

        Raises:
            BenchError: NaN, inf, or a wrong shape, dtype, k or number of threads.
        """
        if self._certified is not None:
            return self._certified_search(queries, k, exclude, threads)
        threads = check_threads(threads)
        queries = check_matrix("queries", queries, self.distance, self.dim)
        k = check_k(k)
        exclude = check_exclude(exclude, len(queries), self._n)
        found, kept = _depths(k, self._n, self.dim, self._more)
        if self.distance == "hamming":  # a scan of bits is exact
            kept = found
        ranking = room_for(len(queries), k, self._n, unset=found)
        done = self._in_one_call(queries, found, kept, exclude, ranking, threads)
        if done is not None:
            self._last.figures = len(queries), self._n, *done
            return ranking
        if self._first_look is not None and self._first_look.in_vain(queries, found, exclude, threads):
            self._last.figures = self._first_look.without_scan(queries, found, exclude, ranking, threads)
            return ranking
        packed, rescored, doubtful = self._packed, 0, 0
        for batch in packed.batches(len(queries), 24 * kept + 16 * found + 8 * self.dim + 1024):
            shares, running = packed.shared_out(queries, batch, exclude, threads)
            parts = nearest_scans(shares, kept, self._n)
            if found and self._rows is not None and packed.piece is not None and not shares[0].together:
                tasks = [functools.partial(self._alone, part, found) for part in parts]
                settled = list(zip((share.queries for share in shares), on_threads(tasks, running), strict=True))
            else:
                packed.scan_all(parts, running)
                settled = []
                for part in parts[:1] if shares[0].together else parts:
                    some = part.share.queries
                    if self.distance != "hamming" and found:
                        settled.append((some, self._settled(some, part.nearest(), found, threads)))
                    else:
                        self._spread(part.nearest(), ranking, some.rows)
            for some, done in settled:
                ranking.indices[some.rows, :found], ranking.distances[some.rows, :found] = done[:2]
                rescored += done.rescored
                doubtful += len(done.doubtful)
            rescored += self._second_look(queries, settled, exclude, ranking, found, threads)
        self._last.figures = len(queries), self._n, rescored, doubtful
        return ranking

    __call__ = search

    @tiny_numbers_kept
    def search_float64(
        self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None, *, threads: int | None = None
    ) -> Ranking:
        """Find what `search` finds, with the float64 distances that rank it.

        They tell apart what is equal in float32. Who puts rankings of several galleries together needs them.

        Args:
            queries: as for `search`.
            k: as for `search`.
            exclude: as for `search`.
            threads: as for `search`.

        Returns:
            The ranking of `search`, with distances in float64.

        Raises:
            BenchError: As for `search`.
        """
        if self._certified is not None:
            return self._certified.float32().search_float64(queries, k, exclude, threads=threads)  # type: ignore[no-any-return]
        found = self.search(queries, k, exclude, threads=threads)
        distances = found.distances.astype(np.float64)
        if self.distance == "hamming":  # whole numbers, the same in both
            return Ranking(found.indices, distances)
        from retrieval_bench.search.settling import distances_of

        queries = check_matrix("queries", queries, self.distance, self.dim)
        nothing = np.empty((len(queries), 0), np.int64)
        for batch in self._packed.batches(len(queries), 8 * self.dim + 24 * found.indices.shape[1] + 1024):
            some = Queries(self._layout, queries, batch, nothing)
            some.prepare()
            owners, places = (np.ascontiguousarray(each) for each in np.nonzero(found.indices[batch] >= 0))
            rows = found.indices[batch][owners, places]
            distances[batch][owners, places] = distances_of(some.asked(), self._rows, owners, rows, threads)
        return Ranking(found.indices, distances)

    def _in_one_call(
        self, queries: np.ndarray, k: int, kept: int, exclude: np.ndarray, ranking: Ranking, most_threads: int | None
    ) -> tuple[int, int] | None:
        """Fill the ranking, if compiled code can do the whole search: few queries, a gallery in memory.

        Returns:
            How many float64 distances were computed, and how many queries needed a second look.
        """
        piece, q, bits = self._packed.piece, len(queries), self.distance == "hamming"
        if piece is None or not 0 < kept <= self._call.most:
            return None
        threads = 1
        if self._packed.work(q) >= _SMALL:
            threads, together = self._packed.threads_for(q, most_threads)
            if not together or not (bits or q * kept * self.dim < _FEW_DISTANCES):
                return None
        whole = ranking.indices.shape[1] == k
        indices = ranking.indices if whole else np.empty((q, k), np.int64)
        distances = ranking.distances if whole else np.empty((q, k), np.float32)
        rescored = 0
        if bits:
            self._call.search(piece, words_of(self._layout, queries), exclude, threads, indices, distances)
        else:
            (refused, doubtful, longest, alike, computed), near, counts = self._call.search(
                self._layout, piece, self._rows, queries, exclude, kept, threads, indices, distances
            )
            if refused >= 0:
                check_finite("queries", np.arange(q) < refused)
            check_range(self.distance, longest, piece.largest)
            rescored = int(computed)
            if doubtful or alike:
                from retrieval_bench.search.settling import concluded

                some = Queries(self._layout, queries, slice(0, q), exclude)
                some.prepare()
                asked, others = some.asked(), kept < self._n
                first = concluded(asked, self._rows, exclude, indices, near, counts, others)
                ranking.indices[:, :k], ranking.distances[:, :k] = first[:2]
                more = self._second_look(queries, [(some, first)], exclude, ranking, k, most_threads)
                return first.rescored + more, len(first.doubtful)
        if not whole:
            ranking.indices[:, :k], ranking.distances[:, :k] = indices, distances
        return rescored, 0

    def _settled(self, some: Queries, keys: np.ndarray, k: int, threads: int | None) -> Settled:
        """The k nearest, from the best scores of each query."""
        from retrieval_bench.search.settling import settled

        return settled(
            *(some.asked(), self._rows, some.exclude, keys, k),
            slack=np.zeros(len(keys)),
            g=self._call.g,
            centre_length=self._layout.centre_length,
            threads=threads,
        )

    def _alone(self, part: Nearest, k: int) -> Settled:
        """Scan the whole gallery in memory for some queries, and settle at once, while much is in the caches."""
        piece = self._packed.piece
        assert piece is not None
        part.scan(piece, Turns(piece, 1))
        return self._settled(part.share.queries, part.nearest(), k, 1)

    def _spread(self, keys: np.ndarray, ranking: Ranking, rows: slice) -> None:
        """Counts of bits are final: what the keys (q, k) say is written into rows of the ranking."""
        whole = ranking.indices.shape[1] == keys.shape[1]
        indices = ranking.indices[rows] if whole else np.empty(keys.shape, np.int64)
        distances = ranking.distances[rows] if whole else np.empty(keys.shape, np.float32)
        self._layout.engine.spread(keys, indices, distances)
        if not whole:
            columns = slice(keys.shape[1])
            ranking.indices[rows, columns], ranking.distances[rows, columns] = indices, distances

    def _second_look(
        self, queries: np.ndarray, first: Sequence[tuple[Queries, Settled]], exclude: np.ndarray, ranking: Ranking,
        k: int, threads: int | None,
    ) -> int:  # fmt: skip
        """Fill the lines of the ranking that need one -> how many float64 distances that took."""
        doubtful = sum(len(done.doubtful) for _, done in first)
        if not doubtful:
            return 0
        from retrieval_bench.search.second_look import second_look

        if doubtful > sum(len(some) for some, _ in first) // 50:  # a second look costs more than a longer list
            self._more = min(2 * self._more + k, 4 * k + 64)
        return second_look(self._packed, queries, first, exclude, ranking, k, threads)

    def _certified_search(
        self, queries: np.ndarray, k: int, exclude: np.ndarray | None, threads: int | None
    ) -> Ranking:
        from retrieval_bench.search.certified import choose

        q = len(check_matrix("queries", queries, self.distance, self.dim))
        quicker = (
            "int8" if self._scan == "int8" else choose(q, self._n, self.dim, check_k(k), self._certified.inner_loop)
        )
        index = self._certified if quicker == "int8" else self._certified.float32()
        ranking = index.search(queries, k, exclude, threads=threads)
        self._last.figures = tuple(index.last)
        return ranking  # type: ignore[no-any-return]

    @tiny_numbers_kept
    def search_radius(
        self, queries: np.ndarray, radius: float, exclude: np.ndarray | None = None, *, threads: int | None = None
    ) -> RadiusResult:
        """Find all gallery rows at a distance of at most `radius`.

        It always scans the vectors in float32. Memory grows with the result: 24 bytes for each neighbour, and about
        three times that while they are sorted.

        Args:
            queries: (q, d), as the gallery; q may be 0. Or (d,), a single one.
            radius: in the unit of the distance; compared with the float32 distances that are returned.
            exclude: (q,) or (q, m) gallery rows that query i must not find; -1 stands for none.
            threads: as for `search`.

        Returns:
            The neighbours of each query, nearest first, equal distances by row.

        Raises:
            BenchError: NaN, inf, or a wrong shape, dtype, radius or number of threads.
        """
        if self._certified is not None:
            return self._certified.float32().search_radius(queries, radius, exclude, threads=threads)
        threads = check_threads(threads)
        queries = check_matrix("queries", queries, self.distance, self.dim)
        limit = check_radius(radius)
        exclude = check_exclude(exclude, len(queries), self._n)
        farthest = np.full(len(queries), np.nextafter(limit, np.float32(np.inf)), np.float64)
        counts, indices, distances = [], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for batch in self._packed.batches(len(queries), 8 * self.dim + 1024):
            owners, rows, near = self._within(queries[batch], farthest[batch], exclude[batch], threads)
            order = np.lexsort((rows, near, owners))
            order = order[near[order].astype(np.float32) <= limit]
            counts.append(np.bincount(owners[order], minlength=batch.stop - batch.start))
            indices.append(rows[order])
            distances.append(near[order].astype(np.float32))
        offsets = np.zeros(len(queries) + 1, np.int64)
        if counts:
            np.cumsum(np.concatenate(counts), out=offsets[1:])
        return RadiusResult(offsets, np.concatenate(indices), np.concatenate(distances))

    def _within(
        self, queries: np.ndarray, farthest: np.ndarray, exclude: np.ndarray, threads: int | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(query, gallery row, float64 distance) of all rows at a distance of at most farthest[query]; others, too."""
        found = self._packed.in_question(queries, farthest, exclude, threads)
        assert found is not None  # as many as there are may be found
        asked, owners, rows, near = found
        if asked is None:
            return owners, rows, near.astype(np.float64)
        from retrieval_bench.search.settling import distances_of

        return owners, rows, distances_of(asked, self._rows, owners, rows, threads)


@functools.lru_cache(maxsize=256)
def _depths(k: int, n: int, dim: int, more: int) -> tuple[int, int]:
    """How many of n rows a search finds, and how many its scan keeps, so that it is nearly always sure to have these.

    Of random vectors, about k dim^1.5 10^-6 rows lie too close to the k-th nearest for float32 to tell. more: so many
    are kept beyond that.
    """
    found = min(k, n)
    close = 1.6e-6 * found * dim**1.5
    return found, min(n, found + more + 2 + int(close + 3 * close**0.5))


def kernel_for(name: str | None = None) -> Kernel:
    """Choose the kernel.

    Args:
        name: "avx512", "avx2", "neon" or "plain". None: RETRIEVAL_BENCH_KERNEL, else the fastest for the processor.

    Returns:
        The kernel.

    Raises:
        BenchError: No kernel has this name, or this processor cannot run it.
    """
    from retrieval_bench.search import emit

    wanted = name if name is not None else os.environ.get(emit.KERNEL_VARIABLE) or None
    if wanted is not None and wanted not in emit.KERNELS:
        raise BenchError(unknown("kernel" if name is not None else emit.KERNEL_VARIABLE, wanted, list(emit.KERNELS)))
    return emit.choose(name)[0]


def _use_codes(scan: str, n: int, dim: int, distance: str, kernel: Kernel) -> bool:
    """Whether CertifiedIndex answers in place of the float32 engine."""
    if scan not in ("float32", "int8", "auto"):
        raise BenchError(unknown("scan", scan, ("float32", "int8", "auto")))
    if scan == "auto" and distance != "hamming":
        from retrieval_bench.search.certified import choose, inner_loop

        return choose(1, n, dim, 1, inner_loop(kernel.name)) == "int8"  # else no search is quicker by codes
    return scan == "int8"


def warm_up(distance: Distance = "cosine", kernel: str | None = None) -> None:
    """Compile, or load from the cache on disk, everything that searches by this distance need.

    Args:
        distance: "cosine", "euclidean", "inner_product" or "hamming".
        kernel: as for `ExactIndex`.
    """
    from retrieval_bench.search import kernels, one_call_steps

    kernels.engine(kernel_for(kernel), check_distance(distance))
    if distance == "hamming":
        one_call_steps.for_bits(kernel_for(kernel))
    else:
        from retrieval_bench.search import all_rows, points, rescore

        points.warm_up()
        rescore.compiled("float32", "float32")
        all_rows.compiled("float32", "float32")
        one_call_steps.for_vectors(kernel_for(kernel), "float32", "float32")


@BACKENDS("exact", about="exact search in compiled code on all threads; the same bits every time", exact=True)
def exact(gallery: np.ndarray, distance: Distance = "cosine") -> Searcher:
    """Build the exact search of a run: an `ExactIndex` with its defaults.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.

    Returns:
        The index.
    """
    return ExactIndex(gallery, distance)


@BACKENDS(
    "int8",
    about="exact search by a scan of int8 codes, in a quarter of the bytes; finds what `exact` finds",
    exact=True,
)
def int8(gallery: np.ndarray, distance: Distance = "cosine") -> Searcher:
    """Build the search of a run that scans codes: an `ExactIndex` with scan="int8"; bits are scanned as they are.

    Args:
        gallery: as for `ExactIndex`.
        distance: as for `ExactIndex`.

    Returns:
        The index.
    """
    return ExactIndex(gallery, distance, scan="float32" if distance == "hamming" else "int8")
