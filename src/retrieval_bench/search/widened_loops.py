"""The innermost loop of the scan of int8 codes for AVX2 alone, where no instruction adds four products of bytes.

Eight rows with four codes each fill a register. They are widened to 16 bits, and one instruction multiplies sixteen
such numbers and adds them two by two. So a row has two sums, which are added once at the end. Codes of queries are
widened before the scan. A product of bytes with its neighbour would be one instruction less, but it saturates: 2 x 255
x 127 is more than 16 bits hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from retrieval_bench.search import emit
from retrieval_bench.search.emit import I64, Loop
from retrieval_bench.search.quantise import FOUR, LIMIT, ROWS
from retrieval_bench.search.scan_loops import first_hit

TOGETHER = 6
"""Queries of a block: 6 x 2 sums of 8 rows, these rows in two registers and a query fill 15 of the 16 registers."""

LANES = 8
_WIDE = 2 * FOUR  # bytes of four codes of a query
_LOW = [place for half in (0, 16) for code in range(8) for place in (half + code, 32)]
"""The first eight bytes of each half of a register, each with a zero behind it; byte 32 stands for that."""


def widened(codes: np.ndarray) -> np.ndarray:
    """Codes of `quantise_queries`, (blocks, steps, places, 4) int8, with 16 bits each: (.., 8) int8, pairs of bytes."""
    return codes.astype(np.int16).view(np.int8)


def widened_loop(together: int, layers: int) -> Loop:
    """As `code_loops.tile_loop`, for `widened` codes of queries."""
    side = 1 if together * layers > 2 else 2  # registers of rows at a time: two are a whole cache line
    ints, floats = emit.vector(emit.I32, LANES), emit.vector(emit.F32, LANES)
    bytes_, words = emit.vector(emit.I8, 4 * LANES), emit.vector(emit.I16, 2 * LANES)
    places = together * layers

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
        begin: Any, end: Any,
    ) -> Any:  # fmt: skip
        """codes, starts, terms: of the block."""

        def sums_of(panel: Any, first: int) -> list[Any]:
            """Of the registers of rows from `first` on: for each of them and each place, its two sums."""

            def four_dimensions(step: Any, sums: Any) -> list[Any]:
                x = builder.add(panel, builder.mul(step, emit.number(FOUR * ROWS)))
                q = builder.add(codes, builder.mul(step, emit.number(_WIDE * places)))
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
                        one, two, per_length, per_error, limit = (
                            spread(builder, terms, line * together + r, emit.F32) for line in range(LIMIT + 1)
                        )
                        score = builder.fmul(product(r), one)
                        if layers == 2:
                            score = builder.fadd(score, builder.fmul(product(together + r), two))
                        score = builder.fmul(score, scale)
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

    return Loop(f"codes-widened-{together}-{layers}", (I64,) * 10, body)
