"""What this machine can do at best: multiply-adds that wait for nothing, and memory read from end to end.

The peaks are measured, not looked up: a processor's data sheet knows neither the clock under load nor what the
neighbours of a virtual machine take. They run in the same rounds and on as many threads as the searches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.search.threads import on_threads
from retrieval_bench.system.timing import Stopwatch

# A fused multiply-add takes four or five cycles and two begin in each: eight to ten sums must be under way at once.
# Twelve fit into the sixteen registers of AVX2 too, beside the two constants.
CHAINS = 12
WIDTHS = (16, 8, 4)  # lanes of float32 in an AVX-512, an AVX2 and a NEON or SSE register
STEPS = 6_000_000  # about 10 ms at 4 GHz

READ_BYTES = 512 << 20  # far beyond any cache, and not so long that a round takes noticeable time
READ_STREAMS = 4  # stretches that a thread walks along at once: more memory pages in flight than along a single one


@dataclass(frozen=True)
class Peaks:
    """Each call measures once: floating-point operations, and bytes, a second over all threads."""

    flops: Callable[[], float]
    read: Callable[[], float]


@functools.cache
def peaks(threads: int) -> Peaks:
    """Compiles, takes the fastest vector width, and keeps 512 MiB of memory for the rest of the process."""
    stretches = np.array_split(np.ones(READ_BYTES // 8, np.uint64), threads)

    def rate(amount: int, work: Callable[[Any], object], parts: Sequence[Any]) -> float:
        with Stopwatch() as watch:
            on_threads([functools.partial(work, part) for part in parts])
        return amount / watch.seconds

    def multiply(width: int) -> float:
        return rate(2 * width * CHAINS * STEPS * threads, emitted_multiply_adds(width), [STEPS] * threads)

    def read() -> float:
        return rate(READ_BYTES, read_all, stretches)

    for width in WIDTHS:
        multiply(width)  # compiles
    read()
    fastest = max(WIDTHS, key=lambda width: max(multiply(width) for _ in range(3)))
    return Peaks(lambda: multiply(fastest), read)


def plain_multiply_adds(width: int, steps: int) -> np.ndarray:
    """CHAINS x width sums that know nothing of each other: (CHAINS, width) float32 after `steps` steps.

    The obvious twin of `emitted_multiply_adds`, and what its result is tested against. Each value moves halfway to 0.5,
    so that it neither grows nor becomes so small that the processor slows down.
    """
    sums = np.repeat(np.arange(CHAINS, dtype=np.float32)[:, None], width, axis=1)
    for _ in range(steps):
        for chain in range(CHAINS):
            sums[chain] = np.float32(0.5) * sums[chain] + np.float32(0.25)
    return sums


@functools.cache
def emitted_multiply_adds(width: int) -> Callable[[int], float]:
    """steps -> the sum over the chains of `plain_multiply_adds(width, steps)[:, 0]`, at full speed.

    Written in LLVM's language because left to itself the compiler keeps the sums in memory between steps. One loop;
    each chain is a variable of `width` lanes (a `phi`: its start before the first step, then what the last step made of
    it) and becomes one register; a step is one fused multiply-add per chain.
    """
    lane, count = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(lane, width)

    def all_lanes(value: float) -> ir.Constant:
        return ir.Constant(vector, [ir.Constant(lane, value)] * width)

    @intrinsic
    def run(_typing: Any, _steps: Any) -> tuple[Any, Callable]:
        def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            name = f"llvm.fma.v{width}f32"
            fma = builder.module.globals.get(name) or ir.Function(
                builder.module, ir.FunctionType(vector, [vector] * 3), name
            )
            before, loop, after = builder.block, builder.append_basic_block("step"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            done = builder.phi(count)
            chains = [builder.phi(vector) for _ in range(CHAINS)]
            moved = [builder.call(fma, [all_lanes(0.5), chain, all_lanes(0.25)]) for chain in chains]
            done_now = builder.add(done, ir.Constant(count, 1))
            done.add_incoming(ir.Constant(count, 0), before)
            done.add_incoming(done_now, loop)
            for number, (chain, new) in enumerate(zip(chains, moved, strict=True)):
                chain.add_incoming(all_lanes(float(number)), before)
                chain.add_incoming(new, loop)
            builder.cbranch(builder.icmp_signed("<", done_now, arguments[0]), loop, after)
            builder.position_at_end(after)
            total = moved[0]
            for chain in moved[1:]:  # every chain is used, so none may be left out
                total = builder.fadd(total, chain)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return types.float32(types.int64), emit

    @numba.njit(nogil=True)
    def multiply_adds(steps: int) -> float:
        return run(steps)

    return multiply_adds


@numba.njit(nogil=True)
def read_all(words: np.ndarray) -> np.uint64:
    """Exclusive or of all words of a uint64 array: nothing to wait for but the memory."""
    size = len(words) // READ_STREAMS
    total = np.uint64(0)
    for i in range(size):
        total ^= words[i] ^ words[size + i] ^ words[2 * size + i] ^ words[3 * size + i]
    for i in range(READ_STREAMS * size, len(words)):
        total ^= words[i]
    return total
