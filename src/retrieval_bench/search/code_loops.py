"""The innermost loop of the scan of int8 codes: some queries against one panel of gallery rows after the other.

Like `scan_loops.py`: `tile(..., begin, end, upper, masks)` stops at the first panel with a candidate and returns it, or
`end`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.search import emit, tile_loops, widened_loops
from retrieval_bench.search.emit import I64, Loop
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
    SECOND,
    SHIFT,
    quantiser,
)
from retrieval_bench.search.scan_loops import first_hit

TOGETHER = 8  # queries that share a visit to a panel; 8 x 32 int32 sums fill 16 of the 32 registers of AVX-512


@numba.njit(nogil=True, error_model="numpy")
def tile_plain(
    codes: np.ndarray, starts: np.ndarray, terms: np.ndarray, panels: np.ndarray, facts: np.ndarray,
    block: int, begin: int, end: int, upper: np.ndarray, masks: np.ndarray,
) -> int:  # fmt: skip
    """The first panel from `begin` on with a candidate for a query of the block; `end` where there is none.

    codes, starts, terms: of `quantise_queries`. panels, facts: of `quantise_rows`.
    upper: (together, ROWS) float32, U of each query and row of that panel. masks: (together,) uint32, a bit for each
    candidate: a row whose U is not below its query's LIMIT. NaN is not below anything.
    """
    together = terms.shape[2]
    layers = codes.shape[2] // together
    sums = np.empty((2, ROWS), np.int32)
    for p in range(begin, end):
        some = False
        for r in range(together):
            for layer in range(layers):
                place = layer * together + r
                sums[layer] = starts[block, place]
                for step in range(panels.shape[1]):
                    q = codes[block, step, place]
                    q0, q1, q2, q3 = np.int32(q[0]), np.int32(q[1]), np.int32(q[2]), np.int32(q[3])
                    for lane in range(ROWS):
                        x = panels[p, step, lane]
                        four = q0 * np.int32(x[0]) + q1 * np.int32(x[1]) + q2 * np.int32(x[2]) + q3 * np.int32(x[3])
                        sums[layer, lane] += np.int32(four)
            masks[r] = 0
            for lane in range(ROWS):
                product = np.float32(sums[0, lane]) * terms[block, FIRST, r]
                if layers == 2:
                    product = product + np.float32(sums[1, lane]) * terms[block, SECOND, r]
                margin = (
                    terms[block, PER_LENGTH, r] * facts[p, LENGTH, lane]
                    + terms[block, PER_ERROR, r] * facts[p, ERROR, lane]
                )
                upper[r, lane] = product * facts[p, SCALE, lane] + (margin + facts[p, SHIFT, lane])
                if not upper[r, lane] < terms[block, LIMIT, r]:
                    masks[r] |= np.uint32(1) << np.uint32(lane)
                    some = True
        if some:
            return p
    return end


def tile_loop(together: int, layers: int, lanes: int) -> Loop:
    """The same as vector code, with `lanes` int32 sums in a register: 16 where there are 32 registers, 8 where 16.

    All sums of some queries and all 32 rows stay in registers; per step of four dimensions each panel vector is loaded
    once, each query's four codes are spread over a register once, and one instruction adds 4 * lanes products.
    """
    vectors = ROWS // lanes
    at_once = min(together, 8 if lanes == 16 else 2)  # queries whose sums fit into the registers
    ints, floats = emit.vector(emit.I32, lanes), emit.vector(emit.F32, lanes)
    bytes_ = emit.vector(emit.I8, 4 * lanes)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
    no_lane = ir.Constant(emit.vector(ir.IntType(1), lanes), [0] * lanes)

    def body(
        builder: Any, codes: Any, starts: Any, terms: Any, panels: Any, facts: Any, upper: Any, masks: Any, steps: Any,
        begin: Any, end: Any,
    ) -> Any:  # fmt: skip
        """codes, starts, terms: of the block."""
        step_bytes = emit.number(FOUR * layers * together)

        def term(base: Any, index: int, kind: Any) -> Any:
            return emit.broadcast(builder, emit.load(builder, kind, base, 4 * index, align=4), lanes)

        def one_panel(p: Any) -> tuple[list[list[Any]], Any]:
            panel = builder.add(panels, builder.mul(p, builder.mul(steps, emit.number(FOUR * ROWS))))
            fact = builder.add(facts, builder.mul(p, emit.number(4 * 4 * ROWS)))
            bounds: list[list[Any]] = []
            some = emit.number(0)
            for r0 in range(0, together, at_once):
                places = [(layer, r) for layer in range(layers) for r in range(r0, r0 + at_once)]
                initial = []
                for layer, r in places:
                    initial += [term(starts, layer * together + r, emit.I32)] * vectors

                def four_dimensions(step: Any, sums: Any, places: Any = places) -> Any:
                    x = builder.add(panel, builder.mul(step, emit.number(FOUR * ROWS)))
                    q = builder.add(codes, builder.mul(step, step_bytes))
                    rows = [emit.load(builder, bytes_, x, 4 * lanes * v) for v in range(vectors)]
                    new = []
                    for number, (layer, r) in enumerate(places):
                        four = emit.load(builder, emit.I32, q, 4 * (layer * together + r))
                        four = builder.bitcast(emit.broadcast(builder, four, lanes), bytes_)
                        for v in range(vectors):
                            new.append(emit.call(builder, name, ints, [sums[number * vectors + v], rows[v], four]))
                    return new

                sums = emit.counted_loop(builder, steps, initial, four_dimensions)
                reached = no_lane
                for r in range(r0, r0 + at_once):
                    first, second, per_length, per_error, limit = (
                        term(terms, line * together + r, emit.F32) for line in range(5)
                    )
                    bounds.append([])
                    for v in range(vectors):
                        scale, error, length, shift = (
                            emit.load(builder, floats, fact, 4 * (ROWS * line + lanes * v)) for line in range(4)
                        )
                        place = (r - r0) * vectors + v
                        product = builder.fmul(builder.sitofp(sums[place], floats), first)
                        if layers == 2:
                            finer = builder.sitofp(sums[at_once * vectors + place], floats)
                            product = builder.fadd(product, builder.fmul(finer, second))
                        product = builder.fmul(product, scale)
                        margin = builder.fadd(builder.fmul(per_length, length), builder.fmul(per_error, error))
                        bound = builder.fadd(product, builder.fadd(margin, shift))
                        reached = builder.or_(reached, builder.fcmp_unordered(">=", bound, limit))
                        if at_once < together:  # the next sums need the registers
                            emit.store(builder, bound, upper, 4 * (ROWS * r + lanes * v))
                        bounds[r].append(bound)
                some = builder.or_(some, emit.lane_bits(builder, reached))
            return bounds, builder.icmp_unsigned("!=", some, emit.number(0))

        def write(bounds: list[list[Any]]) -> None:
            for r in range(together):
                bits = emit.number(0, emit.I32)
                limit = term(terms, LIMIT * together + r, emit.F32)
                for v in range(vectors):
                    place = 4 * (ROWS * r + lanes * v)
                    if at_once < together:
                        bound = emit.load(builder, floats, upper, place)
                    else:
                        bound = bounds[r][v]
                        emit.store(builder, bound, upper, place)
                    reached = emit.lane_bits(builder, builder.fcmp_unordered(">=", bound, limit), emit.I32)
                    bits = builder.or_(bits, builder.shl(reached, emit.number(lanes * v, emit.I32)))
                emit.store(builder, bits, masks, 4 * r, align=4)

        return first_hit(builder, begin, end, 1, one_panel, write)

    return Loop(f"codes-{together}-{layers}-{lanes}", (I64,) * 10, body)


LOOPS = {
    ("vnni512", TOGETHER): tile_loop(TOGETHER, 1, 16),
    ("vnni512", 1): tile_loop(1, 2, 16),
    ("vnni256", TOGETHER): tile_loop(TOGETHER, 1, 8),
    ("vnni256", 1): tile_loop(1, 2, 8),
    ("widened", widened_loops.TOGETHER): widened_loops.widened_loop(widened_loops.TOGETHER, 1),
    ("widened", 1): widened_loops.one_query_loop(),
    ("tiles", tile_loops.TOGETHER): tile_loops.tiles_loop(),
}
_TOGETHER = {"tiles": tile_loops.TOGETHER, "widened": widened_loops.TOGETHER}


def queries_together(how: str) -> int:
    """Queries of a block, of those that are not few."""
    return _TOGETHER.get(how, TOGETHER)


def steps_of(how: str, dim: int) -> int:
    """Steps of FOUR dimensions that codes have, filled up with zeros."""
    steps = -(-dim // FOUR)
    return -(-steps // tile_loops.STEPS) * tile_loops.STEPS if how == "tiles" else steps


def coded_queries(
    how: str, queries: np.ndarray, together: int, layers: int, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `quantise_queries` makes of (q, d) float32 queries, with codes as `tile_of(how)` wants them.

    layers: 1, or 2 for blocks of one query; finer codes may take the place of the two.
    """
    if how == "widened" and layers == 2:
        return widened_loops.fine_queries()(queries, steps)  # type: ignore[no-any-return]
    side_by_side = tile_loops.STEPS if how == "tiles" and layers == 1 else 1
    codes, starts, terms = quantiser()[1](queries, together, layers, steps, side_by_side)
    return widened_loops.widened(codes) if how == "widened" else codes, starts, terms


