"""A search keeps tiny numbers whatever mode its caller is in, on every thread, and leaves the caller's mode alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from retrieval_bench.registry import BACKENDS
from retrieval_bench.search import index, packed
from retrieval_bench.search.index import ExactIndex


@pytest.fixture
def flushing() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    yield
    torch.set_flush_denormal(False)


def tiny_numbers_vanish() -> bool:
    return bool((torch.tensor([1e-40]) * torch.tensor([1.0]))[0] == 0)


@pytest.mark.parametrize("backend", [entry.name for entry in BACKENDS.own() if entry.facts.get("exact")])
@pytest.mark.parametrize("distance", ["euclidean", "inner_product", "cosine"])
def test_subnormal_rows_keep_their_order(
    backend: str, distance: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(index, "_SMALL", 0)
    rows = (np.random.default_rng(0).standard_normal((2000, 12)) * 1e-39).astype(np.float32)
    expected = ExactIndex(rows, distance).search(rows[:100], 5)  # type: ignore[arg-type]
    request.getfixturevalue("flushing")
    assert tiny_numbers_vanish()
    found = BACKENDS[backend].build(rows, distance)(rows[:100], 5)
    assert_array_equal(found.indices, expected.indices)
    assert tiny_numbers_vanish()


def test_every_thread_count_finds_the_same(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_WORK_PER_THREAD", 1)
    monkeypatch.setattr(index, "_SMALL", 0)
    rows = (np.random.default_rng(1).standard_normal((2000, 12)) * 1e-39).astype(np.float32)
    request.getfixturevalue("flushing")
    searcher = ExactIndex(rows, "euclidean")
    one, two = (searcher.search(rows[:100], 5, threads=threads) for threads in (1, 2))
    assert_array_equal(one.indices, two.indices)
    assert_array_equal(one.indices[:, 0], np.arange(100))
