"""The only clock: latencies with percentiles, thread pools pinned and read back, peak memory.

Measured like an instrument: warm-up first, `perf_counter_ns`, and a percentile is given only where the number of
samples carries it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
from threadpoolctl import ThreadpoolController

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Time:
    """One measured figure. value None means "n/a": n samples cannot carry it."""

    value: float | None
    unit: str
    n: int | None = None


class Stopwatch:
    """`with Stopwatch() as watch: ...` then `watch.seconds`."""

    seconds: float = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = (time.perf_counter_ns() - self._start) / 1e9


class EventStopwatch(Stopwatch):
    """The same by a GPU's own clock: what it was given on the current stream, from the first to the last of it."""

    def __init__(self, device: str) -> None:
        self._device = device

    def __enter__(self) -> Stopwatch:
        import torch

        torch.cuda.synchronize(self._device)  # what came before does not count
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        self._events[0].record()
        return self

    def __exit__(self, *exc: object) -> None:
        first, last = self._events
        last.record()
        last.synchronize()
        self.seconds = first.elapsed_time(last) / 1e3


def stopwatch(device: str = "cpu") -> Stopwatch:
    """For work that is done on this device: "cpu", "cuda" or "cuda:1"."""
    return Stopwatch() if device == "cpu" else EventStopwatch(device)


def waiting(device: str) -> Callable[[], None]:
    """Returns when the device has done all that it was given: Python goes on while a GPU works. Nothing on the CPU."""
    if device == "cpu":
        return lambda: None
    import torch

    return functools.partial(torch.cuda.synchronize, device)


def concurrency_name(at_once: int) -> str:
    """What the times of this many queries at once are called, before `_p50` and `_throughput`."""
    return f"concurrency_{at_once}"


def percentiles(name: str, samples_ns: Sequence[int]) -> dict[str, Time]:
    """{"<name>_p50": Time(ms), ...}: the p-th percentile needs at least one sample beyond it, n (1 - p) >= 1."""
    n = len(samples_ns)
    times = {}
    for p in PERCENTILES:
        carried = n * (100 - p) >= 100
        value = float(np.percentile(samples_ns, p)) / 1e6 if carried else None
        times[f"{name}_p{p}"] = Time(value, "ms", n)
    return times


def latencies(
    phases: Sequence[tuple[str, Callable]],
    n: int,
    *,
    warm_up: int = 3,
    budget_s: float = 8.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    wait: Callable[[], None] = lambda: None,
) -> dict[str, Time]:
    """Walk items 0..n-1 one at a time through all phases; percentiles of each phase and of the whole, end to end.

    phases: (name, function) pairs; the first function takes the item's number, each next one what the last returned.
    budget_s: stop early after this many seconds, so that a slow method costs no more; n in the result says how far.
    progress: called between items, outside of what is timed.
    wait: called before each look at the clock, for work that goes on elsewhere (`waiting`).
    """

    def walk(item: int) -> list[int]:
        wait()
        ticks = [time.perf_counter_ns()]
        value: object = item
        for _, phase in phases:
            value = phase(value)
            wait()
            ticks.append(time.perf_counter_ns())
        return ticks

    for item in range(min(warm_up, n)):
        walk(item)
    spans: list[list[int]] = []
    start = time.perf_counter_ns()
    for item in range(n):
        spans.append(walk(item))
        progress(item + 1, n)
        if time.perf_counter_ns() - start > budget_s * 1e9:
            break
    ticks = np.asarray(spans, np.int64).reshape(-1, len(phases) + 1)
    times: dict[str, Time] = {}
    for column, (name, _) in enumerate(phases):
        times |= percentiles(name, (ticks[:, column + 1] - ticks[:, column]).tolist())
    return times | percentiles("end_to_end", (ticks[:, -1] - ticks[:, 0]).tolist())