def tile_of(how: str, together: int, ahead: int = widened_loops.AHEAD) -> Any:
    """`tile_plain`, or the emitted loop that equals it, for blocks of 1 query or more.

    ahead: as of `widened_loops.one_query_loop`.
    """
    if how == "plain":
        return tile_plain
    if how == "tiles" and together == 1:
        how = "vnni512"  # one query in a tile would leave 15 of 16 lines empty
    finely = how == "widened" and together == 1
    loop = widened_loops.one_query_loop(ahead) if finely else LOOPS[how, together]
    layers = 2 if together == 1 and not finely else 1

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        codes, starts, terms, panels, facts, block, begin, end, upper, masks = values
        kinds = signature.args
        steps = emit.length(context, builder, kinds[3], panels, axis=1)
        bytes_of_four = 2 * FOUR if how == "widened" else FOUR

        def at(place: int, array: Any, block_bytes: Any = None) -> Any:
            there = emit.address(context, builder, kinds[place], array)
            return there if block_bytes is None else builder.add(there, builder.mul(block, block_bytes))

        return loop.call(
            builder,
            [
                at(0, codes, builder.mul(steps, emit.number(bytes_of_four * layers * together))),
                at(1, starts, emit.number(4 * layers * together)),
                at(2, terms, emit.number(4 * 5 * together)),
                *(at(3, panels), at(4, facts), at(8, upper), at(9, masks), steps, begin, end),
            ],
        )

    @intrinsic
    def tile(typing, codes, starts, terms, panels, facts, block, begin, end, upper, masks):  # type: ignore[no-untyped-def]
        i64 = types.int64
        return i64(codes, starts, terms, panels, facts, i64, i64, i64, upper, masks), code

    return tile
