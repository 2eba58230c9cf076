"""Vector instructions from Numba: words for LLVM code of a chosen width, and which width a processor gets.

Numba turns a Python loop into machine code but leaves it to LLVM's guesses which sums stay in registers. The inner loop
of a matrix product is won or lost there, so the inner loops of the search are emitted, instruction by instruction,
through `numba.extending.intrinsic`: in `scan_loops`, `code_loops` and `lane_sums`. How to read them: a *vector* is
`lanes` values in one register; `fma(q, x, sum)` is q * x + sum, rounded once; `builder` appends one instruction at a
time, and what it returns names a value, not a place. Which width runs: `choose()`.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

PANEL = 32  # gallery rows side by side, whatever the kernel: two vectors of 16 lanes, four of 8, eight of 4

F32 = ir.FloatType()
I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)


# --- words of the language -------------------------------------------------------------------------------------------


def vector(element: Any, lanes: int) -> Any:
    """The type of a register of `lanes` elements."""
    return ir.VectorType(element, lanes)


def number(value: int, kind: Any = I64) -> Any:
    return ir.Constant(kind, value)


def zeros(kind: Any) -> Any:
    """A vector of zeros (float or integer), of the given vector type."""
    return ir.Constant(kind, [0 if isinstance(kind.element, ir.IntType) else 0.0] * kind.count)


def address(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Where the values of a Numba array argument begin, as an i64; kind is its Numba type."""
    return builder.ptrtoint(context.make_array(kind)(context, builder, array).data, I64)


def length(context: Any, builder: Any, kind: Any, array: Any, axis: int = 0) -> Any:
    """array.shape[axis] as an i64."""
    return builder.extract_value(context.make_array(kind)(context, builder, array).shape, axis)


def moved(builder: Any, base: Any, bytes_: Any) -> Any:
    """base + bytes_; bytes_ is a Python int or an i64 value."""
    if isinstance(bytes_, int):
        return builder.add(base, number(bytes_)) if bytes_ else base
    return builder.add(base, bytes_)


def load(builder: Any, kind: Any, base: Any, bytes_: Any = 0, align: int = 1) -> Any:
    """The value of type `kind` (scalar or vector) at address base + bytes_."""
    value = builder.load(builder.inttoptr(moved(builder, base, bytes_), kind.as_pointer()), typ=kind)
    value.align = align
    return value


def store(builder: Any, value: Any, base: Any, bytes_: Any = 0, align: int = 1) -> None:
    place = builder.inttoptr(moved(builder, base, bytes_), value.type.as_pointer())
    builder.store(value, place).align = align


def broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    """A vector whose lanes all hold the scalar."""
    undefined = ir.Constant(vector(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, number(0, I32))
    return builder.shuffle_vector(first, undefined, ir.Constant(vector(I32, lanes), [0] * lanes))


def call(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """Call an LLVM intrinsic by its full name, e.g. call(b, "llvm.ctpop.v8i64", v8i64, [x]); declared at first use."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [value.type for value in arguments]), name)
    return builder.call(function, list(arguments))


def fma(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """a * b + total, rounded once; float32 scalars or vectors."""
    suffix = f"v{a.type.count}f32" if isinstance(a.type, ir.VectorType) else "f32"
    return call(builder, f"llvm.fma.{suffix}", a.type, [a, b, total])


def lane_bits(builder: Any, condition: Any, to: Any = I64) -> Any:
    """A vector of booleans -> an integer with bit l set where lane l is true."""
    return builder.zext(builder.bitcast(condition, ir.IntType(condition.type.count)), to)


def prefetch(builder: Any, base: Any, bytes_: int, level: int = 1) -> None:
    """Ask for the cache line at base + bytes_, in the cache of that level; a hint, harmless wherever it points."""
    place = builder.inttoptr(moved(builder, base, bytes_), I8.as_pointer())
    flags = [number(0, I32), number(4 - level, I32), number(1, I32)]  # for reading, into which cache, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, *flags])


def counted_loop(builder: Any, count: Any, initial: Sequence[Any], body: Callable) -> list[Any]:
    """for i in range(count): values = body(i, values); returns the values after the last round. count may be 0.

    initial: the values before the first round. body(i, values) emits one round and returns the new values; they are
    LLVM values that live in registers, not places in memory.
    """
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", count, number(0)), loop, after)
    builder.position_at_end(loop)
    index = builder.phi(I64)
    index.add_incoming(number(0), before)
    values = [builder.phi(value.type) for value in initial]
    for value, first in zip(values, initial, strict=True):
        value.add_incoming(first, before)
    new = list(body(index, values))
    following = builder.add(index, number(1))
    last = builder.block  # the body may have opened blocks of its own
    index.add_incoming(following, last)
    for value, next_ in zip(values, new, strict=True):
        value.add_incoming(next_, last)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = []
    for first, next_ in zip(initial, new, strict=True):
        result = builder.phi(first.type)
        result.add_incoming(first, before)
        result.add_incoming(next_, last)
        results.append(result)
    return results


@dataclass(frozen=True)
class Loop:
    """A loop that is an LLVM function of its own, which is never copied into its caller.

    Inside the large function around it, the loop would compete for registers with everything else that lives there; on
    some processors LLVM then keeps some of its sums in memory, at half the speed. As a function of its own it has all.

    name: tells it from every other one. arguments: their LLVM types; returns an i64.
    body(builder, *values): emits it and returns the result.
    """

    name: str
    arguments: tuple[Any, ...]
    body: Callable

    def function(self, module: Any) -> Any:
        """The function in an LLVM module, written there at first use."""
        there = module.globals.get(self.name)
        if there is None:
            there = ir.Function(module, ir.FunctionType(I64, self.arguments), self.name)
            there.linkage = "internal"
            there.attributes.add("noinline")
            there.attributes.add("nounwind")
            builder = ir.IRBuilder(there.append_basic_block("entry"))
            builder.ret(self.body(builder, *there.args))
        return there

    def call(self, builder: Any, values: Sequence[Any]) -> Any:
        return builder.call(self.function(builder.module), list(values))


# --- which kernel ----------------------------------------------------------------------------------------------------

KERNEL_VARIABLE = "RETRIEVAL_BENCH_KERNEL"


MEMORY_BOUND = 3  # up to so many queries wait for memory most of the time
BITS_AHEAD = 16384  # bytes that panels of bits are fetched ahead of several queries


@dataclass(frozen=True)
class Kernel:
    """The shape of the inner loop.

    lanes: float32 values in a vector; 1 stands for the plain loops.
    vectors: vectors of gallery rows that are worked on together; lanes * vectors divides PANEL.
    blocks: the four numbers of queries for which an inner loop is made, ascending. The largest is the work horse: its
        blocks[-1] * vectors sums, the vectors of rows and a broadcast query value fill the registers.
    side: panels that a single query is compared with at the same time, as the memory hands out several stretches at
        once more quickly; bits_side: the same of bits.
    ahead: how far ahead of the multiply-adds the panels are fetched from memory, in bytes. Some processors do not look
        past the dozens of multiply-adds in flight by themselves: without this, eight queries wait for memory as if they
        did not compute. Others do better by themselves, and fetching far ahead is in their way. ahead_few: the same for
        MEMORY_BOUND queries and fewer; ahead_bits: for one query of bits. `fetch_ahead.py` measures all three.
    needs: CPU features as LLVM names them.
    strips: of more than MEMORY_BOUND queries, compare all with a strip of rows after the other (strip_loops.py), not
        all rows with a block of queries after the other: quicker where it was measured.
    """

    name: str
    lanes: int
    vectors: int
    blocks: tuple[int, int, int, int]
    side: int
    bits_side: int
    ahead: int
    ahead_few: int
    ahead_bits: int
    needs: tuple[str, ...] = ()
    strips: bool = False

    @property
    def variant(self) -> str:
        """Tells compiled functions of one kernel from those of another, and of the same with other distances."""
        return f"{self.name}-{self.ahead}-{self.ahead_few}-{self.ahead_bits}"

    def vectors_for(self, queries: int) -> int:
        """Vectors of rows for a block of so many queries: all of a panel, so that it is read from end to end, where the
        registers can hold as many sums."""
        whole = PANEL // self.lanes
        return whole if queries * whole <= self.blocks[-1] * self.vectors else self.vectors


KERNELS = {
    kernel.name: kernel
    for kernel in (
        # 12 x 2 sums + 2 rows + broadcasts in 32 registers of 16 lanes.
        Kernel(
            *("avx512", 16, 2, (1, 4, 8, 12)),
            side=4,
            bits_side=4,
            ahead=16384,
            ahead_few=2048,
            ahead_bits=16384,
            needs=("avx512f", "avx512bw", "avx512vl", "avx512dq"),
        ),
        # 6 x 2 sums + 2 rows + broadcasts in 16 registers of 8 lanes.
        Kernel(
            *("avx2", 8, 2, (1, 2, 3, 6)),
            side=3,
            bits_side=1,
            ahead=512,
            ahead_few=512,
            ahead_bits=512,
            needs=("avx2", "fma"),
            strips=True,
        ),
        # 6 x 4 sums + 4 rows + broadcasts in 32 registers of 4 lanes.
        Kernel(
            *("neon", 4, 4, (1, 2, 4, 6)),
            side=2,
            bits_side=2,
            ahead=16384,
            ahead_few=2048,
            ahead_bits=16384,
            needs=("neon",),
        ),
        Kernel(*("plain", 1, 1, (1, 2, 4, 8)), side=4, bits_side=4, ahead=0, ahead_few=0, ahead_bits=0),
    )
}


@functools.cache
def cpu_features() -> frozenset[str]:
    """What this processor can do, in LLVM's words; empty where LLVM does not know."""
    try:
        return frozenset(name for name, there in llvmlite.binding.get_host_cpu_features().items() if there)
    except RuntimeError:
        return frozenset()


def choose(forced: str | None = None) -> tuple[Kernel, str]:
    """The kernel to use and why: the argument, RETRIEVAL_BENCH_KERNEL, or the widest that the processor has.

    Any kernel may be forced on any machine: LLVM splits vectors that the processor does not have. Only the speed
    suffers. Raises KeyError for an unknown name.
    """
    if forced is not None:
        return KERNELS[forced], "asked for"
    wanted = os.environ.get(KERNEL_VARIABLE)
    if wanted:
        return KERNELS[wanted], f"{KERNEL_VARIABLE} is {wanted}"
    for kernel in KERNELS.values():
        if kernel.needs and cpu_features().issuperset(kernel.needs):
            return kernel, "the processor has " + ", ".join(kernel.needs)
    return KERNELS["plain"], "no vector instructions are known for this processor"


# --- single instructions ---------------------------------------------------------------------------------------------


@intrinsic
def multiply_add(context: Any, a: Any, b: Any, total: Any) -> Any:
    """a * b + total in float32, rounded once."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return fma(builder, *arguments)

    return types.float32(types.float32, types.float32, types.float32), code


@intrinsic
def lowest_bit(context: Any, mask: Any) -> Any:
    """The place of the lowest bit that is set in a uint64 other than 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.cttz.i64", I64, [arguments[0], number(1, ir.IntType(1))])

    return types.int64(types.uint64), code


@intrinsic
def count_bits(context: Any, word: Any) -> Any:
    """Bits that are set in a uint64."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return call(builder, "llvm.ctpop.i64", I64, [arguments[0]])

    return types.int64(types.uint64), code


@intrinsic
def take(context: Any, work_counter: Any, count: Any) -> Any:
    """Add count to work_counter[0], an int64, in one atomic step -> what it was before. Other threads that see the sum
    also see what this one had written to memory."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(address(context, builder, signature.args[0], arguments[0]), I64.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "acq_rel")

    return types.int64(work_counter, types.int64), code


@intrinsic
def pause(context: Any) -> Any:
    """Wait for some dozens of cycles, as the processor wants it of a thread that waits for another."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            call(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        elif platform.machine() in ("aarch64", "arm64"):
            call(builder, "llvm.aarch64.hint", ir.VoidType(), [number(1, I32)])
        return context.get_dummy_value()

    return types.none(), code


@intrinsic
def borrowed(context: Any, values: Any) -> Any:
    """The same array without its reference count, which would be updated, atomically, wherever the array is mentioned.

    Whoever called the compiled function holds on to the array until it returns.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        view.meminfo, view.parent = view.meminfo.type(None), view.parent.type(None)
        return view._getvalue()  # noqa: SLF001 - Numba has no public word for it

    return values(values), code
