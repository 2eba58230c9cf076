"""Float64 sums over the dimensions of rows, in one order that vectors of every width, NumPy and the eye can follow.

Eight sums run side by side: lane j adds the terms of dimensions j, j + 8, j + 16, ..., each product rounded, then each
addition; at the end (0 + 4) + (2 + 6) and (1 + 5) + (3 + 7) are added up. Nothing is fused, so that the same bits come
from any processor, and from `summed`, the plain twin in NumPy.

A product of two float32 values is exact in float64; a sum of d of them is off by at most (d / 8 + 3) 2^-53 of the sum
of their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from retrieval_bench.search.emit import (
    F32,
    I64,
    Loop,
    address,
    broadcast,
    call,
    choose,
    counted_loop,
    length,
    load,
    number,
    prefetch,
    store,
    vector,
    zeros,
)

LANES = 8
CROSSED = 12  # rows that meet some queries: as many as 2, 3 or 4 divide
TOGETHER = 4  # rows whose sums run side by side: each addition waits for the one before it in its own sum

_AHEAD = 256  # bytes of a row that are asked for before it is used

F64 = ir.DoubleType()
_ROW = vector(F64, LANES)

PRODUCT, SQUARE, DIFFERENCE, RESIDUAL = "product", "square", "difference", "residual"


def summed(terms: np.ndarray) -> np.ndarray:
    """(n, d) float64 terms -> (n,) their sums, in the order of this module: its meaning, in NumPy."""
    n, d = terms.shape
    lanes = np.zeros((n, LANES))
    for first in range(0, d, LANES):
        some = terms[:, first : first + LANES]
        lanes[:, : some.shape[1]] += some
    fours = lanes[:, :4] + lanes[:, 4:]
    twos = fours[:, :2] + fours[:, 2:]
    return twos[:, 0] + twos[:, 1]  # type: ignore[no-any-return]


def lane_sums_loop(term: str, rows: int, element: Any, asked: Any = F64) -> Loop:
    """The sums of `rows` rows as LLVM code.

    Called with the addresses of a query (of type `asked`), of the rows (of type `element`), of four coefficients
    (float64) and of the results (float64), and the number of dimensions; returns 0. The terms, of a query q and a row
    x:
    product: q x. square: x x. difference: (q - x)^2. residual: ((a x - b q) + (c x - e q))^2 of coefficients a, b, c,
    e.
    """
    few, some = vector(element, LANES), vector(asked, LANES)

    def body(builder: Any, query: Any, *rest: Any) -> Any:
        places, (coefficients, out, dim) = rest[:rows], rest[rows:]
        size = 4 if element is F32 else 8
        if term == RESIDUAL:
            a, b, c, e = (broadcast(builder, load(builder, F64, coefficients, 8 * i), LANES) for i in range(4))

        def of(q: Any, x: Any) -> Any:
            if term == PRODUCT:
                return builder.fmul(q, x)
            if term == SQUARE:
                return builder.fmul(x, x)
            if term == DIFFERENCE:
                difference = builder.fsub(q, x)
            else:
                coarse = builder.fsub(builder.fmul(a, x), builder.fmul(b, q))
                difference = builder.fadd(coarse, builder.fsub(builder.fmul(c, x), builder.fmul(e, q)))
            return builder.fmul(difference, difference)

        def step(read: Any, offset: Any, sums: Any) -> list[Any]:
            q = None
            if term != SQUARE:
                q = read(some, builder.add(query, builder.mul(offset, number(4 if asked is F32 else 8))))
                q = builder.fpext(q, _ROW) if asked is F32 else q
            new = []
            for place, total in zip(places, sums, strict=True):
                x = read(few, builder.add(place, builder.mul(offset, number(size))))
                if element is F32:
                    x = builder.fpext(x, _ROW)
                new.append(builder.fadd(total, of(q, x)))
            return new

        def whole(index: Any, sums: Any) -> list[Any]:
            return step(lambda kind, there: load(builder, kind, there), builder.mul(index, number(LANES)), sums)

        steps = builder.udiv(dim, number(LANES))
        sums = counted_loop(builder, steps, [zeros(_ROW)] * rows, whole)
        done = builder.mul(steps, number(LANES))
        left = builder.sub(dim, done)
        lane = ir.Constant(vector(I64, LANES), list(range(LANES)))
        there = builder.icmp_unsigned("<", lane, broadcast(builder, left, LANES))

        def masked(kind: Any, place: Any) -> Any:
            suffix = f"v{LANES}f{32 if kind.element is F32 else 64}.p0"
            pointer = builder.inttoptr(place, kind.as_pointer())
            return call(
                builder, f"llvm.masked.load.{suffix}", kind, [pointer, number(1, ir.IntType(32)), there, zeros(kind)]
            )

        sums = counted_loop(
            builder,
            builder.zext(builder.icmp_unsigned("!=", left, number(0)), I64),
            sums,
            lambda index, sums: step(masked, done, sums),
        )
        for place, total in enumerate(sums):
            store(builder, _folded(builder, total), out, 8 * place)
        return number(0)

    sizes = f"{32 if asked is F32 else 64}-{32 if element is F32 else 64}"
    return Loop(f"sums-{term}-{rows}-{sizes}", (I64,) * (rows + 4), body)


def crossed_sums_loop(term: str, rows: int, parts: int, fused: bool = False) -> Loop:
    """The sums of each of TOGETHER queries with each of some rows, as LLVM code.

    It goes over the dimensions `parts` times, each time for a part of the lanes, of which the registers hold all sums.
    All are float64, filled up with zeros to a multiple of LANES dimensions. Called with the number of dimensions over
    LANES, and the addresses of the results (float64, a line of TOGETHER for each row), of the queries and of the rows;
    returns 0. Terms: product or difference. fused: products are exact, so that to round once is the same.
    """
    queries, lanes = TOGETHER, LANES // parts
    kind = vector(F64, lanes)

    def body(builder: Any, *places: Any) -> Any:
        (steps, out), asked, known = places[:2], places[2 : 2 + queries], places[2 + queries :]

        def of(q: Any, x: Any, total: Any) -> Any:
            if term == DIFFERENCE:
                q = x = builder.fsub(q, x)
            elif fused:
                return call(builder, f"llvm.fma.v{lanes}f64", kind, [q, x, total])
            return builder.fadd(total, builder.fmul(q, x))

        def sums_of(part: int) -> Any:
            def step(index: Any, sums: Any) -> list[Any]:
                offset = builder.add(builder.mul(index, number(8 * LANES)), number(8 * lanes * part))
                values = [load(builder, kind, place, offset) for place in known]
                new = []
                for i, place in enumerate(asked):
                    q = load(builder, kind, place, offset)
                    new += [of(q, x, sums[rows * i + j]) for j, x in enumerate(values)]
                return new

            return counted_loop(builder, steps, [zeros(kind)] * (queries * rows), step)

        sums = list(zip(*map(sums_of, range(parts)), strict=True))
        for j in range(rows):
            store(builder, _folded_together(builder, sums[j::rows]), out, 8 * queries * j)
        return number(0)

    name = f"crossed-{term}-{queries}x{rows}-{parts}{'-fused' if fused else ''}"
    return Loop(name, (I64,) * (queries + rows + 2), body)


def _folded_together(builder: Any, sums: Sequence[Sequence[Any]]) -> Any:
    """4 times the parts of LANES -> one vector of their sums, each added up as `_folded` does it."""

    def shuffled(a: Any, b: Any, lanes: Sequence[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(vector(ir.IntType(32), len(lanes)), list(lanes)))

    def pair(parts: Sequence[Any]) -> Any:
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
        (lanes,) = parts
        while lanes.type.count > 2:
            half = lanes.type.count // 2
            lanes = builder.fadd(shuffled(lanes, lanes, range(half)), shuffled(lanes, lanes, range(half, 2 * half)))
        return lanes

    pairs = [pair(parts) for parts in sums]
    first, second = (
        builder.fadd(shuffled(a, b, (0, 2)), shuffled(a, b, (1, 3)))
        for a, b in zip(pairs[::2], pairs[1::2], strict=True)
    )
    return shuffled(first, second, range(4))


def _folded(builder: Any, lanes: Any) -> Any:
    while lanes.type.count > 1:
        half = lanes.type.count // 2
        parts = [
            builder.shuffle_vector(
                lanes, lanes, ir.Constant(vector(ir.IntType(32), half), list(range(first, first + half)))
            )
            for first in (0, half)
        ]
        lanes = builder.fadd(*parts)
    return builder.extract_element(lanes, number(0, ir.IntType(32)))


def _element(rows: Any) -> Any:
    return F32 if rows.dtype == types.float32 else F64


def rows_at_once(lanes: int) -> int:
    """How many rows' sums fit into the registers, of `lanes` float32 values each."""
    return TOGETHER if lanes >= 8 else 2


