"""The innermost loop of the scan of int8 codes in tiles (Intel AMX: Sapphire Rapids and later).

A tile register holds 16 lines of 64 bytes, and one instruction multiplies two of them: 16 queries x 16 rows x 64
dimensions. A block is 32 queries x 32 rows: tiles 0 to 3 hold its sums, 4 and 5 queries, 6 and 7 rows. Codes of rows
lie as for the other loops, their dimensions filled up to a multiple of 64. Of queries, 64 dimensions lie side by side.

The system gives tiles to a process that asks for them (Linux: arch_prctl). Their shapes are set before a scan, on the
thread that scans, and given back after it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.search import emit
from retrieval_bench.search.emit import I64, Loop
from retrieval_bench.search.quantise import FOUR, LIMIT, ROWS
from retrieval_bench.search.scan_loops import first_hit

TOGETHER = 32
"""Queries of a block."""
STEPS = 16
"""Steps of four dimensions in a tile."""
VARIABLE = "RETRIEVAL_BENCH_TILES"
"""off: scan codes without tiles where the processor has them."""

LANES = 16
AT_A_TIME = 4  # queries whose sums are compared with their limits side by side
_ARCH_REQ_XCOMP_PERM, _TILE_DATA, _ARCH_PRCTL = 0x1023, 18, 158  # of Linux on x86-64


def usable() -> bool:
    """Whether this process may scan with tiles: the processor has them, the system gives them, nobody said no."""
    return os.environ.get(VARIABLE) != "off" and {"amx-int8", "amx-tile"} <= emit.cpu_features() and _given()


@functools.cache
def _given() -> bool:
    """Ask the system for tiles; it gives them to all threads of the process, or refuses if it does not know them."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    return bool(syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _TILE_DATA) == 0)


def _do(builder: Any, name: str, *arguments: Any) -> None:
    emit.call(builder, f"llvm.x86.{name}", ir.VoidType(), arguments)


def _tile(place: int) -> Any:
    return emit.number(place, emit.I8)


def _there(builder: Any, base: Any, bytes_: Any = 0) -> Any:
    return builder.inttoptr(emit.moved(builder, base, bytes_), emit.I8.as_pointer())


