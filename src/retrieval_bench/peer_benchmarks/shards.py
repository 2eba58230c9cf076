"""Exact search by one process, and by workers of Ray on the same cores, in turns: what sharing out costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.distributed.ray_engine import RayEngine
from retrieval_bench.peer_benchmarks.report import disturbance
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.system.other_processes import OtherProcesses
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

WANTED = 1.0
"""Times as fast as one process, with as many threads in all: no loss."""


@dataclass(frozen=True)
class ShardTimes:
    """Seconds of each batch, in the order in which they were measured. setup_s: until the workers hold their shards.

    others: share of the cores that other processes took while the one process searched; None where that was too short.
    """

    one_process_s: list[float]
    workers_s: list[float]
    setup_s: float
    others: float | None

    @property
    def times_as_fast(self) -> float:
        """Median of one process over that of the workers."""
        return median(self.one_process_s) / median(self.workers_s)


def measure_shards(
    rows: int, dim: int, queries: int, k: int, *, workers: int, rounds: int, seed: int = 0, progress: Progress = silent
) -> ShardTimes:
    """Let one process of `workers` threads and as many workers of one thread answer the same batches in turns.

    Args:
        rows: of the gallery, drawn from N(0, 1).
        dim: columns.
        queries: of a batch.
        k: how many rows each query asks for.
        workers: and threads of the one process.
        rounds: batches that are timed; one more warms up.
        seed: of what is drawn.
        progress: is told how far it has come.

    Returns:
        The times.

    Raises:
        BenchError: Ray is not installed, or an answer differs in a byte.
    """
    rng = np.random.default_rng(seed)
    gallery, asked = rng.standard_normal((rows, dim), np.float32), rng.standard_normal((queries, dim), np.float32)
    gallery.flags.writeable = False  # so that the index refers to it
    with pinned(workers):
        one = ExactIndex(gallery)
    engine = RayEngine(f"ray://local?workers={workers}")
    try:
        with Stopwatch() as setup:
            several = engine.sharded(gallery)
        times: tuple[list[float], list[float]] = [], []
        others: list[float] = []
        for number in range(rounds + 1):
            progress("searching in turns", number, rounds + 1)
            with pinned(workers), OtherProcesses() as beside, Stopwatch() as watch:
                expected = one.search(asked, k, threads=workers)
            with Stopwatch() as other:
                found = several.search(asked, k)
            refuse_other_bytes(expected, found)
            if number:
                others += [] if beside.share is None else [beside.share]
                times[0].append(watch.seconds)
                times[1].append(other.seconds)
    finally:
        engine.close()
    return ShardTimes(*times, setup.seconds, median(others) if others else None)


def refuse_other_bytes(expected: Ranking, found: Ranking) -> None:
    """BenchError where two rankings differ in a bit."""
    if expected.indices.tobytes() != found.indices.tobytes():
        raise BenchError("the shards found other rows than one process; this is a fault of the merge")
    if expected.distances.tobytes() != found.distances.tobytes():
        raise BenchError("the shards found other distances than one process; this is a fault of the merge")


def lines(times: ShardTimes, rows: int, dim: int, queries: int, k: int, workers: int) -> list[str]:
    """What was measured, and what was to be reached."""

    def shown(name: str, seconds: Sequence[float]) -> str:
        return (
            f"{name:34} {median(seconds):8.3f} s  {queries / median(seconds):9,.0f} queries/s  "
            f"({min(seconds):.3f} to {max(seconds):.3f})"
        )

    ratio = times.times_as_fast
    shape = f"{rows:,} x {dim} float32, cosine, the {k} nearest of {queries:,} queries in one call"
    return [
        shown(f"one process, {workers} threads", times.one_process_s),
        shown(f"{workers} workers of Ray, 1 thread each", times.workers_s),
        "",
        f"{shape}; medians of {len(times.workers_s)} in turns.",
        f"All bytes are equal. The workers held their shards after {times.setup_s:.1f} s.",
        f"  {'met    ' if ratio >= WANTED else 'NOT MET'}  workers >= {WANTED:.1f} x one process: {ratio:.3f} x",
        *disturbance(times.others),
    ]


def as_data(times: ShardTimes, **about: Any) -> dict[str, Any]:
    """For JSON: every sample. about: the shape, the environment and whatever else belongs to it."""
    return {**about, **vars(times), "times_as_fast": times.times_as_fast}
