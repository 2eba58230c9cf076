"""The backend `torch` finds what the engine finds, bit for bit, whatever the device's products look like.

torch's tensors work the same on the CPU, so all of it runs here; what a GPU adds is another order of summation, which
the tests imitate.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from numpy.testing import assert_array_equal

from retrieval_bench.core import DISTANCES, BenchError
from retrieval_bench.registry import BACKENDS, backend_on
from retrieval_bench.search import gpu
from retrieval_bench.search.gpu import TorchIndex, bit_counts
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.system.device import Portion
from tests.support.searches import assert_equal, tied_searches

VECTORS = ("cosine", "euclidean", "inner_product")


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Queries that went to the float32 engine, call by call; and little to spare, so that small galleries will do."""
    monkeypatch.setattr(gpu, "SPARE", 8)
    seen: list[int] = []
    float32 = TorchIndex._float32

    def watched(self: TorchIndex) -> Any:
        engine = float32(self)

        class Watched:
            def search(self, queries: np.ndarray, *others: Any) -> Any:
                seen.append(len(queries))
                return engine.search(queries, *others)

        return Watched()

    monkeypatch.setattr(TorchIndex, "_float32", watched)
    return seen


def some(seed: int, n: int, q: int, dim: int, distance: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gallery, queries = rng.standard_normal((n, dim), np.float32), rng.standard_normal((q, dim), np.float32)
    if distance == "hamming":
        return np.packbits(gallery > 0, axis=1), np.packbits(queries > 0, axis=1)
    return gallery, queries


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(tied_searches())
def test_ties_everywhere_equal_the_twin_exactly(search: Any) -> None:
    distance, queries, gallery, k, exclude = search
    before, gpu.SPARE = gpu.SPARE, 1
    try:
        found = TorchIndex(gallery, distance)(queries, k, exclude)
    finally:
        gpu.SPARE = before
    assert_equal(found, NumpyIndex(gallery, distance)(queries, k, exclude))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("n", "dim", "k"), [(3000, 37, 1), (3000, 37, 10), (900, 513, 100), (2000, 3, 40)])
