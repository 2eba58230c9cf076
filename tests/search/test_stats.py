"""`last`: what the last search of a thread did, whichever way it went."""

import copy
import threading
from typing import Any

import numpy as np
import pytest

from retrieval_bench.search import certified, index
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.stats import ScanStats

Q, N = 6, 900


def vectors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((Q, 24), dtype=np.float32), rng.standard_normal((N, 24), dtype=np.float32)


@pytest.fixture(params=["in one compiled call", "step by step", "int8"])
def scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keywords of an index; the three ways that a search goes."""
    if request.param == "step by step":
        monkeypatch.setattr(index, "_SMALL", 0)
    return {"scan": "int8" if request.param == "int8" else "float32"}


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner_product"])
def test_some_rows_are_rescored_and_where_all_are_wanted_all_are(scan: Any, distance: Any) -> None:
    queries, gallery = vectors()
    searched = ExactIndex(gallery, distance, **scan)
    assert searched.last == ScanStats(0, 0, 0, 0)
    searched.search(queries, 5)
    assert searched.last[:2] == (Q, N)
    assert Q * 5 <= searched.last.rescored < Q * N / 4
    assert searched.last.doubtful == 0
    assert searched.last.share == searched.last.rescored / (Q * N)
    searched.search(queries[:2], N)
    assert searched.last == ScanStats(2, N, 2 * N, 0)
    assert searched.last.share == 1.0


def test_where_all_rows_are_equal_all_are_rescored_at_a_second_look(scan: Any) -> None:
    queries, gallery = vectors()
    searched = ExactIndex(np.repeat(gallery[:1], N, axis=0), "euclidean", **scan)
    searched.search(queries, 5)
    assert searched.last.doubtful == Q
    first_look = searched.last.rescored - Q * N
    assert 0 < first_look <= Q * certified.rescore_budget(N, 5) + Q * N


def test_codes_need_no_second_computation() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (50, 4), dtype=np.uint8)
    searched = ExactIndex(codes, "hamming")
    searched.search(codes[:3], 2)
    assert searched.last == ScanStats(3, 50, 0, 0)
    assert ExactIndex(codes[:0], "hamming").last.share == 0.0


def test_a_search_on_disk_tells_it_too(tmp_path: Any) -> None:
    queries, gallery = vectors()
    np.save(tmp_path / "gallery.npy", gallery)
    searched = ExactIndex.from_npy(tmp_path / "gallery.npy")
    searched.search(queries, N)
    assert searched.last == ScanStats(Q, N, Q * N, 0)


def test_each_thread_sees_its_own(scan: Any) -> None:
    queries, gallery = vectors()
    searched = ExactIndex(gallery, **scan)
    both_searched, seen = threading.Barrier(2), {}

    def search(count: int) -> None:
        searched.search(queries[:count], N)
        both_searched.wait(30)
        seen[count] = searched.last

    threads = [threading.Thread(target=search, args=(count,)) for count in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {count: ScanStats(count, N, count * N, 0) for count in (2, 3)}
    assert searched.last == ScanStats()  # this thread has not searched


def test_a_copy_has_not_searched_yet(scan: Any) -> None:
    queries, gallery = vectors()
    searched = ExactIndex(gallery, **scan)
    searched.search(queries, 5)
    assert copy.deepcopy(searched).last == ScanStats()
    assert searched.last.queries == Q