def tiles_loop() -> Loop:
    """As `code_loops.tile_loop`, for blocks of TOGETHER queries with one layer of codes; steps: a multiple of STEPS."""
    ints, floats = emit.vector(emit.I32, LANES), emit.vector(emit.F32, LANES)
    line = 4 * ROWS  # bytes of the sums of a query, and of a step of the rows
    tile_bytes = STEPS * FOUR * LANES

    def body(
        builder: Any, codes: Any, starts: Any, terms: Any, panels: Any, facts: Any, upper: Any, masks: Any, steps: Any,
        begin: Any, end: Any,
    ) -> Any:  # fmt: skip
        """codes, starts, terms: of the block."""
        room = builder.alloca(ints, size=TOGETHER * ROWS // LANES)
        room.align = 64
        sums = builder.ptrtoint(room, I64)
        tiles = builder.udiv(steps, emit.number(STEPS))

        def multiply(number: Any, nothing: Any) -> list[Any]:
            q = builder.add(codes, builder.mul(number, emit.number(2 * tile_bytes)))
            x = builder.add(panel[0], builder.mul(number, emit.number(STEPS * line)))
            beside, apart = emit.number(STEPS * FOUR), emit.number(line)
            _do(builder, "tileloadd64", _tile(6), _there(builder, x), apart)
            _do(builder, "tileloadd64", _tile(4), _there(builder, q), beside)
            _do(builder, "tdpbsud", _tile(0), _tile(4), _tile(6))
            _do(builder, "tileloadd64", _tile(7), _there(builder, x, 4 * LANES), apart)
            _do(builder, "tdpbsud", _tile(1), _tile(4), _tile(7))
            _do(builder, "tileloadd64", _tile(5), _there(builder, q, tile_bytes), beside)
            _do(builder, "tdpbsud", _tile(2), _tile(5), _tile(6))
            _do(builder, "tdpbsud", _tile(3), _tile(5), _tile(7))
            return []

        def facts_of(fact: Any) -> list[list[Any]]:
            """Scale, error, length and shift of the rows, in two vectors each."""
            return [
                [emit.load(builder, floats, fact, 4 * (ROWS * one + LANES * v)) for one in range(4)]
                for v in range(ROWS // LANES)
            ]

        def compared(r: Any, rows: list[list[Any]]) -> list[tuple[Any, Any]]:
            """Of query r: the bounds of the rows, and which of them are candidates, vector by vector."""
            at = builder.mul(r, emit.number(4))

            def spread(base: Any, kind: Any, one: int = 0) -> Any:
                value = emit.load(builder, kind, builder.add(base, at), 4 * TOGETHER * one, align=4)
                return emit.broadcast(builder, value, LANES)

            start = spread(starts, emit.I32)
            first, _, per_length, per_error, limit = (spread(terms, emit.F32, one) for one in range(LIMIT + 1))
            there = builder.add(sums, builder.mul(r, emit.number(line)))
            found = []
            for v, (scale, error, length, shift) in enumerate(rows):
                total = builder.add(emit.load(builder, ints, there, 4 * LANES * v, align=64), start)
                product = builder.fmul(builder.fmul(builder.sitofp(total, floats), first), scale)
                margin = builder.fadd(builder.fmul(per_length, length), builder.fmul(per_error, error))
                bound = builder.fadd(product, builder.fadd(margin, shift))
                found.append((bound, builder.fcmp_unordered(">=", bound, limit)))
            return found

        panel: list[Any] = [None]

        def one_panel(p: Any) -> tuple[list[list[Any]], Any]:
            panel[0] = builder.add(panels, builder.mul(p, builder.mul(steps, emit.number(line))))
            for place in range(4):
                _do(builder, "tilezero", _tile(place))
            emit.counted_loop(builder, tiles, [], multiply)
            for place in range(4):
                to = _there(builder, sums, place // 2 * LANES * line + place % 2 * 4 * LANES)
                _do(builder, "tilestored64", _tile(place), to, emit.number(line))
            rows = facts_of(builder.add(facts, builder.mul(p, emit.number(4 * line))))

            def some_queries(number: Any, before: Any) -> list[Any]:
                base, reached = builder.mul(number, emit.number(AT_A_TIME)), None
                for one in range(AT_A_TIME):
                    for _, passed in compared(builder.add(base, emit.number(one)), rows):
                        reached = passed if reached is None else builder.or_(reached, passed)
                return [builder.or_(before[0], emit.lane_bits(builder, reached))]

            (some,) = emit.counted_loop(builder, emit.number(TOGETHER // AT_A_TIME), [emit.number(0)], some_queries)
            return rows, builder.icmp_unsigned("!=", some, emit.number(0))

        def write(rows: list[list[Any]]) -> None:
            def of_query(r: Any, nothing: Any) -> list[Any]:
                bits = emit.number(0, emit.I32)
                for v, (bound, passed) in enumerate(compared(r, rows)):
                    emit.store(builder, bound, builder.add(upper, builder.mul(r, emit.number(line))), 4 * LANES * v)
                    lanes = emit.lane_bits(builder, passed, emit.I32)
                    bits = builder.or_(bits, builder.shl(lanes, emit.number(LANES * v, emit.I32)))
                emit.store(builder, bits, builder.add(masks, builder.mul(r, emit.number(4))), align=4)
                return []

            emit.counted_loop(builder, emit.number(TOGETHER), [], of_query)

        return first_hit(builder, begin, end, 1, one_panel, write)

    return Loop("codes-tiles", (I64,) * 10, body)


SHAPES = bytes([1, *[0] * 15, *[64, 0] * 8, *[0] * 16, *[16] * 8, *[0] * 8])
"""Palette 1; eight tiles with 64 bytes in a line and 16 lines each."""


@intrinsic
def shape_tiles(context: Any) -> Any:
    """Set the shapes of this thread's tiles."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.ArrayType(emit.I8, len(SHAPES))
        shapes = builder.module.globals.get("tile-shapes")
        if shapes is None:
            shapes = ir.GlobalVariable(builder.module, kind, "tile-shapes")
            shapes.initializer, shapes.global_constant = ir.Constant(kind, bytearray(SHAPES)), True
            shapes.linkage = "internal"
        _do(builder, "ldtilecfg", builder.bitcast(shapes, emit.I8.as_pointer()))
        return emit.number(0)

    return types.int64(), code


@intrinsic
def release_tiles(context: Any) -> Any:
    """Give this thread's tiles back, so that the system need not keep them from now on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _do(builder, "tilerelease")
        return emit.number(0)

    return types.int64(), code


@intrinsic
def nothing(context: Any) -> Any:
    """In the place of the two for loops without tiles."""
    return types.int64(), lambda context, builder, signature, arguments: emit.number(0)
