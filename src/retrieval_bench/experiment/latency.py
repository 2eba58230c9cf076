"""The time pass of one method: single queries one after the other, several at once where asked for, then throughput.

Nothing comes from a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from retrieval_bench.core import BenchError, Ranking, Rows, Setup, Split
from retrieval_bench.experiment.concurrency import concurrent
from retrieval_bench.experiment.extraction import described_items, extract
from retrieval_bench.experiment.quality import QualityResult
from retrieval_bench.images.decoded_cache import fresh
from retrieval_bench.images.screening import pictured_rows
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch, Time, latencies, pinned, waiting

TIMED_QUERIES = 128
"""Queries timed one by one: enough to carry a 99th percentile, few enough that timing costs seconds."""
FRESH_QUERIES = 4
"""Queries whose features are computed anew where they came from the cache, to see that they are the same."""


def measure(
    pipeline: Pipeline,
    found: QualityResult,
    query: Split,
    k: int,
    exclude: np.ndarray | None,
    setup: Setup,
    progress: Progress,
    concurrency: Sequence[int] = (),
    *,
    one_thread: bool = False,
) -> dict[str, Time]:
    """The time pass. Nothing here comes from the cache.

    k: neighbours of each query. exclude: (q,) int64, gallery rows that a query must not find; None for none.
    concurrency: how many queries at once are measured besides one after the other. one_thread: measure the search of
    all queries on one thread, too.
    """
    name = pipeline.name
    if pipeline.truncated:
        return {}  # to look a ranking up is no search
    query = replace(query, images=fresh(query.images))
    able = np.flatnonzero(pictured_rows(query)) if pipeline.looks else np.arange(len(query))
    n = min(TIMED_QUERIES, len(able))
    sample = able[np.random.default_rng(setup.seed).permutation(len(able))[:n]]
    times: dict[str, Time] = {}

    with pinned(setup.threads, 1 if pipeline.serial else None):
        some = sample if hasattr(found.searcher, "queries_at_once") else np.arange(len(query))
        with Stopwatch() as searching:
            found.searcher(found.queries[some], k, None if exclude is None else exclude[some])
        times["search_throughput"] = Time(len(some) / searching.seconds, "queries/s", len(some))
        if one_thread:
            with pinned(1), Stopwatch() as alone:
                found.searcher(found.queries[some], k, None if exclude is None else exclude[some])
            times["search_throughput_1_thread"] = Time(len(some) / alone.seconds, "queries/s", len(some))
        if pipeline.sees_labels:
            return times  # there is nothing to time
        if pipeline.by_id:
            return times | _of_the_search(pipeline, found, sample, k, exclude, setup, progress)

        def decode(item: int) -> tuple[int, np.ndarray | None]:
            row = int(sample[item])
            return row, query.images[row] if pipeline.looks else None

        def describe(decoded: tuple[int, np.ndarray | None]) -> tuple[int, Rows]:
            row, image = decoded
            text = "" if query.texts is None else query.texts[row]
            side = pipeline.sides.query
            return row, pipeline.rows(
                [described_items(part.extractor, part.side(side), [image], [text]) for part in pipeline.parts]
            )

        def find(described: tuple[int, Rows]) -> Ranking:
            row, features = described
            return found.searcher(features, k, None if exclude is None else exclude[row : row + 1])

        _refuse_stale(pipeline, found, [describe(decode(item))[::-1] for item in range(min(n, FRESH_QUERIES))])
        phases: list[tuple[str, Callable]] = [("decode", decode), ("extract", describe), ("search", find)]
        if not pipeline.looks:  # nothing is decoded
            phases[:2] = [("extract", lambda item: describe(decode(item)))]
        times |= latencies(
            phases,
            n,
            progress=lambda done, total: progress(f"{name}: timing", done, total),
            wait=waiting(setup.device),
        )

    def answer(item: int) -> None:
        find(describe(decode(item)))
        waiting(setup.device)()

    times |= concurrent(
        answer,
        n,
        concurrency,
        setup.threads,
        serial=pipeline.serial,
        progress=lambda done, total: progress(f"{name}: several queries at once", done, total),
    )
    with pinned(1), Stopwatch() as extracting:
        for part in pipeline.parts:
            extract(
                part.extractor,
                query.take(sample),
                threads=setup.threads,
                cache=FeatureCache(None),
                key="",
                progress=lambda done, total: progress(f"{name}: throughput", done, total),
                side=part.side(pipeline.sides.query),
            )
    times["extract_throughput"] = Time(n / extracting.seconds, "images/s" if pipeline.looks else "texts/s", n)
    return times


def _of_the_search(
    pipeline: Pipeline,
    found: QualityResult,
    sample: np.ndarray,
    k: int,
    exclude: np.ndarray | None,
    setup: Setup,
    progress: Progress,
) -> dict[str, Time]:
    """Percentiles of searching for one query, where nobody knows what its features cost. sample: rows of queries."""

    def find(item: int) -> Ranking:
        row = int(sample[item])
        return found.searcher(found.queries[row : row + 1], k, None if exclude is None else exclude[row : row + 1])

    times = latencies(
        (("search", find),),
        len(sample),
        progress=lambda done, total: progress(f"{pipeline.name}: timing", done, total),
        wait=waiting(setup.device),
    )
    return {name: time for name, time in times.items() if not name.startswith("end_to_end")}


def _refuse_stale(pipeline: Pipeline, found: QualityResult, described: list[tuple[Rows, int]]) -> None:
    """Features that came from the cache are what would be computed now; described: fresh ones and their rows.

    Room for the last bits, in which a network's rows may depend on what stood beside them; none for bit codes.
    """
    if found.features is None or not found.features.from_cache:
        return
    for features, row in described:
        kept = found.queries[row : row + 1]
        pairs = (
            [(features, kept)]
            if isinstance(features, np.ndarray) and isinstance(kept, np.ndarray)
            else [(array, kept.arrays[name]) for name, array in features.arrays.items()]  # type: ignore[union-attr]
        )
        for fresh_one, stored in pairs:
            if fresh_one.dtype == object:
                continue  # words, which no cache keeps
            scale = float(np.abs(fresh_one).max(initial=0))
            room = 0.0 if fresh_one.dtype == np.uint8 else 0.01 * scale
            if not np.allclose(fresh_one, stored, rtol=0, atol=room):
                raise BenchError(
                    f"{pipeline.name}: its features in the cache are not those that it computes now; "
                    "run with --recompute, or remove the cache"
                )
