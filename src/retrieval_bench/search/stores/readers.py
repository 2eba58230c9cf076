"""Readers beside a writer: do searches fail while rows come in, and what do they take?"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.search.stores.lance import LanceStore
from retrieval_bench.search.stores.pgvector import PgvectorStore

READERS = 4
BATCH = 100


@dataclass(frozen=True)
class ReadersResult:
    """What readers met.

    Attributes:
        searches: how many were made by all readers.
        errors: of these, those that failed or found fewer rows than were asked for.
        first_error: what the first one said; "" where there was none.
        p50_ms: median of one search; None where none succeeded.
        written_per_s: rows that the writer inserted meanwhile, a second.
    """

    searches: int
    errors: int
    first_error: str
    p50_ms: float | None
    written_per_s: float


def readers_beside_writer(
    store: PgvectorStore | LanceStore, queries: np.ndarray, k: int, more: np.ndarray, first_id: int, seconds: float
) -> ReadersResult:
    """Search by some threads, each with a connection of its own, while one inserts rows and index entries.

    Args:
        store: holds rows and its index.
        queries: (q, d), asked one by one, in turns.
        k: how many rows are asked for.
        more: (n, d) rows that are inserted, from the start again when all are in.
        first_id: where their ids begin.
        seconds: how long.

    Returns:
        What the readers met.
    """
    until = time.monotonic() + seconds
    samples: list[int] = []
    failures: list[str] = []
    written = 0

    def read(number: int) -> None:
        mine = store.reconnected()
        row = number
        while time.monotonic() < until:
            started = time.perf_counter_ns()
            try:
                found = mine.search(queries[row % len(queries)][None], k)
            except BenchError as error:
                failures.append(str(error))
            else:
                samples.append(time.perf_counter_ns() - started)
                if (found.ids < 0).any():
                    failures.append(f"{int((found.ids >= 0).sum())} of {k} rows found")
            row += READERS
        mine.disconnect()

    threads = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(READERS)]
    writer = store.reconnected()
    for thread in threads:
        thread.start()
    started = time.monotonic()
    try:
        while time.monotonic() < until:
            rows = more[np.arange(written, written + BATCH) % len(more)]
            ids = np.arange(first_id + written, first_id + written + BATCH)
            writer.insert(ids, rows, dict.fromkeys(store.attributes, ids % 100))
            written += BATCH
    finally:
        took = time.monotonic() - started
        for thread in threads:
            thread.join()
        writer.disconnect()
    p50 = float(np.median(samples)) / 1e6 if samples else None
    return ReadersResult(
        len(samples) + len(failures), len(failures), failures[0] if failures else "", p50, written / took
    )
