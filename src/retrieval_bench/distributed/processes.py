"""Images described by several processes of this machine.

Threads of one process take turns where they hold Python's lock, so with many cores some of them wait. Processes do not;
but each loads the libraries and the method for itself, which takes seconds and memory.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Images, Searcher
from retrieval_bench.distributed.addresses import parsed
from retrieval_bench.distributed.engine import Build, Chunks, WorkerDescriber
from retrieval_bench.distributed.worker import Answer, Worker, value_of
from retrieval_bench.images.decoded_cache import fresh
from retrieval_bench.system.child_process import end_with
from retrieval_bench.system.cores import usable_cores
from retrieval_bench.system.npz import read_arrays
from retrieval_bench.system.timing import steady_allocator

log = logging.getLogger("retrieval_bench")

AHEAD = 2
"""Pieces of the work that are under way for each process: one that it works on, and the next."""
SIZE = 16
"""Images of a piece: few, so that no process waits long for another at the end."""


class ProcessesEngine:
    """Implements `WorkEngine`: processes describe, and this one searches. They start with the first images, and stay.

    Args:
        address: "processes", behind a "?" workers=N and threads=N of each; by default one for each core, of one thread.

    Raises:
        BenchError: The address cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        place = parsed(address)
        self.workers, self._threads = place.workers or usable_cores(), place.threads
        self._pool: ProcessPoolExecutor | None = None

    def chunks(self, describer: WorkerDescriber, key: str, cache: Path | None) -> Chunks | None:
        """Who describes images; see `WorkEngine`."""

        def described(
            extractor: Extractor, images: Images, rows: Sequence[int], threads: int
        ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
            return self._described(describer, extractor, fresh(images), rows)

        return described

    def search(self, gallery: np.ndarray, distance: Distance, build: Build) -> Searcher:
        """The search by this process: its threads hold no lock of Python's."""
        return build(gallery, distance)

    def close(self) -> None:
        """End the processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _described(
        self, describer: WorkerDescriber, extractor: Extractor, images: Images, rows: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        weights, learned = getattr(extractor, "weights", None), _written(extractor)
        under_way: dict[Future[Answer], Sequence[int]] = {}
        try:
            for start in range(0, len(rows), SIZE):
                some = rows[start : start + SIZE]
                under_way[self._submit(describer, images.take(some), learned, weights)] = some
                if len(under_way) >= AHEAD * self.workers:
                    yield from _ready(under_way)
            while under_way:
                yield from _ready(under_way)
        except BrokenProcessPool as error:
            self.close()  # the next method gets new ones
            raise BenchError(
                "a process that described images was ended from outside, perhaps because memory ran out; ask for fewer "
                f"of them than {self.workers}: --engine 'processes?workers=N'. What was described is kept"
            ) from error
        finally:
            wait([one for one in under_way if not one.cancel()])
            learned.unlink()

    def _submit(self, describer: WorkerDescriber, images: Images, learned: Path, weights: Any) -> Future[Answer]:
        if self._pool is None:
            spawning = multiprocessing.get_context("spawn")  # a forked one would share locks of threads that it has not
            self._pool = ProcessPoolExecutor(self.workers, spawning, _begin, (self._threads,))
            log.info("%d processes describe images", self.workers)
        return self._pool.submit(_describe, describer, images, learned, weights)


def _ready(under_way: dict[Future[Answer], Sequence[int]]) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """What is finished, at least one; it is under way no more."""
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for one in done:
        features = value_of(one.result())
        yield under_way.pop(one), features


def _written(extractor: Extractor) -> Path:
    """A file of what the extractor has learned: it may be large, and each process reads it once."""
    learned = {name: getattr(extractor, name) for name in getattr(extractor, "learned", ())}
    handle, path = tempfile.mkstemp(prefix="retrieval_bench-learned-", suffix=".npz")
    with open(handle, "wb") as file:
        np.savez(file, **learned)
    return Path(path)


@functools.lru_cache(1)
def _read(learned: Path) -> Mapping[str, np.ndarray]:
    with learned.open("rb") as file:
        return read_arrays(file)


_mine: list[Worker] = []  # of a process that describes


def _begin(threads: int) -> None:
    end_with(os.getppid())
    steady_allocator()  # as the process that called has it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C asks the process that called, which ends this one
    _mine.append(Worker(threads))


def _describe(describer: WorkerDescriber, images: Images, learned: Path, weights: Any) -> Answer:
    return _mine[0].carry_out("describe", describer, images, _read(learned), weights)
