"""Approximate indexes against the exact engine: what each costs to build and to hold, and what it finds how fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.agreement import ROUNDING, true_distances
from retrieval_bench.peer_benchmarks.report import digits, ruled
from retrieval_bench.registry import BACKENDS, Spec, parse
from retrieval_bench.search.ann.found_rows import building_shown
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned, release_memory

INDEXES = ("faiss:hnsw", "faiss:ivf", "faiss:ivfpq", "faiss:ivfpq:refine=8", "faiss:sq8:refine=2", "usearch")
SETTINGS: Mapping[str, Sequence[int]] = {"ef": (16, 64, 256), "probes": (4, 16, 64)}
"""Search option -> the values that each index is searched with, where it has that option."""
K = 10
TURN = 25
"""Queries that one searcher answers before it is another's turn."""
NOISE = 0.5
ROWS_OF_A_CLUSTER = 500
WANTED_RECALL, WANTED_SPEED = 0.99, 10.0
"""Of faiss:hnsw: share of the true neighbours, and times as fast as the exact search of one query."""


@dataclass(frozen=True)
class Drawn:
    """gallery: (n, d) and queries: (q, d), float32 of length 1."""

    gallery: np.ndarray
    queries: np.ndarray


@dataclass
class Measured:
    """One index with one way to search it.

    build_s: seconds; None where the row shares an index with the one above. bytes_a_row: of the index.
    recall: of the K nearest, the mean of all queries. one_ms: of each query alone, milliseconds. exact_ms: of the exact
    engine, whose turns lay between. batch_s: seconds of each batch of all queries.
    """

    name: str
    build_s: float | None
    bytes_a_row: float
    recall: float
    one_ms: list[float]
    exact_ms: list[float]
    batch_s: list[float]
    queries: int

    @property
    def times_as_fast(self) -> float:
        """Median of one query of the exact engine over that of this index."""
        return median(self.exact_ms) / median(self.one_ms)

    @property
    def queries_a_second(self) -> float:
        return self.queries / median(self.batch_s)


