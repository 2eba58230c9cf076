"""What a search costs at several sizes, measured on rows like those of a record, for as many as it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from retrieval_bench.choosing.growth import Growth, fit
from retrieval_bench.core import BenchError, Distance, Searcher
from retrieval_bench.experiment.approximation import let_go, vectors
from retrieval_bench.experiment.kept_rows import kept_rows
from retrieval_bench.experiment.prepare import Plan, Trial
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import Spec
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

QUERIES = 50
ROUNDS = 3
MOST_BYTES = 4 << 30
"""Of grown rows."""
_AT_ONCE = 4096


@dataclass(frozen=True)
class SearchGrowth:
    """One query's milliseconds on one thread, seconds to build on all threads, bytes of the index."""

    query_ms: Growth
    build_s: Growth
    index_bytes: Growth


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Five sizes, each twice the one before."""
    return tuple(max(1, most >> power) for power in (4, 3, 2, 1, 0))


def grown(rows: np.ndarray, n: int, seed: int) -> np.ndarray:
    """n rows like these: the rows themselves, then points between two of them, up to half way.

    Args:
        rows: (m, d) floats, or uint8 codes, of which bits are taken from the one or the other.
        n: how many.
        seed: which.

    Returns:
        (n, d) of the same dtype.
    """
    if n <= len(rows):
        return rows[:n]
    rng = np.random.default_rng(seed)
    found = np.empty((n, rows.shape[1]), rows.dtype)
    found[: len(rows)] = rows
    for start in range(len(rows), n, _AT_ONCE):
        some = slice(start, min(start + _AT_ONCE, n))
        one, other = (rows[rng.integers(0, len(rows), some.stop - start)] for _ in range(2))
        share = rng.uniform(0, 0.5, (len(one), 1))
        if rows.dtype == np.uint8:
            taken = np.packbits(rng.uniform(size=(len(one), 8 * rows.shape[1])) < share, axis=1)
            found[some] = (one & ~taken) | (other & taken)
        else:
            mixed = one + (share * (other.astype(np.float32) - one)).astype(np.float32)
            found[some] = np.rint(mixed) if rows.dtype.kind == "i" else mixed
    return found


def measure(
    build: Callable[[np.ndarray, Distance], Searcher],
    rows: np.ndarray,
    queries: np.ndarray,
    distance: Distance,
    sizes: Sequence[int],
    *,
    k: int,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> SearchGrowth:
    """Build and search at every size.

    Args:
        build: (rows, distance) -> what searches.
        rows: (m, d), which are grown where a size is larger.
        queries: (q, d), of which QUERIES ask, one after the other.
        distance: by which rows are compared.
        sizes: ascending.
        k: neighbours of each query.
        threads: that build.
        seed: of grown rows.
        progress: called with (what, done, total).

    Returns:
        The three growths.
    """
    asked = [queries[row : row + 1] for row in range(min(QUERIES, len(queries)))]
    query_ms, build_s, index_bytes = [], [], []
    everything = grown(rows, sizes[-1], seed)
    for place, size in enumerate(sizes):
        progress(f"search in {size:,} rows", place, len(sizes))
        with pinned(threads):
            started = time.perf_counter()
            search = build(everything[:size], distance)
            build_s.append(max(time.perf_counter() - started, 1e-6))
        with pinned(1):
            spent: list[float] = []
            for turn in range(ROUNDS + 1):
                for one in asked:
                    started = time.perf_counter()
                    search(one, k)
                    if turn:
                        spent.append(time.perf_counter() - started)
        query_ms.append(median(spent) * 1e3)
        index_bytes.append(max(search.bytes, 1))
        let_go(search)
    return SearchGrowth(
        fit(sizes, query_ms, ("n", "log n")),
        fit(sizes, build_s, ("n", "n log n")),
        fit(sizes, index_bytes, ("n",)),
    )


def growths_of(
    base: Method, others: Sequence[Spec], plan: Plan, trial: Trial, grow_to: int, progress: Progress
) -> Iterator[tuple[str, SearchGrowth | BenchError]]:
    """How a method's search grows on its own backend and on others; its rows are made once for all of them.

    Args:
        base: the method.
        others: further backends.
        plan: of the record, with a cache.
        trial: the data of the record.
        grow_to: the largest size.
        progress: called with (what, done, total).

    Returns:
        The name of the method on each backend, with its growth, or with why there is none; as soon as it is measured.
    """
    try:
        pipeline = Pipeline(base, plan.setup, plan.backend)
        if pipeline.unclassifiable is not None or pipeline.steps or pipeline.by_id:
            raise BenchError(f"{base}: only a method of one vector an image, without steps, can be grown")
        both = kept_rows(pipeline, plan, trial, ("gallery", "query"), progress)
    except BenchError as error:
        yield str(base), error
        return
    gallery, queries = (vectors(both[what]) for what in ("gallery", "query"))
    sizes = sizes_up_to(min(grow_to, MOST_BYTES // max(1, gallery[0].nbytes)))
    for backend in (base.backend, *others):
        method = str(replace(base, backend=backend))
        try:
            build = pipeline.builder(backend)
            yield (
                method,
                measure(
                    *(build, gallery, queries, pipeline.distance, sizes),
                    k=max(trial.k),
                    threads=plan.threads,
                    progress=lambda what, done, total, name=method: progress(f"{name}: {what}", done, total),  # type: ignore[misc]
                ),
            )
        except BenchError as error:
            yield method, error