@contextlib.contextmanager
def pinned(threads: int, small: int | None = None) -> Iterator[dict[str, int]]:
    """Set BLAS, OpenMP, torch, Numba and OpenCV to `threads`, yield what each reads back, restore them all after.

    small: for BLAS and OpenCV, where their share of the work is too small to be divided. A library that is not loaded
    yet is left alone: it is neither imported nor pinned here.
    """
    if threads < 1:
        raise ValueError(f"threads={threads}")
    numba, cv2, torch = (sys.modules.get(name) for name in ("numba", "cv2", "torch"))
    before: list[Callable[[], object]] = []
    small = threads if small is None else small
    with _pools().limit(limits={"blas": small, "openmp": threads}):
        try:
            if numba is not None:
                was = numba.get_num_threads()
                before.append(lambda: numba.set_num_threads(was))
                numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
            if cv2 is not None:
                cv2_was = cv2.getNumThreads()
                before.append(lambda: cv2.setNumThreads(cv2_was))
                cv2.setNumThreads(small)
            if torch is not None:
                torch_was = torch.get_num_threads()
                before.append(lambda: torch.set_num_threads(torch_was))
                torch.set_num_threads(threads)
            yield thread_counts()
        finally:
            for restore in before:
                restore()


_found: tuple[tuple[int, str], ThreadpoolController] | None = None


def _pools() -> ThreadpoolController:
    """The thread pools of the loaded libraries. To look for them takes 5 to 15 ms, so that is done again only where a
    module was imported since."""
    global _found
    loaded = (len(sys.modules), next(reversed(sys.modules)))
    if _found is None or _found[0] != loaded:
        _found = (loaded, ThreadpoolController())
    return _found[1]


def thread_counts() -> dict[str, int]:
    """Thread-pool sizes as the loaded libraries report them."""
    counts: dict[str, int] = {}
    for pool in _pools().info():
        name = f"{pool['user_api']}:{pool['prefix']}"
        counts[name] = max(counts.get(name, 0), pool["num_threads"])
    numba, cv2, torch = (sys.modules.get(name) for name in ("numba", "cv2", "torch"))
    if numba is not None:
        counts["numba"] = numba.get_num_threads()
    if cv2 is not None:
        counts["opencv"] = cv2.getNumThreads()
    if torch is not None:
        counts["torch"] = torch.get_num_threads()
    return dict(sorted(counts.items()))


def steady_allocator() -> str:
    """Fix the thresholds of glibc's malloc for the life of this process; says what is so now, for the record.

    Left alone, glibc moves them with what it has seen freed, and whether a large array costs page faults then depends
    on what ran before: the same extraction took 1.2 ms or 0.4 ms by its place in the line-up.
    """
    libc = _glibc()
    if libc is None:
        return "as the system sets it"
    # From malloc.h: M_TRIM_THRESHOLD is -1, M_MMAP_THRESHOLD is -3; 32 MiB is the most that the latter takes.
    fixed = libc.mallopt(-3, 32 * 2**20) and libc.mallopt(-1, 256 * 2**20)
    return "glibc, thresholds fixed" if fixed else "glibc, as the system sets it"


def release_memory() -> None:
    """Give freed memory back to the system, so that one method does not start with what another left."""
    gc.collect()
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


class PeakMemory:
    """Highest resident set of this process while the block runs, sampled: `with PeakMemory() as memory: ...`.

    mib: the peak; added_mib: the peak above what the process held when the block began. Sampled rather than read from
    getrusage, whose maximum covers the whole life of the process.
    """

    def __init__(self, every_s: float = 0.02) -> None:
        self._every_s = every_s
        self._process = psutil.Process()
        self._peak = 0
        self._before = 0
        self._stop = threading.Event()

    @property
    def added_mib(self) -> float:
        return (self._peak - self._before) / 2**20

    @property
    def mib(self) -> float:
        return self._peak / 2**20

    def _sample(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            self._sample()

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._before = self._peak
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
