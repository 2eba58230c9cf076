"""A service under load: what it adds to the bare method, how many searches it answers, and whether it stays whole.

The service is a process of its own, as users have it; this process asks, and measures the bare method before.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import encode_png
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.peer_benchmarks.serving_clients import answers_a_second, posted
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.serving.answering.open_indexes import OpenIndex
from retrieval_bench.serving.answering.opening import HowToOpen, open_dataset
from retrieval_bench.serving.client import SearchClient, ServiceRefused
from retrieval_bench.system.cache import FeatureCache, cache_root
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

MOST_OVERHEAD_MS = 5.0
LEAST_THROUGHPUT = 0.9
"""Of the bulk rate, at AT_ONCE searches."""
AT_ONCE = 4
IN_A_TURN = 10
ROUNDS = 3
"""Of bulk and searches in turns."""
_READY = re.compile(r"ready: (http://\S+)")


@dataclass(frozen=True)
class MethodUnderLoad:
    """One method. bare_ms, served_ms: one query at a time, median. bulk, served: pictures a second, in bulk and at
    AT_ONCE searches."""

    method: str
    bare_ms: float
    served_ms: float
    bulk: float
    served: float

    @property
    def overhead_ms(self) -> float:
        return self.served_ms - self.bare_ms

    @property
    def share(self) -> float:
        return self.served / self.bulk


@dataclass
class ParallelSearches:
    """Many clients for a while. ms: of each answered search. refused: by status. mib: of the service, sampled."""

    clients: int
    seconds: float
    ms: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    mib: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.ms) / self.seconds

    def percentile(self, p: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.ms, p)) if self.ms else float("nan")

    @property
    def growth_mib(self) -> float:
        """From the first third of the time, when all is warm, to the last."""
        third = max(1, len(self.mib) // 3)
        return median(self.mib[-third:]) - median(self.mib[third : 2 * third] or self.mib)


@dataclass
class ChangesUnderSearches:
    """Items added and removed while clients search. torn: answers in which two methods saw different items."""

    added: int = 0
    removed: int = 0
    searches: int = 0
    torn: int = 0
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0


@contextlib.contextmanager
def served(arguments: Sequence[str]) -> Iterator[SearchClient]:
    """Run `serve` in a process of its own while the block runs; BenchError where it does not start."""
    command = [sys.executable, "-m", "benchmark", "serve", *arguments, "--port", "0", "--rate", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = _READY.search(process.stdout.readline())
        if found is None:
            raise BenchError(f"the service ended with {process.wait()} before it was ready")
        with contextlib.closing(SearchClient(found[1], timeout=120)) as client:
            yield client
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def one_by_one(
    client: SearchClient, index: OpenIndex, method: IndexedMethod, pictures: Sequence[bytes]
) -> tuple[float, float]:
    """Median milliseconds of one query, without the service and by it, in turns of some: in the same conditions."""
    snapshot = index.stored.snapshot()

    def alone(picture: bytes) -> None:
        snapshot.search(method.name, method.describe([decode(picture)]), 10)

    def asked(picture: bytes) -> None:
        client.search(picture, methods=method.name, joined=False)

    spent: dict[str, list[float]] = {"alone": [], "asked": []}
    with pinned(1):  # as the service describes a picture
        for start in range(0, len(pictures), IN_A_TURN):
            for name, answer in (("alone", alone), ("asked", asked)):
                time.sleep(0.05)  # so that neither begins with what the other left of its share of a busy machine
                answer(pictures[start])
                for picture in pictures[start : start + IN_A_TURN]:
                    began = time.perf_counter()
                    answer(picture)
                    spent[name].append((time.perf_counter() - began) * 1e3)
    return median(spent["alone"]), median(spent["asked"])


def bulk_rate(index: OpenIndex, method: IndexedMethod, pictures: int, threads: int) -> float:
    """Pictures a second, decoded and described in bulk as a run does it."""
    queries = index.queries.take(range(min(pictures, len(index.queries))))
    with pinned(1), Stopwatch() as extracting:
        for part in method.pipeline.parts:
            extract(part.extractor, queries, threads=threads, cache=FeatureCache(None), key="", progress=_unseen)
    return len(queries) / extracting.seconds


def _unseen(done: int, total: int) -> None:
    """Progress that nobody sees."""


def in_parallel(
    client: SearchClient,
    pictures: Sequence[bytes],
    clients: int,
    seconds: float,
    question: dict[str, Any],
    progress: Progress = silent,
) -> ParallelSearches:
    """Search by many clients at once, each again as soon as it is answered; who is refused waits as it is told."""
    result = ParallelSearches(clients, seconds)
    numbers = itertools.count()
    begin = time.perf_counter()
    end = begin + seconds

    def work() -> None:
        while (began := time.perf_counter()) < end:
            try:
                client.search(pictures[next(numbers) % len(pictures)], **question)
                result.ms.append((time.perf_counter() - began) * 1e3)
            except ServiceRefused as refused:
                result.refused[refused.status] += 1
                time.sleep(min(refused.retry_after, max(0.0, end - time.perf_counter())))

    def watch() -> None:
        while (now := time.perf_counter()) < end:
            result.mib.append(memory_mib(client))
            progress("searching", round(now - begin), round(seconds))
            time.sleep(min(1.0, max(0.0, end - time.perf_counter())))

    _threads([work] * clients + [watch])
    result.seconds = time.perf_counter() - begin
    return result


def memory_mib(client: SearchClient) -> float:
    """Resident memory of the service."""
    found = re.search(rb"^retrieval_bench_memory_bytes (\S+)$", client.metrics(), re.M)
    return float(found[1]) / 2**20 if found else float("nan")


def changed_under_searches(
    client: SearchClient,
    pictures: Sequence[bytes],
    clients: int,
    items: int,
    make: Callable[[int], bytes],
    at_once: int = 50,
    progress: Progress = silent,
) -> ChangesUnderSearches:
    """Add items and remove them again while clients search; look at each answer.

    Every method of an index searches in the same state: with k as large as the index, all columns of an answer must
    hold the same items, and an item of a batch is there with all others of it or not at all.
    """
    result = ChangesUnderSearches()
    done = threading.Event()
    batches: dict[str, int] = {}

    def search() -> None:
        numbers = itertools.count()
        while not done.is_set():
            try:
                answer = client.search(pictures[next(numbers) % len(pictures)], k=200, in_id="load/", joined=False)
            except ServiceRefused as refused:
                if refused.status != 503:
                    result.errors.append(str(refused))
                time.sleep(refused.retry_after)
                continue
            result.searches += 1
            seen = [frozenset(hit.id for hit in column.hits) for column in answer.columns]
            sizes = Counter(batches[name] for name in seen[0] if name in batches)
            whole = all(count == at_once for count in sizes.values()) or len(seen[0]) == 200
            result.torn += len(set(seen)) > 1 or not whole

    def change() -> None:
        try:
            for first in range(0, items, at_once):
                names = [f"load/{number}" for number in range(first, first + at_once)]
                batches.update((name, first) for name in names)
                files = [make(number) for number in range(first, first + at_once)]
                added = client.add(files, id=names, label="load", duplicates="add")
                result.added += sum(len(one.items) for one in added.changes)
                result.errors += [one.error for one in added.changes if one.error]
                changes = client.remove(names)
                result.removed += at_once if not any(one.error for one in changes) else 0
                progress("adding and removing", first + at_once, items)
        except ServiceRefused as refused:
            result.errors.append(str(refused))
        finally:
            done.set()

    began = time.perf_counter()
    _threads([search] * clients + [change])
    result.seconds = time.perf_counter() - began
    return result


def _threads(work: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@dataclass(frozen=True)
class LoadFigures:
    """Everything that was measured. changes: None where none were made."""

    methods: tuple[MethodUnderLoad, ...]
    parallel: ParallelSearches
    changes: ChangesUnderSearches | None


def measure(
    dataset: str,
    methods: str,
    root: Path | None,
    queries: int,
    clients: int,
    seconds: float,
    items: int,
    threads: int | None,
    progress: Progress = silent,
) -> LoadFigures:
    """Measure the methods bare, then start the service and load it.

    Args:
        dataset: as on the command line.
        methods: with commas.
        root: of the dataset.
        queries: that are asked one after the other.
        clients: at once, all methods in each search.
        seconds: for which these search.
        items: that are added and removed.
        threads: of the service. None: all cores.
        progress: called often.

    Returns:
        What was found.

    Raises:
        BenchError: The dataset or a method is wrong, or the service does not start.
    """
    workers = threads or usable_cores()
    plan = Plan(
        methods=tuple(parse_method(name.strip()) for name in methods.split(",")),
        dataset=parse(DATASETS, dataset),
        root=root,
        threads=workers,
        cache=FeatureCache(cache_root()),
    )
    opened = open_dataset(plan, HowToOpen(threads=workers, read_only=True), progress)
    (index,) = opened.indexes
    pictures = [index.queries.images.read(row) for row in range(min(queries, len(index.queries)))]
    arguments = ["--dataset", dataset, "--methods", methods, "--threads", str(workers), "--at-once", "128"]
    arguments += [] if root is None else ["--data-root", str(root)]
    rows = []
    gc.freeze()  # as the service does: the clients in this process are to cost little
    with served(arguments) as client, contextlib.closing(index.stored):
        for number, method in enumerate(index.stored.methods):
            progress("measuring methods", number, len(index.stored.methods))
            alone, asked = one_by_one(client, index, method, pictures)
            path = "/search?" + urlencode({"methods": method.name, "joined": "false"})
            requests = [posted(client.address, path, picture, "application/octet-stream") for picture in pictures]
            bulk, rates = [], []
            for _ in range(ROUNDS):
                bulk.append(bulk_rate(index, method, queries, workers))
                rates.append(answers_a_second(client.address, requests, AT_ONCE, min(5.0, seconds)))
            rows.append(MethodUnderLoad(method.name, alone, asked, median(bulk), median(rates)))
        parallel = in_parallel(client, pictures, clients, seconds, {}, progress)
        changes = None
        if items:
            changes = changed_under_searches(client, pictures, 20, items, unlike_others, progress=progress)
    return LoadFigures(tuple(rows), parallel, changes)


def table(figures: LoadFigures) -> list[list[str]]:
    """Of the methods, with heads."""
    heads = ["method", "bare ms", "served ms", "added ms", "bulk/s", f"served/s at {AT_ONCE}", "share"]
    return [
        heads,
        *(
            [
                one.method,
                f"{one.bare_ms:.2f}",
                f"{one.served_ms:.2f}",
                f"{one.overhead_ms:.2f}",
                f"{one.bulk:.1f}",
                f"{one.served:.1f}",
                f"{one.share:.2f}",
            ]
            for one in figures.methods
        ),
    ]


def sentences(figures: LoadFigures) -> list[str]:
    """What else was found, and where a target is missed."""
    own = figures.parallel
    refused = ", ".join(f"{count} answered {status}" for status, count in sorted(own.refused.items())) or "none refused"
    told = []
    told.append(
        f"{own.clients} clients for {own.seconds:.0f} s, all methods in each search: {len(own.ms):,} searches "
        f"({own.rate:.1f}/s), p50 {own.percentile(50):.0f} ms, p99 {own.percentile(99):.0f} ms, {refused}"
    )
    told.append(
        f"memory of the service: {own.mib[-1]:.0f} MiB at the end, {own.growth_mib:+.1f} MiB in the last third"
        if own.mib
        else "memory of the service: not known"
    )
    if (changes := figures.changes) is not None:
        told.append(
            f"{changes.added:,} items added and {changes.removed:,} removed in {changes.seconds:.0f} s beside "
            f"{changes.searches:,} searches of 20 clients: {changes.torn} torn answers, {len(changes.errors)} errors"
        )
        told += changes.errors[:3]
    for one in figures.methods:
        if one.overhead_ms > MOST_OVERHEAD_MS:
            told.append(f"{one.method}: the service adds more than {MOST_OVERHEAD_MS:g} ms")
        if one.share < LEAST_THROUGHPUT:
            told.append(f"{one.method}: less than {LEAST_THROUGHPUT:g} of the bulk rate")
    return told


def is_wrong(figures: LoadFigures) -> bool:
    """Whether anything was answered wrongly, or not at all."""
    errors = [status for status in figures.parallel.refused if status != 503]
    changes = figures.changes
    return bool(errors) or (changes is not None and bool(changes.torn or changes.errors))


def as_data(figures: LoadFigures) -> dict[str, Any]:
    """For JSON."""
    data = asdict(figures)
    data["parallel"] |= {f"p{p}": figures.parallel.percentile(p) for p in (50, 95, 99)}
    return data


def unlike_others(number: int) -> bytes:
    """A picture that is like no other."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
    return encode_png(np.asarray(Image.fromarray(coarse).resize((128, 128), Image.Resampling.BICUBIC)))
