"""Vector instructions from Numba: the inner loops of the search kernels, written down as LLVM code for a chosen width.

Numba turns a Python loop into machine code but leaves it to LLVM's guesses which sums stay in registers. The inner loop
of a matrix product is won or lost there, so it is emitted here, instruction by instruction, through
`numba.extending.intrinsic`. How to read it: a *vector* is `lanes` float32 values in one register; `fma(q, x, sum)` is
q * x + sum, rounded once; `builder` appends one instruction at a time, and what it returns names a value, not a place.

Each emitted loop stands below its plain twin, which computes the same bits with ordinary loops and runs where the
processor is not known. Which of them runs: `choose()`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PANEL = 32  # gallery rows side by side, whatever the kernel: two vectors of 16 lanes, four of 8, eight of 4

# How far ahead of the multiply-adds the panels are fetched from memory, in bytes. The processor itself does not look
# past the dozens of multiply-adds in flight: without this, eight queries wait for memory as if they did not compute.
PREFETCH = 16384
PREFETCH_SIDE = 2048  # the same where several panels are read side by side

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


def prefetch(builder: Any, base: Any, bytes_: int) -> None:
    """Ask for the cache line at base + bytes_; a hint, harmless wherever it points."""
    place = builder.inttoptr(moved(builder, base, bytes_), I8.as_pointer())
    flags = [number(0, I32), number(3, I32), number(1, I32)]  # for reading, into the nearest cache, data
    call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, *flags])


def counted_loop(builder: Any, count: Any, initial: Sequence[Any], body: Callable) -> list[Any]:
    """for i in range(count): values = body(i, values); returns the values after the last round. count must be >= 1.

    initial: the values before the first round. body(i, values) emits one round and returns the new values; they are
    LLVM values that live in registers, not places in memory.
    """
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
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
    return new


# --- which kernel ----------------------------------------------------------------------------------------------------

KERNEL_VARIABLE = "RETRIEVAL_BENCH_KERNEL"


@dataclass(frozen=True)
class Kernel:
    """The shape of the inner loop.

    lanes: float32 values in a vector; 1 stands for the plain loops.
    vectors: vectors of gallery rows that are worked on together; lanes * vectors divides PANEL.
    blocks: the four numbers of queries for which an inner loop is made, ascending. The largest is the work horse: its
        blocks[-1] * vectors sums, the vectors of rows and a broadcast query value fill the registers.
    needs: CPU features as LLVM names them.
    """

    name: str
    lanes: int
    vectors: int
    blocks: tuple[int, int, int, int]
    needs: tuple[str, ...] = ()


KERNELS = {
    kernel.name: kernel
    for kernel in (
        # 12 x 2 sums + 2 rows + broadcasts in 32 registers of 16 lanes.
        Kernel("avx512", 16, 2, (1, 4, 8, 12), ("avx512f", "avx512bw", "avx512vl", "avx512dq")),
        # 6 x 2 sums + 2 rows + broadcasts in 16 registers of 8 lanes.
        Kernel("avx2", 8, 2, (1, 2, 4, 6), ("avx2", "fma")),
        # 6 x 4 sums + 4 rows + broadcasts in 32 registers of 4 lanes.
        Kernel("neon", 4, 4, (1, 2, 4, 6), ("neon",)),
        Kernel("plain", 1, 1, (1, 2, 4, 8)),
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


# --- the inner loops -------------------------------------------------------------------------------------------------


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
    """Add count to work_counter[0], an int64, in one atomic step -> what it was before."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(address(context, builder, signature.args[0], arguments[0]), I64.as_pointer())
        return builder.atomic_rmw("add", place, arguments[1], "monotonic")

    return types.int64(work_counter, types.int64), code


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


def products(kernel: Kernel, queries: int, side: int = 1) -> Any:
    """The loop that finds, among the PANEL rows of each panel, those that are near to any of `queries` queries.

    Returns near(block, panels, panel, bias, line, limits, tile, masks, one, floor) -> uint64:
    block: (dim, queries) float32, the queries side by side.
    panels: (p, dim, PANEL) float32, of which `side` are compared, from `panel` on. More than one, for a single query,
        because the memory hands out several stretches at once more quickly than one.
    bias: (lines, PANEL) float32, what the sums start from; `line` of it is used, for the next panel the next if there
        is one for each.
    The distance of query r and row l is max(one - (bias[line, l] + sum over d of block[d, r] * panels[panel, d, l]),
    floor), summed in ascending order of d. Bit l of masks[r] is set where it is below limits[r], and bit r of the
    result where masks[r] is not 0. tile[r, l] and masks[r] are written only where the result is not 0. With several
    panels, r counts those, and limits[0] is the limit of all.
    """
    assert queries == 1 or side == 1
    if kernel.lanes == 1:
        return _products_plain(queries, side)
    return _products_emitted(queries, side, kernel.lanes, kernel.vectors)


