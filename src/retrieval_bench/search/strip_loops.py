"""The innermost loop of the scan of vectors for many queries: blocks of queries go past a strip of gallery rows.

A strip is as many rows of a panel as fit into registers, over as many dimensions as fit into half of the first-level
cache. It stays there while one block of queries after the other is read from the second-level cache, which takes a
third of the traffic that the other order does (scan_loops.py: one block stays, panels go past it). Sums of vectors with
more dimensions wait in memory until the next dimensions are there, so their bits are the same. The order is that of
K. Goto and R. A. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

Rows that pass the gate of a query are written behind its keys at once, and the loop goes on: to leave it for each of
them costs more than to look at some more of them later, when there is no room for others.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from retrieval_bench.search.emit import (
    F32,
    I32,
    I64,
    PANEL,
    Kernel,
    Loop,
    address,
    broadcast,
    call,
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
)
from retrieval_bench.search.scan_loops import first_hit


def strip_products(kernel: Kernel) -> Any:
    """The loop for blocks of `size` queries, one of `kernel.blocks`.

    Returns near(size, blocks, place, block_step, begin, end, panels, strip, depth, starts, start, waiting, wait, first,
    last, gates, keys, counts, query, row, soon, pace, tile) -> int64 block. Places and steps count values of the flat
    array before them, where nothing else is said.

    blocks: float32; from `place` on `depth` lines of the values of `size` queries, side by side; the same of the next
        block begins `block_step` further.
    begin, end: the blocks to be compared.
    panels: float32; from `strip` on `depth` lines of PANEL rows, of which the first `kernel.lanes * kernel.vectors`
        are the strip.
    starts: float32; from `start` on what the sums of each row start from where `first` is true.
    waiting: float32; from `wait` on (block, query, row): the sums so far where `first` is not true, and those that are
        made where `last` is not.
    gates (.., float32), keys (.., capacity) and counts (.., int64) have a line for each query; those of the first query
        of block 0 stand in line `query`.
    row: what the first row of the strip is called in keys.
    soon, pace: with each dimension, `pace` bytes of the panels are fetched into the second-level cache, ahead of their
        use: block b begins with byte soon + b * depth * pace of `panels`.
    tile: (blocks[-1], PANEL) float32, scratch.
    Where `last` is true, the keys of all rows whose score is above the gate of a query are written behind its keys, and
    counted. The loop stops behind the first block in which a query has no room for another strip, and returns this
    block; otherwise it returns end.
    """
    if kernel.lanes == 1:
        return _plain
    loops = [strip_loop(size, kernel.lanes, kernel.vectors) for size in kernel.blocks]
    rows = kernel.lanes * kernel.vectors

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (
            size, blocks, place, block_step, begin, end, panels, strip, depth, starts, start, waiting, wait, first,
            last, gates, keys, counts, query, row, soon, pace, tile,
        ) = arguments  # fmt: skip

        def at(argument: int, array: Any, values: Any = None, bytes_: int = 4) -> Any:
            there = address(context, builder, signature.args[argument], array)
            return there if values is None else builder.add(there, builder.mul(values, number(bytes_)))

        is_first, is_last = (builder.icmp_unsigned("!=", flag, flag.type(0)) for flag in (first, last))
        sums = at(11, waiting, wait)
        capacity = length(context, builder, signature.args[16], keys, axis=1)
        values = [
            *(at(1, blocks, place), builder.mul(block_step, number(4)), at(6, panels, strip)),
            builder.select(is_first, at(9, starts, start), sums),
            builder.select(is_first, number(0), number(4 * rows)),
            *(sums, at(15, gates, query), at(16, keys, builder.mul(query, capacity), 8), at(17, counts, query, 8)),
            *(capacity, row, builder.add(at(6, panels), soon), pace, at(22, tile)),
            *(depth, builder.zext(is_last, I64), begin, end),
        ]
        after = builder.append_basic_block("after")
        stops = []
        for queries, loop in zip(kernel.blocks, loops, strict=True):
            this, next_ = builder.append_basic_block("this"), builder.append_basic_block("next")
            builder.cbranch(builder.icmp_signed("==", size, number(queries)), this, next_)
            builder.position_at_end(this)
            stops.append((loop.call(builder, values), builder.block))
            builder.branch(after)
            builder.position_at_end(next_)
        builder.unreachable()
        builder.position_at_end(after)
        stop = builder.phi(I64)
        for value, block in stops:
            stop.add_incoming(value, block)
        return stop

    @intrinsic
    def near(  # type: ignore[no-untyped-def]
        context, size, blocks, place, block_step, begin, end, panels, strip, depth, starts, start, waiting, wait, first,
        last, gates, keys, counts, query, row, soon, pace, tile,
    ):  # fmt: skip
        i64, flag = types.int64, types.boolean
        return i64(
            *(i64, blocks, i64, i64, i64, i64, panels, i64, i64, starts, i64, waiting, i64, flag, flag),
            *(gates, keys, counts, i64, i64, i64, i64, tile),
        ), code

    return near


@numba.njit(nogil=True, error_model="numpy")
def _plain(  # type: ignore[no-untyped-def]
    size, blocks, place, block_step, begin, end, panels, strip, depth, starts, start, waiting, wait, first, last, gates,
    keys, counts, query, row, soon, pace, tile,
):  # fmt: skip
    """A strip of one row: the plain kernel has one sum at a time."""
    for block in range(begin, end):
        full = False
        for r in range(size):
            line, place_of_sum = query + block * size + r, wait + block * size + r
            score = starts[start] if first else waiting[place_of_sum]
            for d in range(depth):
                value = blocks[place + block * block_step + d * size + r]
                score = multiply_add(value, panels[strip + d * PANEL], score)
            if not last:
                waiting[place_of_sum] = score
            elif score > gates[line]:
                tile[r, 0] = -score
                bits = tile[r, 0:1].view(np.uint32)[0]
                ordered = bits ^ np.uint32(0xFFFFFFFF) if bits >> np.uint32(31) else bits ^ np.uint32(0x80000000)
                keys[line, counts[line]] = (np.uint64(ordered) << np.uint64(32)) | np.uint64(row)
                counts[line] += 1
                full |= counts[line] + 1 > keys.shape[1]
        if full:
            return block
    return end


def strip_loop(queries: int, lanes: int, vectors: int) -> Loop:
    """The loop as LLVM code, with `lanes` sums in a register and `vectors` registers a query."""
    row, rows = vector(F32, lanes), lanes * vectors
    no_lane = ir.Constant(vector(ir.IntType(1), lanes), [0] * lanes)

    def body(
        builder: Any, blocks: Any, block_step: Any, strip: Any, start: Any, start_step: Any, waiting: Any, gates: Any,
        keys: Any, counts: Any, capacity: Any, first_row: Any, soon: Any, pace: Any, tile: Any, depth: Any, last: Any,
        begin: Any, end: Any,
    ) -> Any:  # fmt: skip
        """block_step: bytes. start: of the sums of the first query; start_step: bytes from one query to the next."""
        is_last = builder.icmp_signed("!=", last, number(0))
        pace_of_block = builder.mul(depth, pace)

        def gate_of(b: Any, r: int) -> Any:
            there = builder.add(gates, builder.mul(b, number(4 * queries)))
            return broadcast(builder, load(builder, F32, there, 4 * r), lanes)

        def one_block(b: Any) -> tuple[None, Any]:
            values = builder.add(blocks, builder.mul(b, block_step))
            following = builder.add(values, block_step)
            ahead = builder.add(soon, builder.mul(b, pace_of_block))
            from_ = builder.add(start, builder.mul(builder.mul(b, start_step), number(queries)))
            initial = []
            for r in range(queries):
                there = builder.add(from_, builder.mul(start_step, number(r)))
                initial += [load(builder, row, there, 4 * lanes * v) for v in range(vectors)]

            def one_dimension(d: Any, sums: Any) -> Any:
                there = builder.add(strip, builder.mul(d, number(4 * PANEL)))
                x = [load(builder, row, there, 4 * lanes * v) for v in range(vectors)]
                line = builder.mul(d, number(4 * queries))
                query = builder.add(values, line)
                prefetch(builder, builder.add(ahead, builder.mul(d, pace)), 0, level=2)
                prefetch(builder, builder.add(following, line), 0)
                new = []
                for r in range(queries):
                    value = broadcast(builder, load(builder, F32, query, 4 * r), lanes)
                    new += [fma(builder, value, x[v], sums[r * vectors + v]) for v in range(vectors)]
                return new

            sums = counted_loop(builder, depth, initial, one_dimension)
            decide, wait, write, joined = (
                builder.append_basic_block(name) for name in ("decide", "wait", "write", "joined")
            )
            builder.cbranch(is_last, decide, wait)

            builder.position_at_end(wait)
            there = builder.add(waiting, builder.mul(b, number(4 * queries * rows)))
            for place, value in enumerate(sums):
                store(builder, value, there, 4 * lanes * place)
            builder.branch(joined)

            builder.position_at_end(decide)
            above = no_lane
            for r in range(queries):
                best = sums[r * vectors]
                for score in sums[r * vectors + 1 : (r + 1) * vectors]:
                    best = builder.select(builder.fcmp_ordered(">", score, best), score, best)
                above = builder.or_(above, builder.fcmp_ordered(">", best, gate_of(b, r)))
            anyone = builder.icmp_unsigned("!=", lane_bits(builder, above), number(0))
            builder.cbranch(anyone, write, joined).set_weights([1, 100])

            builder.position_at_end(write)
            full = write_keys(b, sums)
            written = builder.block
            builder.branch(joined)

            builder.position_at_end(joined)
            stop = builder.phi(ir.IntType(1))
            for value, block in ((number(0, ir.IntType(1)), wait), (number(0, ir.IntType(1)), decide), (full, written)):
                stop.add_incoming(value, block)
            return None, stop

        def write_keys(b: Any, sums: list[Any]) -> Any:
            """-> whether a query has no room for another strip."""
            words, per_word = [], 64 // rows  # bits r * rows + lane of so many queries
            for r in range(queries):
                if r % per_word == 0:
                    words.append(number(0))
                for v in range(vectors):
                    score = sums[r * vectors + v]
                    store(builder, builder.fneg(score), tile, 4 * (r * rows + lanes * v))
                    bits = lane_bits(builder, builder.fcmp_ordered(">", score, gate_of(b, r)))
                    bits = builder.shl(bits, number(r % per_word * rows + lanes * v))
                    words[-1] = builder.or_(words[-1], bits)
            first_query, room = builder.mul(b, number(queries)), builder.sub(capacity, number(rows))
            before, no = builder.block, ir.IntType(1)(0)
            one, after = builder.append_basic_block("one"), builder.append_basic_block("after")
            builder.branch(one)
            builder.position_at_end(one)
            left = [builder.phi(I64) for _ in words]
            full = builder.phi(ir.IntType(1))
            full.add_incoming(no, before)
            # The lowest bit of the first word that has one: mostly a single row passed, and no branch is to be guessed.
            word, base = left[-1], number((len(words) - 1) * per_word * rows)
            for place in range(len(words) - 2, -1, -1):
                there = builder.icmp_unsigned("!=", left[place], number(0))
                word = builder.select(there, left[place], word)
                base = builder.select(there, number(place * per_word * rows), base)
            place = builder.add(base, call(builder, "llvm.cttz.i64", I64, [word, number(1, ir.IntType(1))]))
            line = builder.add(first_query, builder.udiv(place, number(rows)))
            near = load(builder, I32, builder.add(tile, builder.mul(place, number(4))))
            flipped = builder.or_(builder.ashr(near, number(31, I32)), number(-(2**31), I32))  # as keys.key_of
            ordered = builder.shl(builder.zext(builder.xor(near, flipped), I64), number(32))
            key = builder.or_(ordered, builder.add(first_row, builder.urem(place, number(rows))))
            counted = builder.add(counts, builder.mul(line, number(8)))
            count = load(builder, I64, counted)
            there = builder.add(keys, builder.mul(builder.add(builder.mul(line, capacity), count), number(8)))
            store(builder, key, there)
            count = builder.add(count, number(1))
            store(builder, count, counted)
            is_full = builder.or_(full, builder.icmp_signed(">", count, room))
            full.add_incoming(is_full, one)
            others = number(0)
            taken = ir.IntType(1)(0)
            for phi, first in zip(left, words, strict=True):
                here = builder.and_(builder.icmp_unsigned("!=", phi, number(0)), builder.not_(taken))
                rest = builder.select(here, builder.and_(phi, builder.sub(phi, number(1))), phi)
                taken = builder.or_(taken, here)
                phi.add_incoming(first, before)
                phi.add_incoming(rest, one)
                others = builder.or_(others, rest)
            builder.cbranch(builder.icmp_unsigned("!=", others, number(0)), one, after)
            builder.position_at_end(after)
            return is_full

        return first_hit(builder, begin, end, 1, one_block, lambda _: None)

    return Loop(f"strip-{queries}-{lanes}x{vectors}", (I64,) * 18, body)
