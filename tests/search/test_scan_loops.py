"""The innermost loops: the bits of the plain ones at every width, one chain of fused multiply-adds, and a stop at the
first panel with a hit."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.search import emit, scan_loops

PANELS, DIM = 5, 37

pytestmark = pytest.mark.slow(reason="compiles loops that no search uses, without a cache")


def scanned(loop: Any, block: np.ndarray, panels: np.ndarray, bias: np.ndarray, gates: np.ndarray, rows: int) -> Any:
    """Every stop of a loop over all panels: (panel, masks, what the tile holds of the rows that passed)."""

    @numba.njit
    def once(block, panels, begin, bias, gates, tile, masks):  # type: ignore[no-untyped-def]
        return loop(block, panels, begin, len(panels), bias, gates, tile, masks)

    stops, begin = [], 0
    tile, masks = np.zeros((rows, emit.PANEL), np.float32), np.zeros(rows + 1, np.uint64)
    while True:
        panel = once(block, panels, begin, bias, gates, tile, masks)
        if panel == len(panels):
            return stops
        stops.append((panel, masks.copy(), tile.copy()))
        begin = panel + (4 if rows == 4 and block.shape[1] == 1 else 1)


def data(queries: int, panels: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(queries)
    block = rng.standard_normal((DIM, queries), dtype=np.float32)
    gallery = rng.standard_normal((panels, DIM, emit.PANEL), dtype=np.float32)
    bias = rng.standard_normal((panels, emit.PANEL), dtype=np.float32)
    return block, gallery, bias


def scores(block: np.ndarray, gallery: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(panels, queries, PANEL) float32: float64 holds product and sum of these values exactly enough to round once."""
    total = np.repeat(bias[:, None], block.shape[1], axis=1)
    for d in range(len(block)):
        exact = block[d].astype(np.float64)[None, :, None] * gallery[:, d].astype(np.float64)[:, None] + total
        total = exact.astype(np.float32)
    return total


@pytest.mark.parametrize("name", emit.KERNELS)
def test_products_are_one_chain_of_fused_multiply_adds_and_stop_where_a_row_passes(name: str) -> None:
    kernel = emit.KERNELS[name]
    for queries in kernel.blocks:
        block, gallery, bias = data(queries, PANELS)
        truth = scores(block, gallery, bias)
        gates = np.quantile(truth, 0.995, axis=(0, 2)).astype(np.float32)
        passed = truth > gates[:, None]
        stops = scanned(scan_loops.products(kernel, queries), block, gallery, bias, gates, queries)
        assert [panel for panel, _, _ in stops] == np.flatnonzero(passed.any(axis=(1, 2))).tolist()
        for panel, masks, tile in stops:
            bits = masks[:-1, None] >> np.arange(emit.PANEL, dtype=np.uint64) & np.uint64(1)
            assert_array_equal(bits.astype(bool), passed[panel])
            assert_array_equal(tile, -truth[panel])


@pytest.mark.parametrize("name", emit.KERNELS)
def test_four_panels_at_once_for_one_query(name: str) -> None:
    block, gallery, bias = data(1, 8)
    truth = scores(block, gallery, bias)[:, 0]
    gates = np.full(4, np.quantile(truth, 0.99), np.float32)
    stops = scanned(scan_loops.products(emit.KERNELS[name], 1, 4), block, gallery, bias, gates, 4)
    assert [panel for panel, _, _ in stops] == [
        first for first in (0, 4) if (truth[first : first + 4] > gates[0]).any()
    ]
    for panel, masks, tile in stops:
        bits = masks[:-1, None] >> np.arange(emit.PANEL, dtype=np.uint64) & np.uint64(1)
        assert_array_equal(bits.astype(bool), truth[panel : panel + 4] > gates[0])
        assert_array_equal(tile, -truth[panel : panel + 4])


def test_without_panels_or_hits_the_end_is_returned() -> None:
    for name, kernel in emit.KERNELS.items():
        block, gallery, bias = data(1, PANELS)
        nobody = np.full(1, np.inf, np.float32)
        assert scanned(scan_loops.products(kernel, 1), block, gallery, bias, nobody, 1) == [], name
        assert scanned(scan_loops.products(kernel, 1), block, gallery[:0], bias[:0], nobody, 1) == [], name