def crossed_at_once(fused: bool, lanes: int) -> tuple[int, int]:
    """How many rows `crossed_sums_loop` takes, and parts of the lanes, of vectors of `lanes` float32 values: sums, rows
    and a query fill the registers, and what is not fused needs one more. There are 32 of the widest and of Arm's, else
    16."""
    return 4 if lanes in (16, 4) else 3 if fused else 2, {16: 1, 8: 2}.get(lanes, 4)


def _crossed(term: str) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = signature.args[:2]
        queries, rows, at_query, at_row, out = arguments[2:]
        kinds = signature.args[2:]
        dim = length(context, builder, kinds[1], rows, axis=1)
        row_bytes = builder.mul(dim, number(8))

        def places(kind: Any, values: Any, at_kind: Any, at: Any, count: int) -> list[Any]:
            first, numbers = address(context, builder, kind, values), address(context, builder, at_kind, at)
            return [
                builder.add(first, builder.mul(load(builder, I64, numbers, 8 * i), row_bytes)) for i in range(count)
            ]

        asked = places(kinds[0], queries, kinds[2], at_query, TOGETHER)
        known = places(kinds[1], rows, kinds[3], at_row, CROSSED)
        results = address(context, builder, kinds[4], out)
        kernel = choose()[0]
        exact = all(_element(kind) is F32 for kind in given)
        fused = exact and term == PRODUCT and kernel.lanes > 1  # else there may be no such instruction
        some, parts = crossed_at_once(fused, kernel.lanes)
        loop = crossed_sums_loop(term, some, parts, fused)
        steps = builder.udiv(dim, number(LANES))
        for j in range(0, CROSSED, some):
            loop.call(builder, [steps, builder.add(results, number(8 * TOGETHER * j)), *asked, *known[j : j + some]])
        return number(0)

    @intrinsic
    def sums(context, given_queries, given_rows, queries, rows, at_query, at_row, out):  # type: ignore[no-untyped-def]
        return types.int64(given_queries, given_rows, queries, rows, at_query, at_row, out), code

    return sums


