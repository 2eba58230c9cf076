"""The innermost loop of the scan of int8 codes for AVX2 alone, where no instruction adds four products of bytes.

Eight rows with four codes each fill a register. They are widened to 16 bits, and one instruction multiplies sixteen
such numbers and adds them two by two. So a row has two sums, which are added once at the end. Codes of queries are
widened before the scan. A product of bytes with its neighbour would be one instruction less, but it saturates: 2 x 255
x 127 is more than 16 bits hold.

A single query has codes of 16 bits in one layer, as precise as two layers of 8 and half of the work (`fine_queries`).
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from retrieval_bench.search import emit, fetch_ahead, jit
from retrieval_bench.search.emit import I64, Loop
from retrieval_bench.search.kernels import array
from retrieval_bench.search.quantise import (
    ERROR,
    FIRST,
    FOUR,
    LENGTH,
    LIMIT,
    PER_ERROR,
    PER_LENGTH,
    ROWS,
    SCALE,
    SHIFT,
    finely_coded,
)
from retrieval_bench.search.scan_loops import first_hit

TOGETHER = 6
"""Queries of a block: 6 x 2 sums of 8 rows, these rows in two registers and a query fill 15 of the 16 registers."""

LANES = 8
AHEAD = 768  # bytes ahead of the multiplications that codes are fetched for a single query
_WIDE = 2 * FOUR  # bytes of four codes of a query
_LOW = [place for half in (0, 16) for code in range(8) for place in (half + code, 32)]
"""The first eight bytes of each half of a register, each with a zero behind it; byte 32 stands for that."""


def widened(codes: np.ndarray) -> np.ndarray:
    """Codes of `quantise_queries`, (blocks, steps, places, 4) int8, with 16 bits each: (.., 8) int8, pairs of bytes."""
    return codes.astype(np.int16).view(np.int8)


@functools.cache
def fine_queries() -> Any:
    """Compiled: `quantise.finely_coded` for each of (q, d) float32 queries -> codes, starts and terms.

    What it returns is what `quantise.quantise_queries` does, for blocks of one query with one layer: codes (q,
    steps, 1, 8) int8, in pairs as of `widened`, starts (q, 1) int32, terms (q, 5, 1) float32. It takes queries and
    steps.
    """

    def fine(queries, steps):  # type: ignore[no-untyped-def]
        codes = np.zeros((len(queries), FOUR * steps), np.int16)
        starts = np.zeros((len(queries), 1), np.int32)
        terms = np.zeros((len(queries), 5, 1), np.float32)
        for query in range(len(queries)):
            terms[query, LIMIT, 0] = np.inf
            total = finely_coded(queries[query], codes[query], terms[query, :, 0])
            starts[query, 0] = np.int32(-128 * total)  # of which 32 bits are kept, as of the sums
        return codes.view(np.int8).reshape((len(queries), steps, 1, _WIDE)), starts, terms

    i64, f32 = types.int64, types.float32
    made = types.Tuple((array(types.int8, 4), array(types.int32, 2), array(f32, 3)))
    return jit.compiled(fine, made(array(f32, 2), i64))


@numba.njit(nogil=True, error_model="numpy")
def fine_plain(
    codes: np.ndarray, starts: np.ndarray, terms: np.ndarray, panels: np.ndarray, facts: np.ndarray,
    block: int, begin: int, end: int, upper: np.ndarray, masks: np.ndarray,
) -> int:  # fmt: skip
    """The plain twin of the loop for one query, as `code_loops.tile_plain` of others. codes: (q, steps, 1, 8) int8."""
    for p in range(begin, end):
        masks[0] = 0
        for lane in range(ROWS):
            total = np.int64(starts[block, 0])
            for step in range(panels.shape[1]):
                for j in range(FOUR):
                    low, high = codes[block, step, 0, 2 * j], codes[block, step, 0, 2 * j + 1]
                    code = np.int64(high) * 256 + (np.int64(low) & 255)
                    total += code * np.int64(panels[p, step, lane, j])
            total = ((total + 2**31) & (2**32 - 1)) - 2**31  # as a register of 32 bits has it
            margin = (
                terms[block, PER_LENGTH, 0] * facts[p, LENGTH, lane]
                + terms[block, PER_ERROR, 0] * facts[p, ERROR, lane]
            )
            score = np.float32(np.int32(total)) * terms[block, FIRST, 0] * facts[p, SCALE, lane]
            upper[0, lane] = score + (margin + facts[p, SHIFT, lane])
            if not upper[0, lane] < terms[block, LIMIT, 0]:
                masks[0] |= np.uint32(1) << np.uint32(lane)
        if masks[0] != 0:
            return p
    return end


def widened_loop(together: int, side: int, ahead: int = AHEAD, *, measured: bool = False) -> Loop:
    """As `code_loops.tile_loop` with one layer, for `widened` codes of queries, or of one query `fine_queries`.

    side: registers of rows at a time. ahead: how many bytes ahead codes are fetched for a single query; measured: one
    argument more says that.
    """
    ints, floats = emit.vector(emit.I32, LANES), emit.vector(emit.F32, LANES)
    bytes_, words = emit.vector(emit.I8, 4 * LANES), emit.vector(emit.I16, 2 * LANES)
    places = together
    prefetch = side == ROWS // LANES  # a query by itself waits for memory

    def spread(builder: Any, base: Any, index: int, kind: Any) -> Any:
        return emit.broadcast(builder, emit.load(builder, kind, base, 4 * index, align=4), LANES)

    def halves(builder: Any, x: Any) -> list[Any]:
        """Rows 0, 1, 4, 5 and rows 2, 3, 6, 7, with 16 bits a code."""
        nothing = emit.zeros(bytes_)
        picks = [_LOW, [place + 8 if place < 32 else place for place in _LOW]]
        return [
            builder.bitcast(
                builder.shuffle_vector(x, nothing, ir.Constant(emit.vector(emit.I32, 4 * LANES), pick)), words
            )
            for pick in picks
        ]

    def body(
        builder: Any, codes: Any, starts: Any, terms: Any, panels: Any, facts: Any, upper: Any, masks: Any, steps: Any,
        begin: Any, end: Any, distance: Any = None,
    ) -> Any:  # fmt: skip
        """codes, starts, terms: of the block."""
        far = emit.number(ahead) if distance is None else distance

        def sums_of(panel: Any, first: int) -> list[Any]:
            """Of the registers of rows from `first` on: for each of them and each place, its two sums."""

            def four_dimensions(step: Any, sums: Any) -> list[Any]:
                x = builder.add(panel, builder.mul(step, emit.number(FOUR * ROWS)))
                q = builder.add(codes, builder.mul(step, emit.number(_WIDE * places)))
                if prefetch:
                    for line in range(0, FOUR * ROWS, 64):
                        emit.prefetch(builder, builder.add(x, far), line)
                rows = [halves(builder, emit.load(builder, bytes_, x, 4 * LANES * (first + s))) for s in range(side)]
                new: list[Any] = []
                for place in range(places):
                    four = emit.broadcast(builder, emit.load(builder, I64, q, _WIDE * place), 4)
                    four = builder.bitcast(four, words)
                    for s in range(side):
                        for half in range(2):
                            two = emit.call(builder, "llvm.x86.avx2.pmadd.wd", ints, [rows[s][half], four])
                            new.append(builder.add(sums[len(new)], two))
                return new

            return emit.counted_loop(builder, steps, [emit.zeros(ints)] * (2 * side * places), four_dimensions)

        def one_panel(p: Any) -> tuple[None, Any]:
            panel = builder.add(panels, builder.mul(p, builder.mul(steps, emit.number(FOUR * ROWS))))
            fact = builder.add(facts, builder.mul(p, emit.number(4 * 4 * ROWS)))
            some = emit.number(0)
            for first in range(0, ROWS // LANES, side):
                sums = sums_of(panel, first)
                reached = ir.Constant(emit.vector(ir.IntType(1), LANES), [0] * LANES)
                for s in range(side):
                    column = LANES * (first + s)
                    scale, error, length, shift = (
                        emit.load(builder, floats, fact, 4 * (ROWS * line + column)) for line in range(4)
                    )

                    def product(place: int, sums: Any = sums, s: int = s) -> Any:
                        two = sums[2 * (place * side + s) :][:2]
                        total = emit.call(builder, "llvm.x86.avx2.phadd.d", ints, two)
                        return builder.sitofp(builder.add(total, spread(builder, starts, place, emit.I32)), floats)

                    for r in range(together):
                        one, per_length, per_error, limit = (
                            spread(builder, terms, line * together + r, emit.F32)
                            for line in (FIRST, PER_LENGTH, PER_ERROR, LIMIT)
                        )
                        score = builder.fmul(builder.fmul(product(r), one), scale)
                        margin = builder.fadd(builder.fmul(per_length, length), builder.fmul(per_error, error))
                        bound = builder.fadd(score, builder.fadd(margin, shift))
                        reached = builder.or_(reached, builder.fcmp_unordered(">=", bound, limit))
                        emit.store(builder, bound, upper, 4 * (ROWS * r + column))
                some = builder.or_(some, emit.lane_bits(builder, reached))
            return None, builder.icmp_unsigned("!=", some, emit.number(0))

        def write(_: None) -> None:
            for r in range(together):
                bits = emit.number(0, emit.I32)
                limit = spread(builder, terms, LIMIT * together + r, emit.F32)
                for column in range(0, ROWS, LANES):
                    bound = emit.load(builder, floats, upper, 4 * (ROWS * r + column))
                    reached = emit.lane_bits(builder, builder.fcmp_unordered(">=", bound, limit), emit.I32)
                    bits = builder.or_(bits, builder.shl(reached, emit.number(column, emit.I32)))
                emit.store(builder, bits, masks, 4 * r, align=4)

        return first_hit(builder, begin, end, 1, one_panel, write)

    return Loop(f"codes-widened-{together}-{side}", (I64,) * (11 if measured else 10), body)


def ahead_here() -> int:
    """The distance for one query on this machine."""
    return fetch_ahead.measured("widened", AHEAD, _trial)


def one_query_loop(ahead: int = AHEAD, *, measured: bool = False) -> Loop:
    """The loop for one query, which reads a panel from end to end; arguments as of `widened_loop`."""
    return widened_loop(1, ROWS // LANES, ahead, measured=measured)


def _trial() -> fetch_ahead.LoopTrial:
    steps, panels = fetch_ahead.DIM // FOUR, fetch_ahead.memory()
    count = panels.nbytes // (steps * FOUR * ROWS)
    codes, starts = np.ones((steps, _WIDE), np.int8), np.zeros(1, np.int32)
    terms, facts = np.zeros(5, np.float32), np.zeros((count, 4, ROWS), np.float32)
    terms[LIMIT] = np.inf  # nothing reaches it
    arrays = codes, starts, terms, panels, facts, np.empty(ROWS, np.float32), np.empty(1, np.uint32)
    loop = one_query_loop(measured=True)
    return fetch_ahead.LoopTrial(loop, (*fetch_ahead.addresses(arrays), steps, 0, count), arrays)
