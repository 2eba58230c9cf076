"""How far ahead of their use panels are fetched from memory: measured once on each machine, as processors differ in it.

Some wait for memory where it is not asked for 16 KB ahead. On others that is in the way of their own prediction, and a
single query reads an eighth to a third faster at 512 bytes. What is found is kept beside the compiled kernels, and is a
part of their names. It changes how long a search takes, and no bit of what it finds.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from retrieval_bench.search import jit
from retrieval_bench.search.caches import caches
from retrieval_bench.search.emit import PANEL, Kernel, Loop, cpu_features
from retrieval_bench.search.scan_loops import bits_loop, products_loop
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.sealed import SealedFolder

log = logging.getLogger("retrieval_bench")

VARIABLE = "RETRIEVAL_BENCH_FETCH_AHEAD"  # "usual": take the distances that were good on the machines at hand
DISTANCES = (256, 512, 768, 1024, 2048, 4096, 16384)
MEMORY = 64 << 20  # bytes that are read in each round: more than most caches hold
ROUNDS = 7  # of which the quickest counts: others may be using the processor
GAIN = 1.02  # times as quick as the usual distance another one must be

DIM, WORDS = 512, 4  # columns of the vectors, and words of the bits, that are scanned for nothing


class LoopTrial(NamedTuple):
    """A loop whose last argument is the distance in bytes, its other arguments, and the arrays they point into."""

    loop: Loop
    arguments: Sequence[int]
    arrays: Sequence[np.ndarray]


def kernel_here(kernel: Kernel) -> Kernel:
    """The kernel with the distances of this machine."""
    if kernel.lanes == 1 or not cpu_features().issuperset(kernel.needs) or not _wanted():
        return kernel
    key = kernel.name, cache_root()
    if key not in _kernels:
        with jit.announced():
            block = kernel.blocks[-1]
            _kernels[key] = replace(
                kernel,
                ahead=measured(f"{kernel.name}-block", kernel.ahead, lambda: _products(kernel, block, 1)),
                ahead_few=measured(f"{kernel.name}-few", kernel.ahead_few, lambda: _products(kernel, 1, kernel.side)),
                ahead_bits=measured(f"{kernel.name}-bits", kernel.ahead_bits, lambda: _bits(kernel)),
            )
    return _kernels[key]


_kernels: dict[tuple[str, Path], Kernel] = {}


def measured(name: str, usual: int, trial: Callable[[], LoopTrial]) -> int:
    """The quickest of DISTANCES and the usual one, as kept on disk or else as measured now.

    trial: makes what is measured; called where nothing is kept.
    """
    if not _wanted():
        return usual
    folder, file = _folder(cache_root()), f"ahead-{name}-{_machine()}.json"
    kept = folder.read(file)
    if kept is not None:
        return int(json.loads(kept))
    what = trial()
    run = _compiled(what.loop)
    times: dict[int, list[float]] = {distance: [] for distance in sorted({usual, *DISTANCES})}
    for _ in range(ROUNDS):
        for distance, some in times.items():
            begin = time.perf_counter()
            run((*what.arguments, distance))
            some.append(time.perf_counter() - begin)
    best = min(times, key=lambda distance: min(times[distance]))
    if min(times[usual]) < GAIN * min(times[best]):
        best = usual
    log.debug("%s: %s bytes ahead; seconds at each distance: %s", name, best, times)
    folder.write(file, json.dumps(best).encode())
    return best


def _wanted() -> bool:
    return os.environ.get(VARIABLE, "") != "usual"


@functools.cache
def _folder(root: Path) -> SealedFolder:
    """One a process, so that what is wrong with it is told once."""
    return SealedFolder(root / "kernels" / "ahead", "it is measured again")


@functools.cache
def _machine() -> str:
    """Tells processors apart that one home directory may meet."""
    parts = llvmlite.binding.get_host_cpu_name(), str(caches()), str(os.cpu_count())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _compiled(loop: Loop) -> Any:
    """The loop as a function of one tuple of whole numbers."""

    @intrinsic
    def call(context, values):  # type: ignore[no-untyped-def]
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return loop.call(builder, cgutils.unpack_tuple(builder, arguments[0]))

        return types.int64(values), code

    @jit.part(loop.name)
    def run(values):  # type: ignore[no-untyped-def]
        return call(values)

    run.compile((types.UniTuple(types.int64, len(loop.arguments)),))
    return run


def memory() -> np.ndarray:
    """MEMORY bytes that are there: zeros would all be one page, which stays in the cache."""
    return np.full(MEMORY // 4, 0.5, np.float32)


def _products(kernel: Kernel, queries: int, side: int) -> LoopTrial:
    loop = products_loop(kernel, queries, side, measured=True)
    panels = memory()
    count = len(panels) // (DIM * PANEL) // side * side
    gates = np.full(queries, np.inf, np.float32)  # nothing passes
    block, bias = np.ones((DIM, queries), np.float32), np.zeros(PANEL, np.float32)
    tile, masks = np.empty((queries * side, PANEL), np.float32), np.empty(queries * side + 1, np.uint64)
    arrays = block, panels, bias, gates, tile, masks
    return LoopTrial(loop, (*addresses(arrays), DIM, 0, count, 0), arrays)


def _bits(kernel: Kernel) -> LoopTrial:
    side = kernel.bits_side
    loop = bits_loop(kernel, 1, side, measured=True)
    panels = memory()
    count = panels.nbytes // (8 * WORDS * PANEL) // side * side
    block, gates = np.ones((WORDS, 1), np.uint64), np.zeros(1, np.int64)
    tile, masks = np.empty((side, PANEL), np.int64), np.empty(side + 1, np.uint64)
    arrays = block, panels, gates, tile, masks
    return LoopTrial(loop, (*addresses(arrays), WORDS, 0, count), arrays)


def addresses(arrays: Sequence[np.ndarray]) -> list[int]:
    return [array.ctypes.data for array in arrays]