crossed_products = _crossed(PRODUCT)
"""Sums of TOGETHER queries with CROSSED rows: out[j, i] of queries[at_query[i]] and rows[at_row[j]].

(given_queries, given_rows, queries (q, w), rows (n, w), at_query (4,), at_row (12,) int64, out (12, 4)): float64, w a
multiple of LANES. Of the first two, from which the values were taken, the types alone are used.
"""
crossed_differences = _crossed(DIFFERENCE)


def _four(term: str) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        query, rows, at, out = arguments
        kinds = signature.args
        element, at_once = _element(kinds[1]), rows_at_once(choose()[0].lanes)
        dim = length(context, builder, kinds[1], rows, axis=1)
        first = address(context, builder, kinds[1], rows)
        row_bytes = builder.mul(dim, number(4 if element is F32 else 8))
        numbers = address(context, builder, kinds[2], at)
        places = [
            builder.add(first, builder.mul(load(builder, I64, numbers, 8 * row), row_bytes)) for row in range(TOGETHER)
        ]
        asked = number(0) if term == SQUARE else address(context, builder, kinds[0], query)
        results = address(context, builder, kinds[3], out)
        loop = lane_sums_loop(term, at_once, element, F64 if term == SQUARE else _element(kinds[0]))
        for place in range(0, TOGETHER, at_once):
            some = places[place : place + at_once]
            loop.call(builder, [asked, *some, number(0), builder.add(results, number(8 * place)), dim])
        return number(0)

    @intrinsic
    def sums(context, query, rows, at, out):  # type: ignore[no-untyped-def]
        return types.int64(query, rows, at, out), code

    return sums


four_products = _four(PRODUCT)
"""(query (d,), rows (n, d), both float32 or float64, at (4,) int64, out (4,) float64): sums for the rows at `at`."""
four_differences = _four(DIFFERENCE)
four_squares = _four(SQUARE)


@intrinsic
def residual(context: Any, query: Any, rows: Any, row: Any, coefficients: Any) -> Any:
    """sum of ((a x - b q) + (c x - e q))^2 over the dimensions of a query (d,) and of one row of (n, d)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        query, rows, row, coefficients = arguments
        kinds = signature.args
        element = _element(kinds[1])
        dim = length(context, builder, kinds[1], rows, axis=1)
        size = number(4 if element is F32 else 8)
        place = builder.add(address(context, builder, kinds[1], rows), builder.mul(builder.mul(row, dim), size))
        out = cgutils.alloca_once(builder, F64)
        lane_sums_loop(RESIDUAL, 1, element, _element(kinds[0])).call(
            builder,
            [
                *(address(context, builder, kinds[0], query), place),
                *(address(context, builder, kinds[3], coefficients), builder.ptrtoint(out, I64), dim),
            ],
        )
        return builder.load(out)

    return types.float64(query, rows, types.int64, coefficients), code


@intrinsic
def prefetch_row(context: Any, rows: Any, row: Any) -> Any:
    """Ask for the beginning of a row of (n, d), which the processor then reads on by itself."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, row = arguments
        kind = signature.args[0]
        dim = length(context, builder, kind, rows, axis=1)
        size = number(4 if _element(kind) is F32 else 8)
        place = builder.add(address(context, builder, kind, rows), builder.mul(row, builder.mul(dim, size)))
        for line in range(0, _AHEAD, 64):
            prefetch(builder, place, line)
        return context.get_dummy_value()

    return types.none(rows, types.int64), code