@pytest.mark.parametrize("cells", [gpu.CPU_CELLS, 20_000])
def test_same_bits_as_the_engine(
    distance: Any, n: int, dim: int, k: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "CPU_CELLS", cells)
    monkeypatch.setattr(gpu, "QUERIES_AT_ONCE", 16)
    gallery, queries = some(n + dim, n, 35, dim, distance)
    gallery[n // 2 : n // 2 + 300] = gallery[:300]
    if distance != "hamming":
        gallery[n // 3] = 0
        queries[4] = 0
    queries[7:20] = gallery[7:20]
    exclude = np.random.default_rng(0).integers(-1, n, (35, 3))
    exclude[7:20, 0] = np.arange(7, 20)
    for hidden in (None, exclude):
        found = TorchIndex(gallery, distance).search(queries, k, hidden)
        assert_equal(found, ExactIndex(gallery, distance).search(queries, k, hidden))


@pytest.mark.parametrize("distance", VECTORS)
def test_few_rows_are_rescored_and_no_query_needs_the_engine(
    distance: Any, candidates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the device would be there for show."""
    from retrieval_bench.search import settling

    rescored: list[int] = []
    inner = settling.settled

    def watched(*arguments: Any, **others: Any) -> Any:
        found = inner(*arguments, **others)
        rescored.append(found.rescored)
        return found

    monkeypatch.setattr(settling, "settled", watched)
    gallery, queries = some(1, 5000, 50, 128, distance)
    assert_equal(TorchIndex(gallery, distance).search(queries, 10), ExactIndex(gallery, distance).search(queries, 10))
    assert candidates == []
    assert rescored[0] < 50 * 20


@pytest.mark.parametrize("distance", VECTORS)
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_summation_gives_the_same_bits(
    distance: Any, seed: int, candidates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU adds in another order: here dimensions are dealt out anew for every tile, and parts are added backwards."""
    rng = np.random.default_rng(seed)

    def products(queries: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        order = torch.from_numpy(rng.permutation(tile.shape[1]))
        total = torch.zeros((len(queries), len(tile)))
        for part in order.split(int(rng.integers(1, 40))):
            for one in part:
                total += queries[:, one, None] * tile[None, :, one]
        return total

    monkeypatch.setattr(TorchIndex, "_products", staticmethod(products))
    monkeypatch.setattr(gpu, "CPU_CELLS", 10_000)
    gallery, queries = some(seed, 700, 13, 97, distance)
    # Rows that float32 can hardly tell apart: their order is decided by the last bits.
    gallery[200:260] = gallery[100] * (1 + rng.integers(-2, 3, (60, 1)).astype(np.float32) * 2.0**-23)
    queries[:5] = gallery[100]
    assert_equal(TorchIndex(gallery, distance).search(queries, 9), ExactIndex(gallery, distance).search(queries, 9))


@pytest.mark.parametrize("distance", VECTORS)
@pytest.mark.parametrize("seed", range(4))
def test_errors_as_large_as_the_bound_allows_lose_no_row(
    distance: Any, seed: int, candidates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order of summation errs as much: each product is off by nine tenths of d u |p||y|, up or down."""
    rng = np.random.default_rng(seed)

    def products(queries: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        exact = queries.double() @ tile.double().T
        most = queries.double().norm(dim=1)[:, None] * tile.double().norm(dim=1) * queries.shape[1] * 2.0**-24
        return (exact + 0.9 * most * torch.from_numpy(rng.choice([-1.0, 1.0], exact.shape))).float()

    monkeypatch.setattr(TorchIndex, "_products", staticmethod(products))
    gallery, queries = some(seed, 700, 13, 97, distance)
    gallery[200:212] = gallery[100] * (1 + 1e-6 * rng.standard_normal((12, 97))).astype(np.float32)
    queries[:5] = gallery[100] * (1 + 1e-3 * rng.standard_normal((5, 97))).astype(np.float32)
    assert_equal(TorchIndex(gallery, distance).search(queries, 3), ExactIndex(gallery, distance).search(queries, 3))
    assert sum(candidates) < 13  # else the device would be there for show


@pytest.mark.parametrize("distance", VECTORS)
def test_products_in_less_than_float32_are_found_out(
    distance: Any, candidates: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def tf32(values: torch.Tensor) -> torch.Tensor:
        return (values.view(torch.int32) + 0x1000 & ~0x1FFF).view(torch.float32)

    monkeypatch.setattr(TorchIndex, "_products", staticmethod(lambda queries, tile: tf32(queries) @ tf32(tile).T))
    gallery, queries = some(2, 2000, 40, 64, distance)
    index = TorchIndex(gallery, distance)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_equal(index.search(queries, 10), ExactIndex(gallery, distance).search(queries, 10))
    assert [record.message for record in caplog.records if "not full float32" in record.message].__len__() == 1
    assert candidates == [40, 40]


@pytest.mark.parametrize("distance", VECTORS)
def test_a_query_without_a_direction_accuses_no_device(distance: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is at one distance from all rows by definition, whatever the device's products say."""
    gallery = np.random.default_rng(0).random((100, 8), np.float32)
    queries = np.concatenate([np.zeros((2, 8), np.float32), gallery[:3]])
    index = TorchIndex(gallery, distance)
    with caplog.at_level(logging.WARNING):
        assert_equal(index.search(queries, 3), ExactIndex(gallery, distance).search(queries, 3))
    assert index._trusted
    assert not caplog.records


def test_a_lowered_precision_of_products_is_raised_and_put_back() -> None:
    gallery, queries = some(3, 1000, 10, 32, "cosine")
    seen: list[str] = []
    index = TorchIndex(gallery)
    torch.set_float32_matmul_precision("medium")
    try:
        inner = TorchIndex._products

        def products(queries: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_float32_matmul_precision())
            return inner(queries, tile)

        index._products = products  # type: ignore[method-assign]
        assert_equal(index.search(queries, 5), ExactIndex(gallery).search(queries, 5))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {"highest"}


@pytest.mark.parametrize("distance", VECTORS)
def test_crowds_of_equals_go_to_the_engine(distance: Any, candidates: list[int]) -> None:
    gallery, queries = some(4, 1000, 6, 20, distance)
    gallery[300:600] = gallery[1]
    queries[2:4] = gallery[1]
    found = TorchIndex(gallery, distance).search(queries, 10)
    assert_equal(found, ExactIndex(gallery, distance).search(queries, 10))
    assert len(candidates) == 1
    assert 2 <= candidates[0] <= 6


def test_one_huge_row_makes_the_bound_useless_and_nothing_wrong() -> None:
    for distance in ("euclidean", "inner_product"):
        gallery, queries = some(5, 1000, 9, 20, distance)
        gallery[77] *= 1e9
        assert_equal(TorchIndex(gallery, distance).search(queries, 5), ExactIndex(gallery, distance).search(queries, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e-6, 1e8, 1e15])
@pytest.mark.parametrize("distance", VECTORS)
def test_any_scale(distance: Any, scale: float) -> None:
    gallery, queries = (rows * np.float32(scale) for rows in some(6, 600, 9, 30, distance))
    gallery[100:200] = gallery[50] + scale * np.float32(1e-4) * gallery[100:200] / np.float32(scale)
    assert_equal(TorchIndex(gallery, distance).search(queries, 7), ExactIndex(gallery, distance).search(queries, 7))


def test_bits_are_counted() -> None:
    words = np.random.default_rng(0).integers(-(2**31), 2**31, 5000).astype(np.int32)
    words[:6] = [0, -1, -(2**31), 2**31 - 1, 0x55555555, -0x55555556]
    assert_array_equal(
        bit_counts(torch.from_numpy(words)).numpy(), [int(word).bit_count() for word in words.view(np.uint32)]
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_out_of_memory_halves_the_tile_and_says_so(
    distance: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The one thing a CPU can't do by itself; here everything above 30,000 distances at once is too much."""
    what = "_smallest" if distance == "hamming" else "_best"
    inner = getattr(TorchIndex, what)

    def limited(self: TorchIndex, queries: np.ndarray, room: int, hidden: np.ndarray, cells: int) -> Any:
        if cells > 30_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, queries, room, hidden, cells)

    monkeypatch.setattr(TorchIndex, what, limited)
    monkeypatch.setattr(gpu, "CPU_CELLS", 100_000)
    gallery, queries = some(7, 2000, 20, 32, distance)
    index = TorchIndex(gallery, distance)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_equal(index.search(queries, 5), ExactIndex(gallery, distance).search(queries, 5))
    said = [record.message for record in caplog.records]
    assert said == [
        "torch backend: distances: not enough device memory for 100000 at once; continuing with 50000",
        "torch backend: distances: not enough device memory for 50000 at once; continuing with 25000",
    ]


def test_a_device_without_any_memory_left_is_one_sentence() -> None:
    def work(size: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BenchError, match="things: the memory of the device cannot hold even 2 at once"):
        Portion("things", 9, 2).attempt(work)


def test_a_gallery_that_does_not_fit_is_copied_in_parts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gallery, queries = some(8, 2000, 20, 32, "euclidean")
    to = torch.Tensor.to
    monkeypatch.setattr(gpu, "CPU_CELLS", 20_000)

    def small(self: torch.Tensor, *where: Any, **how: Any) -> torch.Tensor:
        if self.numel() > 50_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return to(self, *where, **how)

    monkeypatch.setattr(torch.Tensor, "to", small)
    with caplog.at_level(logging.WARNING):
        index = TorchIndex(gallery, "euclidean")
    assert "the gallery does not fit into the memory of cpu" in caplog.text
    assert_equal(index.search(queries, 5), ExactIndex(gallery, "euclidean").search(queries, 5))


def test_two_python_threads_may_search_one_index() -> None:
    gallery, queries = some(9, 3000, 200, 24, "cosine")
    index = TorchIndex(gallery)
    expected = ExactIndex(gallery).search(queries, 6)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: index.search(queries[start : start + 25], 6), range(0, 200, 25)))
    assert_array_equal(np.concatenate([part.indices for part in parts]), expected.indices)


def test_the_gallery_is_read_only_and_counted() -> None:
    gallery, queries = some(10, 500, 5, 16, "cosine")
    before = gallery.copy()
    gallery.flags.writeable = queries.flags.writeable = False
    index = TorchIndex(gallery)
    index.search(queries, 3)
    assert_array_equal(gallery, before)
    both = 2 * gallery.nbytes + 500 * 2 * 8  # points and rows, and two figures for each
    assert (len(index), index.dim, index.bytes) == (500, 16, both)
    index.search(queries, 500)
    assert index.bytes > both  # the engine's panels, needed to rank all


def test_the_device_reaches_the_backend_that_can_use_one() -> None:
    gallery = np.ones((3, 2))
    assert backend_on("torch", "cpu")(gallery, "cosine").device == "cpu"
    assert isinstance(backend_on("exact", "cuda")(gallery, "cosine"), ExactIndex)
    assert BACKENDS["torch"].build(gallery).device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(BenchError, match="--device cuda: torch sees no CUDA device here; use --device cpu or auto"):
            backend_on("torch", "cuda")(gallery, "cosine")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("distance", DISTANCES)
def test_on_a_gpu(distance: Any, candidates: list[int]) -> None:
    gallery, queries = some(11, 50_000, 300, 256, distance)
    gallery[1000:1200] = gallery[:200]
    exclude = np.arange(300)
    found = TorchIndex(gallery, distance, "cuda").search(queries, 10, exclude)
    assert_equal(found, ExactIndex(gallery, distance).search(queries, 10, exclude))
    assert candidates == []