def drawn(rows: int, dim: int, queries: int, noise: float = NOISE, seed: int = 0) -> Drawn:
    """Clusters of uneven sizes: centres from N(0, 1), rows around them; queries are other members of the same clusters.

    Args:
        rows: of the gallery.
        dim: columns.
        queries: how many are drawn, each from a cluster by its size.
        noise: deviation of a row from its centre, in each column.
        seed: of the drawing.

    Returns:
        Rows of length 1.
    """
    rng = np.random.default_rng(seed)
    clusters = max(1, rows // ROWS_OF_A_CLUSTER)
    centres = rng.standard_normal((clusters, dim), np.float32)
    shares = rng.lognormal(0.0, 1.0, clusters)
    shares /= shares.sum()

    def members(count: int) -> np.ndarray:
        out = np.empty((count, dim), np.float32)
        for first in range(0, count, 65_536):
            part = slice(first, min(first + 65_536, count))
            some = centres[rng.choice(clusters, part.stop - first, p=shares)]
            some += np.float32(noise) * rng.standard_normal(some.shape, np.float32)
            out[part] = some / np.linalg.norm(some, axis=1, keepdims=True)
        return out

    return Drawn(members(rows), members(queries))


def contest(
    indexes: Sequence[str], data: Drawn, *, threads: int, rounds: int, batches: int = 3, progress: Progress = silent
) -> list[Measured]:
    """Build one index after the other, and let it and the exact engine answer in turns.

    Args:
        indexes: backends as they are written, without search options that `SETTINGS` varies.
        data: what is searched for in what.
        threads: of everybody.
        rounds: turns of `TURN` single queries.
        batches: how often all queries are asked in one call.
        progress: is told how far it has come.

    Returns:
        A row for each index and setting; the first is the exact engine itself.

    Raises:
        BenchError: A backend is unknown, or its library is missing.
    """
    BACKENDS.fill()
    specs = [parse(BACKENDS, index) for index in indexes]
    for spec in specs:
        spec.build(data.gallery[:0])  # a library that is missing is told of before an hour has passed
    gallery = data.gallery.view()
    gallery.flags.writeable = False  # so that the engine refers to it
    results = []
    with pinned(threads):
        with Stopwatch() as watch:
            exact = BACKENDS["exact"].build(gallery)
        truth = exact(data.queries, K)
        furthest = true_distances(data.queries, gallery, truth.indices).max(axis=1)
        one = _singles({"exact": exact}, data.queries, rounds, partial(progress, "exact"))
        results.append(
            Measured("exact", watch.seconds, exact.bytes / len(gallery), 1.0, one["exact"], one["exact"],
                     _batches(exact, data.queries, batches), len(data.queries))
        )  # fmt: skip
        for spec in specs:
            progress(f"building {spec}", 0, 0)
            with building_shown(partial(progress, f"building {spec}")):
                index = spec.build(gallery)
            built: float | None = index.build_seconds
            for setting in settings_of(spec):
                searcher = index.with_search_options(**setting) if setting else index
                name = ":".join([str(spec), *(f"{option}={value}" for option, value in setting.items())])
                found = searcher(data.queries, K).indices
                times = _singles(
                    {"it": searcher, "exact": exact}, data.queries, rounds,
                    partial(progress, name),
                )  # fmt: skip
                results.append(
                    Measured(name, built, index.bytes / len(gallery), recall(data, found, furthest), times["it"],
                             times["exact"], _batches(searcher, data.queries, batches), len(data.queries))
                )  # fmt: skip
                built = None
            del index, searcher
            release_memory()
    return results


def settings_of(spec: Spec) -> list[dict[str, int]]:
    """The search options that this index is searched with: one after the other, or none at all."""
    for option, values in SETTINGS.items():
        if option in spec.options:
            return [{}]
        if option in _meaningful(spec):
            return [{option: value} for value in values]
    return [{}]


def _meaningful(spec: Spec) -> set[str]:
    """The search options of this kind of index; an index of nothing knows them."""
    return set(spec.build(np.empty((0, 1), np.float32)).search_options)


def recall(data: Drawn, found: np.ndarray, furthest: np.ndarray) -> float:
    """Of the k nearest, the share that was found; a row as near as the k-th nearest counts as one of them.

    Args:
        data: what was searched for in what.
        found: (q, k) gallery rows, -1 where nothing was found.
        furthest: (q,) true distance of the k-th nearest.

    Returns:
        The mean of all queries.

    Raises:
        BenchError: A row is found twice.
    """
    hits = 0
    for query, rows in enumerate(found):
        rows = rows[rows >= 0]
        if len(np.unique(rows)) < len(rows):
            raise BenchError(f"query {query} finds a row twice")
        near = true_distances(data.queries[query : query + 1], data.gallery, rows[None])[0]
        hits += int((near <= furthest[query] + ROUNDING).sum())
    return hits / found.size


def _singles(searchers: Mapping[str, Any], queries: np.ndarray, rounds: int, progress: Any) -> dict[str, list[float]]:
    """Milliseconds of every query asked alone; the searchers take turns, the first turn of each warms up."""
    times: dict[str, list[float]] = {name: [] for name in searchers}
    for number in range(rounds + 1):
        progress(number, rounds + 1)
        for name, searcher in searchers.items():
            for place in range(TURN):
                query = queries[(number * TURN + place) % len(queries)][None]
                with Stopwatch() as watch:
                    searcher(query, K)
                if number:
                    times[name].append(1000 * watch.seconds)
    return times


def _batches(searcher: Any, queries: np.ndarray, batches: int) -> list[float]:
    seconds = []
    for _ in range(batches):
        with Stopwatch() as watch:
            searcher(queries, K)
        seconds.append(watch.seconds)
    return seconds


def lines(results: Sequence[Measured], rows: int, dim: int, threads: int) -> list[str]:
    """The table, what it shows, and what is to be reached."""
    table = [["index", "build s", "bytes/row", f"recall@{K}", "p50 ms", "exact p50", "x exact", "queries/s"]]
    for one in results:
        table.append(
            [
                one.name,
                digits(one.build_s),
                digits(one.bytes_a_row),
                f"{one.recall:.4f}",
                digits(median(one.one_ms)),
                digits(median(one.exact_ms)),
                digits(one.times_as_fast),
                digits(one.queries_a_second),
            ]
        )
    text = ruled(table)
    singles, queries = len(results[0].one_ms), results[0].queries
    text += [
        "",
        f"{rows:,} x {dim} float32 in clusters, cosine, the {K} nearest; {threads} threads for everybody.",
        f"p50: of {singles} queries asked one at a time, in turns of {TURN} with the exact engine.",
        f"queries/s: {queries:,} queries in one call, the median of {len(results[0].batch_s)}.",
    ]
    if (verdict := target(results)) is not None:
        met, best = verdict
        text.append(
            f"  {'met    ' if met else 'NOT MET'}  faiss:hnsw, recall@{K} >= {WANTED_RECALL} at "
            f">= {WANTED_SPEED:.0f} x exact: {best.name} has {best.recall:.4f} at {digits(best.times_as_fast)} x"
        )
    return text


def target(results: Sequence[Measured]) -> tuple[bool, Measured] | None:
    """Whether a setting of faiss:hnsw has recall and speed as wanted, and the one that comes nearest.

    Args:
        results: as `contest` returns them.

    Returns:
        None where there is no faiss:hnsw.
    """
    graphs = [one for one in results if one.name.startswith("faiss:hnsw")]
    if not graphs:
        return None
    good = [one for one in graphs if one.recall >= WANTED_RECALL]
    best = max(good, key=lambda one: one.times_as_fast) if good else max(graphs, key=lambda one: one.recall)
    return best.recall >= WANTED_RECALL and best.times_as_fast >= WANTED_SPEED, best


def as_data(results: Sequence[Measured], **about: Any) -> dict[str, Any]:
    """For JSON: every sample. about: rows, threads, environment and whatever else belongs to the run."""
    return {**about, "k": K, "turn": TURN, "results": [dict(vars(one)) for one in results]}
