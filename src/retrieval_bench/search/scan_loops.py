"""The innermost loops of the scans of vectors and of bits: some queries against one panel of gallery rows after the
other.

Each returns `near(block, panels, begin, end, ..., tile, masks)`, to be called from compiled code: it goes through the
panels from `begin` on and stops at the first in which any row passes the gate of any query; it returns that panel, or
`end` where there is none. In a search, after its first rows, nearly no panel stops it. Each emitted loop stands below
its plain twin, which computes the same bits with ordinary loops and runs where the processor is not known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.search import jit
from retrieval_bench.search.emit import (
    BITS_AHEAD,
    F32,
    I64,
    MEMORY_BOUND,
    PANEL,
    Kernel,
    Loop,
    address,
    broadcast,
    call,
    count_bits,
    counted_loop,
    fma,
    lane_bits,
    length,
    load,
    multiply_add,
    number,
    prefetch,
    store,
    vector,
    zeros,
)


def products(kernel: Kernel, queries: int, side: int = 1) -> Any:
    """The loop for vectors.

    Returns near(block, panels, begin, end, bias, gates, tile, masks) -> int64 panel:
    block: (dim, queries) float32, the queries side by side.
    panels: (p, dim, PANEL) float32, of which `side` are compared at the same time; then end - begin is a multiple of
        it. More than one, for a single query, because the memory hands out several stretches at once more quickly.
    bias: (p, PANEL) float32, what the sums start from; or (1, PANEL) for all panels.
    The score of query r and row l is bias[panel, l] + sum over d of block[d, r] * panels[panel, d, l], one fused
    multiply-add after the other in ascending order of d. Row l passes where it is above gates[r]. Where the loop stops,
    bit l of masks[r] says whether it did, bit r of the mask behind them whether any did, and tile[r, l] is the
    negated score; elsewhere neither means anything. With several panels, r counts those, and gates[0] is the gate of
    all.
    """
    assert queries == 1 or side == 1
    if kernel.lanes == 1:
        return _products_plain(queries, side)
    loop = products_loop(kernel, queries, side)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, panels, begin, end, bias, gates, tile, masks = arguments
        kinds = signature.args
        lines = length(context, builder, kinds[4], bias)
        per_panel = builder.icmp_signed(">", lines, number(1))
        places = [
            address(context, builder, kinds[place], array)
            for place, array in ((0, block), (1, panels), (4, bias), (5, gates), (6, tile), (7, masks))
        ]
        step = builder.select(per_panel, number(4 * PANEL), number(0))
        dim = length(context, builder, kinds[0], block)
        return loop.call(builder, [*places, dim, begin, end, step])

    @intrinsic
    def near(context, block, panels, begin, end, bias, gates, tile, masks):  # type: ignore[no-untyped-def]
        return types.int64(block, panels, types.int64, types.int64, bias, gates, tile, masks), code

    return near


def _products_plain(queries: int, side: int) -> Any:
    @jit.part(f"{queries}x{side}")
    def near(block, panels, begin, end, bias, gates, tile, masks):  # type: ignore[no-untyped-def]
        for panel in range(begin, end, side):
            anyone = False
            for s in range(side):
                start = bias[panel + s if len(bias) > 1 else 0]
                for r in range(s, s + queries):
                    masks[r] = 0
                    for lane in range(PANEL):
                        tile[r, lane] = start[lane]
                for d in range(len(block)):
                    for r in range(queries):
                        value = block[d, r]
                        for lane in range(PANEL):
                            tile[s + r, lane] = multiply_add(value, panels[panel + s, d, lane], tile[s + r, lane])
                for r in range(queries):
                    for lane in range(PANEL):
                        score = tile[s + r, lane]
                        tile[s + r, lane] = -score
                        if score > gates[r]:
                            masks[s + r] |= np.uint64(1) << np.uint64(lane)
                            anyone = True
            if anyone:
                masks[queries * side] = 0
                for r in range(queries * side):
                    masks[queries * side] |= np.uint64(masks[r] != np.uint64(0)) << np.uint64(r)
                return panel
        return end

    return near


def products_loop(kernel: Kernel, queries: int, side: int = 1, *, measured: bool = False) -> Loop:
    """The loop as LLVM code. measured: one argument more says how many bytes ahead panels are fetched."""
    lanes, vectors = kernel.lanes, kernel.vectors_for(queries)
    ahead = kernel.ahead_few if queries <= MEMORY_BOUND else kernel.ahead
    row, rows = vector(F32, lanes), lanes * vectors  # a vector of one dimension; gallery rows in registers at a time
    no_lane = ir.Constant(vector(ir.IntType(1), lanes), [0] * lanes)

    def body(
        builder: Any, block: Any, panels: Any, bias: Any, gates: Any, tile: Any, masks: Any, dim: Any, begin: Any,
        end: Any, bias_step: Any, distance: Any = None,
    ) -> Any:  # fmt: skip
        far = number(ahead) if distance is None else distance
        panel_bytes = builder.mul(dim, number(4 * PANEL))

        def gate_of(r: int) -> Any:
            return broadcast(builder, load(builder, F32, gates, 4 * r if side == 1 else 0), lanes)

        def multiplied(builder: Any, values: Any, there: Any, columns: list[int], sums: list[Any]) -> list[Any]:
            """The sums of all queries with one dimension more. What is fewer, queries or vectors of rows, is held in
            registers, and of the others one at a time."""

            def rows_of(v: int) -> Any:
                return load(builder, row, there, 4 * columns[v])

            def value_of(r: int) -> Any:
                return broadcast(builder, load(builder, F32, values, 4 * r), lanes)

            new = list(sums)
            if queries < vectors:
                held = [value_of(r) for r in range(queries)]
                for v in range(vectors):
                    x = rows_of(v)
                    for r in range(queries):
                        new[r * vectors + v] = fma(builder, held[r], x, sums[r * vectors + v])
                return new
            held = [rows_of(v) for v in range(vectors)]
            for r in range(queries):
                value = value_of(r)
                for v in range(vectors):
                    new[r * vectors + v] = fma(builder, value, held[v], sums[r * vectors + v])
            return new

        def one_panel(panel: Any) -> tuple[list[list[Any]], Any]:
            """-> the sums of each query (or panel) as far as they are in registers, and whether any row passes."""
            offsets = [builder.add(panels, builder.mul(panel, panel_bytes))]
            biases = [builder.add(bias, builder.mul(panel, bias_step))]
            for _ in range(1, side):
                offsets.append(builder.add(offsets[-1], panel_bytes))
                biases.append(builder.add(biases[-1], bias_step))
            scores: list[list[Any]] = [[] for _ in range(queries * side)]
            anyone = number(0)
            for first in range(0, PANEL, rows):  # 32 rows at a time with avx512: once
                columns = [first + lanes * v for v in range(vectors)]
                start = [[load(builder, row, there, 4 * column) for column in columns] for there in biases]

                def one_dimension(d: Any, sums: Any, columns: Any = columns) -> Any:
                    values = builder.add(block, builder.mul(d, number(4 * queries)))
                    new = []
                    for s in range(side):
                        there = builder.add(offsets[s], builder.mul(d, number(4 * PANEL)))
                        for column in range(columns[0], columns[0] + rows, 16):  # 16 float32 are one cache line
                            prefetch(builder, builder.add(there, far), 4 * column)
                        of_panel = sums[s * queries * vectors :][: queries * vectors]
                        new += multiplied(builder, values, there, columns, of_panel)
                    return new

                initial = [value for panel in start for _ in range(queries) for value in panel]
                sums = counted_loop(builder, dim, initial, one_dimension)
                above = no_lane
                for r in range(queries * side):
                    scores[r] = sums[r * vectors : (r + 1) * vectors]
                    best = scores[r][0]
                    for score in scores[r][1:]:
                        best = builder.select(builder.fcmp_ordered(">", score, best), score, best)
                    above = builder.or_(above, builder.fcmp_ordered(">", best, gate_of(r)))
                anyone = builder.or_(anyone, lane_bits(builder, above))
                if rows < PANEL:  # the next sums need the registers
                    for r in range(queries * side):
                        for column, score in zip(columns, scores[r], strict=True):
                            store(builder, builder.fneg(score), tile, 4 * (r * PANEL + column))
            return scores, builder.icmp_unsigned("!=", anyone, number(0))

        def write(scores: list[list[Any]]) -> None:
            who = number(0)
            for r in range(queries * side):
                mask = number(0)
                for v in range(PANEL // lanes):
                    place = 4 * (r * PANEL + lanes * v)
                    if rows < PANEL:
                        score = builder.fneg(load(builder, row, tile, place))
                    else:
                        score = scores[r][v]
                        store(builder, builder.fneg(score), tile, place)
                    bits = lane_bits(builder, builder.fcmp_ordered(">", score, gate_of(r)))
                    mask = builder.or_(mask, builder.shl(bits, number(lanes * v)))
                store(builder, mask, masks, 8 * r)
                passed = builder.zext(builder.icmp_unsigned("!=", mask, number(0)), I64)
                who = builder.or_(who, builder.shl(passed, number(r)))
            store(builder, who, masks, 8 * queries * side)

        return first_hit(builder, begin, end, side, one_panel, write)

    pointers_and_counts = (I64,) * (11 if measured else 10)
    return Loop(f"products-{queries}x{side}-{lanes}x{vectors}", pointers_and_counts, body)


def first_hit(builder: Any, begin: Any, end: Any, step: int, one_panel: Any, write: Any) -> Any:
    """for panel in range(begin, end, step): stop where any row passes, and write what was found."""
    before = builder.block
    ask, try_, hit, after = (builder.append_basic_block(name) for name in ("ask", "try", "hit", "after"))
    builder.branch(ask)
    builder.position_at_end(ask)
    panel = builder.phi(I64)
    panel.add_incoming(begin, before)
    builder.cbranch(builder.icmp_signed("<", panel, end), try_, after)
    builder.position_at_end(try_)
    values, anyone = one_panel(panel)
    panel.add_incoming(builder.add(panel, number(step)), builder.block)
    builder.cbranch(anyone, hit, ask).set_weights([1, 1000])
    builder.position_at_end(hit)
    write(values)
    builder.branch(after)
    builder.position_at_end(after)
    return panel


def bit_differences(kernel: Kernel, queries: int, side: int = 1) -> Any:
    """The loop for bits.

    Returns near(block, panels, begin, end, gates, tile, masks) -> int64 panel. block: (words, queries) uint64; panels:
    (p, words, PANEL) uint64; gates: (queries,) int64. Row l passes where it differs from query r in fewer bits than
    gates[r]; tile[r, l] (int64) is the number of bits in which they differ. The rest is as for `products`.
    """
    assert queries == 1 or side == 1
    if kernel.lanes == 1:
        return _bits_plain(queries, side)
    loop = bits_loop(kernel, queries, side)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block, panels, begin, end, gates, tile, masks = arguments
        kinds = signature.args
        places = [
            address(context, builder, kinds[place], array)
            for place, array in ((0, block), (1, panels), (4, gates), (5, tile), (6, masks))
        ]
        return loop.call(builder, [*places, length(context, builder, kinds[0], block), begin, end])

    @intrinsic
    def near(context, block, panels, begin, end, gates, tile, masks):  # type: ignore[no-untyped-def]
        return types.int64(block, panels, types.int64, types.int64, gates, tile, masks), code

    return near


def _bits_plain(queries: int, side: int) -> Any:
    @jit.part(f"{queries}x{side}")
    def near(block, panels, begin, end, gates, tile, masks):  # type: ignore[no-untyped-def]
        for panel in range(begin, end, side):
            anyone = False
            for s in range(side):
                for r in range(queries):
                    masks[s + r] = 0
                    for lane in range(PANEL):
                        differing = 0
                        for word in range(len(block)):
                            differing += count_bits(block[word, r] ^ panels[panel + s, word, lane])
                        tile[s + r, lane] = differing
                        if differing < gates[r]:
                            masks[s + r] |= np.uint64(1) << np.uint64(lane)
                            anyone = True
            if anyone:
                masks[queries * side] = 0
                for r in range(queries * side):
                    masks[queries * side] |= np.uint64(masks[r] != np.uint64(0)) << np.uint64(r)
                return panel
        return end

    return near


def bits_loop(kernel: Kernel, queries: int, side: int = 1, *, measured: bool = False) -> Loop:
    """The loop as LLVM code. measured: as for `products_loop`."""
    lanes = kernel.lanes // 2  # words in a register
    row = vector(I64, lanes)
    # The sums of all queries, or panels, take a part of the registers: counting bits needs some where it is no
    # instruction of its own. A single panel is read from end to end.
    most = 16 if lanes == 8 else 8 if lanes == 4 and queries * side == 1 else 4
    vectors = max(1, min(PANEL // lanes, most // (queries * side)))

    def body(
        builder: Any, block: Any, panels: Any, gates: Any, tile: Any, masks: Any, words: Any, begin: Any, end: Any,
        distance: Any = None,
    ) -> Any:  # fmt: skip
        far = number(kernel.ahead_bits if queries == 1 else BITS_AHEAD) if distance is None else distance
        panel_bytes = builder.mul(words, number(8 * PANEL))

        def gate_of(r: int) -> Any:
            return broadcast(builder, load(builder, I64, gates, 8 * r if side == 1 else 0), lanes)

        def one_panel(panel: Any) -> tuple[list[list[Any]], Any]:
            offsets = [builder.add(panels, builder.mul(panel, panel_bytes))]
            for _ in range(1, side):
                offsets.append(builder.add(offsets[-1], panel_bytes))
            totals: list[list[Any]] = [[] for _ in range(queries * side)]
            anyone = number(0)
            for first in range(0, PANEL, lanes * vectors):
                columns = [first + lanes * v for v in range(vectors)]

                def one_word(word: Any, sums: Any, columns: Any = columns) -> Any:
                    values = builder.add(block, builder.mul(word, number(8 * queries)))
                    new = []
                    for s in range(side):
                        there = builder.add(offsets[s], builder.mul(word, number(8 * PANEL)))
                        x = [load(builder, row, there, 8 * column) for column in columns]
                        for column in range(columns[0], columns[0] + lanes * vectors, 8):  # 8 words are a cache line
                            prefetch(builder, builder.add(there, far), 8 * column)
                        for r in range(queries):
                            value = broadcast(builder, load(builder, I64, values, 8 * r), lanes)
                            for v in range(vectors):
                                bits = call(builder, f"llvm.ctpop.v{lanes}i64", row, [builder.xor(value, x[v])])
                                new.append(builder.add(sums[(s + r) * vectors + v], bits))
                    return new

                sums = counted_loop(builder, words, [zeros(row)] * (queries * side * vectors), one_word)
                below = zeros(row)  # its sign bit is set where any total is below its gate
                for r in range(queries * side):
                    totals[r] = sums[r * vectors : (r + 1) * vectors]
                    for total in totals[r]:
                        below = builder.or_(below, builder.sub(total, gate_of(r)))
                negative = lane_bits(builder, builder.icmp_signed("<", below, zeros(row)))
                anyone = builder.or_(anyone, negative)
                if lanes * vectors < PANEL:  # the next sums need the registers
                    for r in range(queries * side):
                        for column, total in zip(columns, totals[r], strict=True):
                            store(builder, total, tile, 8 * (r * PANEL + column))
            return totals, builder.icmp_unsigned("!=", anyone, number(0))

        def write(totals: list[list[Any]]) -> None:
            who = number(0)
            for r in range(queries * side):
                mask = number(0)
                for v in range(PANEL // lanes):
                    place = 8 * (r * PANEL + lanes * v)
                    if lanes * vectors < PANEL:
                        total = load(builder, row, tile, place)
                    else:
                        total = totals[r][v]
                        store(builder, total, tile, place)
                    bits = lane_bits(builder, builder.icmp_signed("<", total, gate_of(r)))
                    mask = builder.or_(mask, builder.shl(bits, number(lanes * v)))
                store(builder, mask, masks, 8 * r)
                passed = builder.zext(builder.icmp_unsigned("!=", mask, number(0)), I64)
                who = builder.or_(who, builder.shl(passed, number(r)))
            store(builder, who, masks, 8 * queries * side)

        return first_hit(builder, begin, end, side, one_panel, write)

    return Loop(f"bits-{queries}x{side}-{lanes}", (I64,) * (9 if measured else 8), body)