def _products_plain(queries: int, side: int) -> Any:
    @numba.njit(nogil=True, error_model="numpy")
    def near(block, panels, panel, bias, line, limits, tile, masks, one, floor):  # type: ignore[no-untyped-def]
        anyone = np.uint64(0)
        for s in range(side):
            start = bias[line + s if len(bias) > 1 else line]
            for r in range(s, s + queries):
                for lane in range(PANEL):
                    tile[r, lane] = start[lane]
            for d in range(len(block)):
                for r in range(queries):
                    value = block[d, r]
                    for lane in range(PANEL):
                        tile[s + r, lane] = multiply_add(value, panels[panel + s, d, lane], tile[s + r, lane])
            for r in range(queries):
                mask = np.uint64(0)
                for lane in range(PANEL):
                    distance = max(one - tile[s + r, lane], floor)
                    tile[s + r, lane] = distance
                    mask |= np.uint64(distance < limits[r]) << np.uint64(lane)
                masks[s + r] = mask
                anyone |= np.uint64(mask != np.uint64(0)) << np.uint64(s + r)
        return anyone

    return near


def _products_emitted(queries: int, side: int, lanes: int, vectors: int) -> Any:
    row, rows = vector(F32, lanes), lanes * vectors  # a vector of one dimension; gallery rows in registers at a time

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, panels, panel, bias, line, limits, tile, masks, one, floor = arguments
        lines = length(context, builder, signature.args[3], bias)
        block, panels, bias, limits, tile, masks = (
            address(context, builder, signature.args[place], arguments[place]) for place in (0, 1, 3, 5, 6, 7)
        )
        dim = length(context, builder, signature.args[0], arguments[0])
        panel_bytes = builder.mul(dim, number(4 * PANEL))
        panels = builder.add(panels, builder.mul(panel, panel_bytes))
        bias = builder.add(bias, builder.mul(line, number(4 * PANEL)))
        next_line = builder.select(builder.icmp_signed(">", lines, number(1)), number(4 * PANEL), number(0))
        offsets, biases = [panels], [bias]  # of each panel
        for _ in range(1, side):
            offsets.append(builder.add(offsets[-1], panel_bytes))
            biases.append(builder.add(biases[-1], next_line))
        one, floor = broadcast(builder, one, lanes), broadcast(builder, floor, lanes)
        found = [number(0)] * (queries * side)
        for first in range(0, PANEL, rows):  # 32 rows at a time with avx512: once
            columns = [first + lanes * v for v in range(vectors)]
            start = [[load(builder, row, bias, 4 * column) for column in columns] for bias in biases]

            def one_dimension(d: Any, sums: Any, columns: Any = columns) -> Any:
                values = builder.add(block, builder.mul(d, number(4 * queries)))
                new = []
                for s in range(side):
                    there = builder.add(offsets[s], builder.mul(d, number(4 * PANEL)))
                    x = [load(builder, row, there, 4 * column) for column in columns]
                    for column in range(columns[0], columns[0] + rows, 16):  # 16 float32 are one cache line
                        prefetch(builder, there, (PREFETCH if side == 1 else PREFETCH_SIDE) + 4 * column)
                    for r in range(queries):
                        value = broadcast(builder, load(builder, F32, values, 4 * r), lanes)
                        place = (s + r) * vectors
                        new += [fma(builder, value, x[v], sums[place + v]) for v in range(vectors)]
                return new

            initial = [value for panel in start for _ in range(queries) for value in panel]
            sums = counted_loop(builder, dim, initial, one_dimension)

            for r in range(queries * side):
                limit = broadcast(builder, load(builder, F32, limits, 4 * r if side == 1 else 0), lanes)
                for v, column in enumerate(columns):
                    distance = builder.fsub(one, sums[r * vectors + v])
                    distance = builder.select(builder.fcmp_ordered(">", distance, floor), distance, floor)
                    store(builder, distance, tile, 4 * (r * PANEL + column))
                    bits = lane_bits(builder, builder.fcmp_ordered("<", distance, limit))
                    found[r] = builder.or_(found[r], builder.shl(bits, number(column)))
        anyone = number(0)
        for r in range(queries * side):
            hit = builder.zext(builder.icmp_unsigned("!=", found[r], number(0)), I64)
            anyone = builder.or_(anyone, builder.shl(hit, number(r)))
        with builder.if_then(builder.icmp_unsigned("!=", anyone, number(0)), likely=False):
            for r in range(queries * side):
                store(builder, found[r], masks, 8 * r)
        return anyone

    @intrinsic
    def near(  # type: ignore[no-untyped-def]
        context, block, panels, panel, bias, line, limits, tile, masks, one, floor
    ):
        scalars = {"panel": types.intp, "line": types.intp, "one": types.float32, "floor": types.float32}
        kinds = (block, panels, scalars["panel"], bias, scalars["line"], limits, tile, masks)
        return types.uint64(*kinds, scalars["one"], scalars["floor"]), code

    return near


