"""The trial of a store: what it finds, what it takes, and what is left after its process was killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.registry import BACKENDS, Spec, parse
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.stores import lance, pgvector
from retrieval_bench.search.stores.durability import Durability, durability
from retrieval_bench.search.stores.lance import LanceStore
from retrieval_bench.search.stores.pgvector import PgvectorStore, raw_client
from retrieval_bench.search.stores.readers import ReadersResult, readers_beside_writer
from retrieval_bench.search.stores.store import Nearby, Where, check_vectors
from retrieval_bench.system.progress import Progress, silent

SHARES = (50, 10, 1)
"""Percent of the rows that a filter keeps."""
BATCH = 1_000
"""Rows of one insert: one transaction, acknowledged together."""
STORES: Mapping[str, Callable[..., PgvectorStore | LanceStore]] = {
    "pgvector": pgvector.open_store,
    "lancedb": lance.open_store,
}
"""Backend -> what opens an empty store with its options."""
_WEAKER: Mapping[str, Mapping[str, Any]] = {"pgvector": {"iterative": "off"}}
"""Backend -> options of a search that filters starve, shown beside those that were asked for."""
_DELETED = 0.2
_READ_S = 4.0
_WARM_UP = 10
_ATTRIBUTE = "bucket"


@dataclass(frozen=True)
class TrialData:
    """What every store of a trial gets.

    Args:
        gallery: (n, d) float32, or (n, bytes) uint8 codes for hamming; at least 1,000 rows.
        queries: (q, d), as the gallery.
        distance: what is computed.
        k: how many rows are asked for.
        seed: of the rows that are deleted, and of the attribute that filters look at.
    """

    gallery: np.ndarray
    queries: np.ndarray
    distance: Distance = "cosine"
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.gallery) < 1_000:
            raise BenchError(f"a trial needs at least 1,000 rows, and there are {len(self.gallery):,}; raise --n")
        if len(self.queries) < 2:
            raise BenchError(f"a trial needs at least 2 queries, and there are {len(self.queries)}; raise --queries")
        check_vectors("gallery", self.gallery, self.distance)
        check_vectors("queries", self.queries, self.distance, self.gallery.shape[1])


@dataclass
class StoreResult:
    """What one store showed; None where that was not measured.

    Attributes:
        store: its name with options.
        insert_rows_s: rows inserted a second, in batches, before there is an index.
        index_s: seconds to build the index.
        bytes_per_row: on disk, rows and index.
        p50_ms: one query at a time.
        p95_ms: likewise.
        recall: share of the k nearest that is found.
        filtered: name of the search -> percent kept by the filter -> recall among the rows that are kept.
        recall_reinserted: recall after a fifth was deleted and inserted again.
        over_raw: median time over that of the same SQL by psycopg alone, in turns.
        readers: searches beside a writer.
        durability: what was left after a kill.
        failed: why it could not go on; "" where it could.
    """

    store: str
    insert_rows_s: float | None = None
    index_s: float | None = None
    bytes_per_row: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    recall: float | None = None
    filtered: dict[str, dict[int, float]] = field(default_factory=dict)
    recall_reinserted: float | None = None
    over_raw: float | None = None
    readers: ReadersResult | None = None
    durability: Durability | None = None
    failed: str = ""

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Truth:
    """What our exact engine finds, among all rows or those that a filter keeps."""

    def __init__(self, data: TrialData) -> None:
        self._data = data
        n = len(data.gallery)
        self.bucket = np.random.default_rng([data.seed, 1]).permutation(n) % 100
        self._known: dict[int, Nearby] = {}

    def nearest(self, share: int) -> Nearby:
        """The k nearest rows among those whose bucket lies below `share`."""
        if share not in self._known:
            rows = np.flatnonzero(self.bucket < share)
            index = ExactIndex(self._data.gallery[rows], self._data.distance)
            found = index.search(self._data.queries, self._data.k)
            ids = np.where(found.indices >= 0, rows[found.indices], -1)
            self._known[share] = Nearby(ids, found.distances)
        return self._known[share]

    def recall(self, found: Nearby, share: int) -> float:
        """Which part of the nearest rows was found; of codes, rows as near as the last one count, too."""
        truth = self.nearest(share)
        wanted = (truth.ids >= 0).sum(axis=1)
        if self._data.distance == "hamming":
            last = np.where(np.isfinite(truth.distances), truth.distances, -1).max(axis=1, keepdims=True)
            hits = ((found.ids >= 0) & (found.distances <= last)).sum(axis=1)
        else:
            hits = ((found.ids[:, :, None] == truth.ids[:, None, :]) & (found.ids >= 0)[:, :, None]).sum(axis=(1, 2))
        return float(np.minimum(hits, wanted).sum() / max(1, wanted.sum()))


def parse_stores(text: str) -> list[Spec]:
    """The stores that a list names, as `pgvector:hnsw,lancedb:exact`; BenchError for what is no store."""
    specs = [parse(BACKENDS, one) for one in text.split(",") if one.strip()]
    if not specs:
        raise BenchError("--stores names none; write for example pgvector:hnsw,pgvector:exact")
    for spec in specs:
        if spec.entry.name not in STORES:
            raise BenchError(f"{spec.entry.name} is no store; stores are {', '.join(sorted(STORES))}")
    return specs


def try_stores(specs: Sequence[Spec], data: TrialData, dsn: str = "", progress: Progress = silent) -> list[StoreResult]:
    """Put each store through the trial, one after the other.

    Args:
        specs: as `parse_stores` returns them.
        data: what they get.
        dsn: server of `pgvector`; "" for the environment's, or one of our own.
        progress: told of each step.

    Returns:
        A result for each; one that fails says why, and the others go on.

    Raises:
        BenchError: All failed; the sentence is that of the first.
    """
    truth, results = Truth(data), []
    for spec in specs:
        result = StoreResult(str(spec))
        options = dict(spec.resolved)
        if "dsn" in options and dsn:
            options["dsn"] = dsn
        try:
            store = STORES[spec.entry.name](data.gallery.shape[1], data.distance, (_ATTRIBUTE,), **options)
            try:
                _measure(store, spec, data, truth, result, progress)
            finally:
                store.close()
        except BenchError as error:
            result.failed = str(error)
        results.append(result)
    if all(result.failed for result in results):
        raise BenchError(results[0].failed)
    return results


def _measure(
    store: PgvectorStore | LanceStore, spec: Spec, data: TrialData, truth: Truth, result: StoreResult, told: Progress
) -> None:
    n, k, queries = len(data.gallery), data.k, data.queries
    result.insert_rows_s = n / _insert(store, np.arange(n), data, truth, lambda done: told(f"{spec}: insert", done, n))
    told(f"{spec}: index", 0, 0)
    result.index_s = store.build_index()
    result.bytes_per_row = store.disk_bytes() / n
    found, times = _asked_one_by_one(store, queries, k, lambda done: told(f"{spec}: search", done, len(queries)))
    result.p50_ms, result.p95_ms = (float(np.percentile(times, p)) / 1e6 for p in (50, 95))
    result.recall = truth.recall(found, 100)
    if isinstance(store, PgvectorStore):
        told(f"{spec}: raw SQL", 0, 0)
        result.over_raw = _over_raw(store, queries, k)
    variants = {"": store}
    weaker = _WEAKER.get(spec.entry.name, {})
    if weaker and spec.resolved["kind"] != "exact" and not weaker.items() <= spec.resolved.items():
        words = ":".join(f"{name}={value}" for name, value in weaker.items())
        variants[words] = store.with_search_options(**weaker)
    for words, variant in variants.items():
        name = f"{spec}:{words}" if words else str(spec)
        result.filtered[name] = {}
        for at, share in enumerate(SHARES):
            told(f"{name}: filters", at, len(SHARES))
            where: Where = {_ATTRIBUTE: (0, share - 1)}
            result.filtered[name][share] = truth.recall(variant.search(queries, k, where), share)
    gone = np.sort(np.random.default_rng([data.seed, 2]).choice(n, int(_DELETED * n), replace=False))
    told(f"{spec}: delete and insert again", 0, 0)
    store.delete(gone)
    _insert(store, gone, data, truth, lambda done: told(f"{spec}: delete and insert again", done, len(gone)))
    result.recall_reinserted = truth.recall(store.search(queries, k), 100)
    told(f"{spec}: readers beside a writer", 0, 0)
    result.readers = readers_beside_writer(store, queries, k, data.gallery[:5_000], n, _READ_S)
    told(f"{spec}: killed while it inserts", 0, 0)
    result.durability = durability(store, 10 * n + 1_000_000)


def _insert(store: Any, ids: np.ndarray, data: TrialData, truth: Truth, told: Any) -> float:
    """Insert rows in batches -> seconds."""
    seconds = 0.0
    for first in range(0, len(ids), BATCH):
        some = ids[first : first + BATCH]
        rows = data.gallery[some]
        started = time.perf_counter()
        store.insert(some, rows, {_ATTRIBUTE: truth.bucket[some]})
        seconds += time.perf_counter() - started
        told(first + len(some))
    return seconds


def _asked_one_by_one(store: Any, queries: np.ndarray, k: int, told: Any) -> tuple[Nearby, list[int]]:
    for query in queries[:_WARM_UP]:
        store.search(query[None], k)
    found, times = [], []
    for row, query in enumerate(queries):
        started = time.perf_counter_ns()
        found.append(store.search(query[None], k))
        times.append(time.perf_counter_ns() - started)
        told(row + 1)
    return Nearby(np.concatenate([f.ids for f in found]), np.concatenate([f.distances for f in found])), times


def _over_raw(store: PgvectorStore, queries: np.ndarray, k: int) -> float:
    """Median of our search over that of raw SQL, the two in turns, each first every other time."""
    ours: list[int] = []
    theirs: list[int] = []
    with raw_client(store, k) as ask:
        both = ((lambda query: store.search(query[None], k), ours), (ask, theirs))
        for turn, query in enumerate((*queries[:_WARM_UP], *queries, *queries, *queries, *queries)):
            for search, times in both if turn % 2 else both[::-1]:
                started = time.perf_counter_ns()
                search(query)
                if turn >= _WARM_UP:
                    times.append(time.perf_counter_ns() - started)
    return float(np.median(ours) / np.median(theirs))
