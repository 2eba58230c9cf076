"""The innermost loop for many queries: the bits of the other loop at every width, whatever the depth of the strips, and
a key of each row that passes, until there is no room."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from retrieval_bench.search import emit
from retrieval_bench.search.keys import key_of
from retrieval_bench.search.strip_loops import strip_products

DIM, BLOCKS, PANELS, ROOM = 37, 3, 2, 40

pytestmark = pytest.mark.slow(reason="compiles loops that no search uses, without a cache")


def data(size: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(size)
    blocks = rng.standard_normal((BLOCKS, DIM, size), dtype=np.float32)
    panels = rng.standard_normal((PANELS, DIM, emit.PANEL), dtype=np.float32)
    return blocks, panels, rng.standard_normal(emit.PANEL, dtype=np.float32)


def chains(blocks: np.ndarray, panels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(queries, rows) float32: float64 holds product and sum of these values exactly enough to round once."""
    queries = blocks.transpose(0, 2, 1).reshape(-1, DIM).astype(np.float64)
    total = np.tile(starts, (len(queries), PANELS))
    for d in range(DIM):
        rows = panels[:, d].reshape(-1).astype(np.float64)
        total = (queries[:, d, None] * rows + total).astype(np.float32)
    return total


def compiled(kernel: emit.Kernel) -> Any:
    near, rows = strip_products(kernel), kernel.lanes * kernel.vectors

    @numba.njit
    def once(size, blocks, panels, panel, lane, starts, deep, gates, keys, counts, begin):  # type: ignore[no-untyped-def]
        """All dimensions of one strip, `deep` of them at a time; from block `begin` on at the last of them."""
        dim, waiting = panels.shape[1], np.empty(len(blocks) * size * rows, np.float32)
        tile = np.empty((len(counts), rows), np.float32)
        flat, strips = blocks.reshape(blocks.size), panels.reshape(panels.size)
        block = 0
        for at in range(0, dim, deep):
            final = at + deep >= dim
            block = near(
                size, flat, at * size, dim * size, begin if final else 0, len(blocks), strips,
                (panel * dim + at) * emit.PANEL + lane, min(deep, dim - at), starts, lane, waiting, 0, at == 0, final,
                gates, keys, counts, 0, panel * emit.PANEL + lane, 0, 1, tile,
            )  # fmt: skip
        return block

    return once


def expected(truth: np.ndarray, gates: np.ndarray) -> list[list[int]]:
    return [
        [int(key_of.py_func(-score, row)) for row, score in enumerate(line) if score > gate]
        for line, gate in zip(truth, gates, strict=True)
    ]


@pytest.mark.parametrize("deep", [DIM, 16, 5])
@pytest.mark.parametrize("name", emit.KERNELS)
def test_all_that_pass_are_written_down_with_the_bits_of_one_chain(name: str, deep: int) -> None:
    kernel = emit.KERNELS[name]
    once, rows = compiled(kernel), kernel.lanes * kernel.vectors
    for size in kernel.blocks:
        blocks, panels, starts = data(size)
        truth = chains(blocks, panels, starts)
        gates = np.quantile(truth, 0.9, axis=1).astype(np.float32)
        gates[-1] = np.inf  # nobody passes
        keys, counts = np.zeros((len(truth), ROOM + rows), np.uint64), np.zeros(len(truth), np.int64)
        for panel in range(PANELS):
            for lane in range(0, emit.PANEL, rows):
                assert once(size, blocks, panels, panel, lane, starts, deep, gates, keys, counts, 0) == BLOCKS
        assert [line[:count].tolist() for line, count in zip(keys, counts, strict=True)] == expected(truth, gates)


@pytest.mark.parametrize("name", emit.KERNELS)
def test_it_stops_behind_the_block_that_has_no_room_for_another_strip(name: str) -> None:
    kernel = emit.KERNELS[name]
    once, rows, size = compiled(kernel), kernel.lanes * kernel.vectors, kernel.blocks[1]
    blocks, panels, starts = data(size)
    truth = chains(blocks, panels, starts)[:, :rows]
    gates = np.full(len(truth), np.inf, np.float32)
    gates[size] = -np.inf  # all rows pass the first query of block 1
    keys, counts = np.zeros((len(truth), 2 * rows - 1), np.uint64), np.zeros(len(truth), np.int64)
    assert once(size, blocks, panels, 0, 0, starts, DIM, gates, keys, counts, 0) == 1
    assert counts.tolist() == [rows if line == size else 0 for line in range(len(truth))]
    assert sorted(keys[size, :rows].tolist()) == sorted(expected(truth, gates)[size])
    assert once(size, blocks, panels, 0, 0, starts, DIM, gates, keys, counts, 2) == BLOCKS