def differences(kernel: Kernel) -> Any:
    """The definition of the euclidean distance, squared, of two queries to the PANEL rows of one panel.

    Returns square(block, r, s, panels, panel, tile): arguments as for `products`; for columns r and s of the block,
    which may be the same, tile[r, l] = sum over d of (block[d, r] - panels[panel, d, l])^2, each difference rounded,
    each square fused with its addition, d ascending. (Two at a time, since a sum waits four cycles for its predecessor,
    and the sums of a second query fill the gap.)
    """
    return _differences_plain() if kernel.lanes == 1 else _differences_emitted(kernel.lanes)


def _differences_plain() -> Any:
    @numba.njit(nogil=True, error_model="numpy")
    def square(block, r, s, panels, panel, tile):  # type: ignore[no-untyped-def]
        for query in (r, s):
            for lane in range(PANEL):
                tile[query, lane] = np.float32(0.0)
            for d in range(len(block)):
                for lane in range(PANEL):
                    difference = block[d, query] - panels[panel, d, lane]
                    tile[query, lane] = multiply_add(difference, difference, tile[query, lane])

    return square


def _differences_emitted(lanes: int) -> Any:
    row, vectors = vector(F32, lanes), min(2, PANEL // lanes)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, r, s, panels, panel, tile = arguments
        dim = length(context, builder, signature.args[0], block)
        queries = length(context, builder, signature.args[0], block, axis=1)
        block = address(context, builder, signature.args[0], block)
        panels = address(context, builder, signature.args[3], panels)
        tile = address(context, builder, signature.args[5], tile)
        panels = builder.add(panels, builder.mul(builder.mul(panel, dim), number(4 * PANEL)))

        for first in range(0, PANEL, lanes * vectors):
            columns = [first + lanes * v for v in range(vectors)]

            def one_dimension(d: Any, totals: Any, columns: Any = columns) -> Any:
                there = builder.add(panels, builder.mul(d, number(4 * PANEL)))
                x = [load(builder, row, there, 4 * column) for column in columns]
                new: list[Any] = []
                for query in (r, s):
                    place = builder.add(builder.mul(d, queries), query)
                    value = broadcast(builder, load(builder, F32, block, builder.mul(place, number(4))), lanes)
                    for v in range(vectors):
                        difference = builder.fsub(value, x[v])
                        new.append(fma(builder, difference, difference, totals[len(new)]))
                return new

            totals = counted_loop(builder, dim, [zeros(row)] * (2 * vectors), one_dimension)
            for place, query in enumerate((r, s)):
                there = builder.add(tile, builder.mul(query, number(4 * PANEL)))
                for v, column in enumerate(columns):
                    store(builder, totals[place * vectors + v], there, 4 * column)
        return context.get_dummy_value()

    @intrinsic
    def square(context, block, r, s, panels, panel, tile):  # type: ignore[no-untyped-def]
        return types.none(block, types.intp, types.intp, panels, types.intp, tile), code

    return square


def bit_differences(kernel: Kernel, queries: int, side: int = 1) -> Any:
    """The loop of `products` for bits.

    Returns near(block, panels, panel, limits, tile, masks) -> uint64. block: (words, queries) uint64; panels:
    (p, words, PANEL) uint64; limits: (queries,) int64. tile[r, l] (int64) is the number of bits in which query r and
    row l differ. Bit l of masks[r] is set where it is below limits[r], and bit r of the result where masks[r] is not 0;
    tile and masks are written only where the result is not 0. With several panels, r counts those.
    """
    assert queries == 1 or side == 1
    return _bits_plain(queries, side) if kernel.lanes == 1 else _bits_emitted(queries, side, kernel.lanes // 2)


def _bits_plain(queries: int, side: int) -> Any:
    @numba.njit(nogil=True, error_model="numpy")
    def near(block, panels, panel, limits, tile, masks):  # type: ignore[no-untyped-def]
        anyone = np.uint64(0)
        for s in range(side):
            for r in range(queries):
                mask = np.uint64(0)
                for lane in range(PANEL):
                    differing = 0
                    for word in range(len(block)):
                        differing += count_bits(block[word, r] ^ panels[panel + s, word, lane])
                    tile[s + r, lane] = differing
                    mask |= np.uint64(differing < limits[r]) << np.uint64(lane)
                masks[s + r] = mask
                anyone |= np.uint64(mask != np.uint64(0)) << np.uint64(s + r)
        return anyone

    return near


def _bits_emitted(queries: int, side: int, lanes: int) -> Any:
    row = vector(I64, lanes)
    vectors = min(4, PANEL // lanes)  # four queries, or panels, x four vectors of sums fit into 16 registers

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, panels, panel, limits, tile, masks = arguments
        block, panels, limits, tile, masks = (
            address(context, builder, signature.args[place], arguments[place]) for place in (0, 1, 3, 4, 5)
        )
        words = length(context, builder, signature.args[0], arguments[0])
        panel_bytes = builder.mul(words, number(8 * PANEL))
        offsets = [builder.add(panels, builder.mul(panel, panel_bytes))]  # of each panel
        for _ in range(1, side):
            offsets.append(builder.add(offsets[-1], panel_bytes))
        nearer: list[list[Any]] = [[] for _ in range(queries * side)]  # for each: (first row, which of `lanes` rows)
        for first in range(0, PANEL, lanes * vectors):
            columns = [first + lanes * v for v in range(vectors)]

            def one_word(word: Any, sums: Any, columns: Any = columns) -> Any:
                values = builder.add(block, builder.mul(word, number(8 * queries)))
                new = []
                for s in range(side):
                    there = builder.add(offsets[s], builder.mul(word, number(8 * PANEL)))
                    x = [load(builder, row, there, 8 * column) for column in columns]
                    for column in range(columns[0], columns[0] + lanes * vectors, 8):  # 8 words are one cache line
                        prefetch(builder, there, PREFETCH + 8 * column)
                    for r in range(queries):
                        value = broadcast(builder, load(builder, I64, values, 8 * r), lanes)
                        for v in range(vectors):
                            bits = call(builder, f"llvm.ctpop.v{lanes}i64", row, [builder.xor(value, x[v])])
                            new.append(builder.add(sums[(s + r) * vectors + v], bits))
                return new

            sums = counted_loop(builder, words, [zeros(row)] * (queries * side * vectors), one_word)
            for r in range(queries * side):
                limit = broadcast(builder, load(builder, I64, limits, 8 * r if side == 1 else 0), lanes)
                for v, column in enumerate(columns):
                    total = sums[r * vectors + v]
                    nearer[r].append((column, total, builder.icmp_signed("<", total, limit)))
        together = functools.reduce(builder.or_, [which for query in nearer for _, _, which in query])
        anyone = cgutils.alloca_once(builder, I64)
        builder.store(number(0), anyone)
        with builder.if_then(builder.icmp_unsigned("!=", lane_bits(builder, together), number(0)), likely=False):
            for r, query in enumerate(nearer):
                mask = number(0)
                for column, total, which in query:
                    store(builder, total, tile, 8 * (r * PANEL + column))
                    mask = builder.or_(mask, builder.shl(lane_bits(builder, which), number(column)))
                store(builder, mask, masks, 8 * r)
                hit = builder.zext(builder.icmp_unsigned("!=", mask, number(0)), I64)
                builder.store(builder.or_(builder.load(anyone), builder.shl(hit, number(r))), anyone)
        return builder.load(anyone)

    @intrinsic
    def near(context, block, panels, panel, limits, tile, masks):  # type: ignore[no-untyped-def]
        return types.uint64(block, panels, types.intp, limits, tile, masks), code

    return near
