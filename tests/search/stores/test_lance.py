"""The backend lancedb, on real files."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from retrieval_bench.core import DISTANCES, BenchError, Distance
from retrieval_bench.search.stores.durability import durability
from retrieval_bench.search.stores.lance import open_store
from tests.support.store_rows import DIM, N, assert_like_the_engine, built, recall, rows_of, spec_of


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    pytest.importorskip("lancedb", reason="needs the extra lancedb")


@pytest.mark.parametrize("distance", DISTANCES)
def test_all_rows_compared_is_what_the_engine_finds(distance: Distance) -> None:
    search = built("lancedb:exact", rows_of(distance), distance)
    folder = search.store.folder
    assert search.bytes > rows_of(distance).nbytes
    assert_like_the_engine(search, distance)
    search.close()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        ("lancedb:ivf_hnsw_sq:build_ef=100", "cosine"),
        ("lancedb:ivf_sq:lists=2:probes=2", "cosine"),
        ("lancedb:ivf_pq:refine=40", "euclidean"),
        ("lancedb:ivf_flat:lists=2:probes=2", "hamming"),
    ],
)
def test_indexes_find_nearly_all(text: str, distance: Distance) -> None:
    rows, queries = rows_of(distance), rows_of(distance, 12, seed=2)
    search = built(text, rows, distance)
    found = search(queries, 10)
    assert search.approximate
    assert search.truncated
    search.close()
    assert recall(found, rows, queries, distance) > 0.93


def test_filters_deletions_and_options_of_a_search() -> None:
    rows = rows_of("cosine")
    store = open_store(DIM, "cosine", ("bucket",), **spec_of("lancedb:ivf_flat:lists=4:probes=1").resolved)
    store.insert(np.arange(N), rows, {"bucket": np.arange(N) % 100})
    store.build_index()
    wide = store.with_search_options(probes=4)
    kept = np.arange(7, N, 100)
    found = wide.search(rows[:5], 10, {"bucket": (7, 7)})
    assert_array_equal(np.sort(found.ids[:, : len(kept)], axis=1), np.tile(kept, (5, 1)))
    assert (found.ids[:, len(kept) :] == -1).all()
    gone = np.arange(0, N, 5)
    store.delete(gone)
    assert store.count() == N - len(gone)
    assert not np.isin(wide.search(rows[:30], 20).ids, gone).any()
    store.insert(gone, rows[gone], {"bucket": np.zeros(len(gone))})
    known = gone[rows[gone].any(axis=1)]
    assert_array_equal(wide.search(rows[known], 1).ids[:, 0], known)
    with pytest.raises(BenchError, match="columns but the store was made for 24"):
        store.insert(np.array([N]), rows[:1, :5], {"bucket": np.zeros(1)})
    with pytest.raises(BenchError, match="lists cannot change at search"):
        store.with_search_options(lists=2)
    shutil.rmtree(store.folder)
    with pytest.raises(BenchError, match=r"^lancedb: the table in .* cannot be used .*; make a new one$"):
        store.search(rows[:1], 3)
    store.close()


@pytest.mark.slow(reason="a process of its own, which loads LanceDB, is killed")
def test_every_acknowledged_row_survives_a_killed_writer() -> None:
    store = open_store(DIM, "cosine", ("bucket",), **spec_of("lancedb:exact").resolved)
    store.insert(np.arange(N), rows_of("cosine"), {"bucket": np.zeros(N)})
    result = durability(store, 10 * N)
    store.close()
    assert (result.lost, result.torn, result.before, result.killed) == (0, 0, 0, "writer")
    assert result.acknowledged >= 500


def test_mistakes_are_one_sentence_each(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="ivf_pq compares no codes; hamming takes lancedb:exact or lancedb:ivf_flat"):
        built("lancedb:ivf_pq", rows_of("hamming"), "hamming")
    with pytest.raises(BenchError, match="lancedb:ivf_sq has no use for ef; it takes lists, probes, refine"):
        built("lancedb:ivf_sq:ef=7", rows_of("cosine"))
    with pytest.raises(BenchError, match="learns from at least 256 rows, and the gallery has 20"):
        built("lancedb:ivf_pq", rows_of("cosine")[-20:])
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(BenchError, match=r"lancedb is not installed; install it by pip install 'retrieval-bench"):
        built("lancedb:exact", rows_of("cosine"))
