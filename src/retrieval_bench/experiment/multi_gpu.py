"""Extraction by several processes, one for each GPU: each builds the network for itself and takes shares of the images.

The shares are put together by row, so it does not matter who described what. Starting takes seconds, so few images stay
with the process that asks.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retrieval_bench.core import Extractor, Images, Setup
from retrieval_bench.experiment.describer import MethodDescriber
from retrieval_bench.experiment.extraction import CHUNK, in_chunks
from retrieval_bench.images.decoded_cache import fresh
from retrieval_bench.plugins.loading import files
from retrieval_bench.system.child_process import end_with

LEAST = 2000
"""Images from which on it is worth while to start processes."""
CHUNKS = 4
"""Chunks a thread in a share: large enough to keep its threads busy, small enough for an even finish."""


@dataclass(frozen=True)
class Team:
    """Takes the place of `extraction.in_chunks`. method: as one names it, "resnet50:pool=gem". setup: without a device.

    devices: one process each, "cuda:0", "cuda:1", ...; they divide the threads among themselves.
    """

    method: str
    setup: Setup
    devices: Sequence[str]

    def __call__(
        self, extractor: Extractor, images: Images, rows: Sequence[int], threads: int
    ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """(rows, features) in the order in which they finish; what the extractor has learned goes with each share."""
        if len(rows) < LEAST:
            yield from in_chunks(extractor, images, rows, threads)
            return
        learned = {name: getattr(extractor, name) for name in getattr(extractor, "learned", ())}
        each = max(1, threads // len(self.devices))
        step = getattr(extractor, "chunk", CHUNK) * each * CHUNKS
        step = max(1, min(step, -(-len(rows) // len(self.devices))))
        spawning = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
        devices = spawning.SimpleQueue()
        for device in self.devices:
            devices.put(device)
        beginning = (self.method, replace(self.setup, threads=each), devices, files())
        with ProcessPoolExecutor(len(self.devices), spawning, _begin, beginning) as pool:
            shares = {}
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                shares[pool.submit(_describe, fresh(images).take(some), learned)] = some
            try:
                for done in as_completed(shares):
                    yield shares[done], done.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_mine: dict[str, Any] = {}  # of a worker: its extractor and its threads


def _begin(method: str, setup: Setup, devices: Any, plugins: Sequence[str] = ()) -> None:
    end_with(os.getppid())
    describer = MethodDescriber(method, replace(setup, device=devices.get()), tuple(plugins))
    _mine["describer"], _mine["extractor"], _mine["threads"] = describer, describer.build(), setup.threads


def _describe(images: Images, learned: dict[str, np.ndarray]) -> np.ndarray:
    """Features of these images, row by row."""
    return _mine["describer"].describe(_mine["extractor"], images, learned, _mine["threads"])  # type: ignore[no-any-return]
