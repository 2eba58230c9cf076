"""The measurement of approximate indexes: it counts what they miss, and times them in turns with `exact`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark.approximate import app
from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.approximate import Drawn, Measured, drawn, recall, target

pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')


def test_indexes_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    words = ["--rows", 1000, "--dim", 8, "--queries", 25, "--rounds", 1, "--threads", 1, "--json", file]
    done = CliRunner().invoke(app, [*map(str, words), "--indexes", "faiss:hnsw:m=8,faiss:flat,faiss:ivf:probes=2"])
    assert done.exit_code == 0, done.output
    for what in ("exact ", "faiss:hnsw:m=8:ef=16", "faiss:hnsw:m=8:ef=256", "faiss:flat ", "faiss:ivf:probes=2 "):
        assert f"\n{what}" in done.stdout
    assert "faiss:hnsw, recall@10 >= 0.99 at >= 10 x exact" in done.stdout
    record = json.loads(file.read_text(encoding="utf-8"))
    assert (record["schema"], record["rows"], record["threads"]) == (1, 1000, 1)
    found = {one["name"]: one for one in record["results"]}
    assert found["exact"]["recall"] == found["faiss:flat"]["recall"] == 1.0
    assert len(found["faiss:flat"]["one_ms"]) == len(found["faiss:flat"]["exact_ms"]) == 25
    assert found["faiss:flat"]["bytes_a_row"] > 32
    wrong = CliRunner().invoke(app, ["--rows", "1000", "--indexes", "faiss:hnws"])
    assert (wrong.exit_code, "kind='hnws' is not one of" in wrong.stderr) == (2, True)


def test_a_row_as_near_as_the_last_counts() -> None:
    gallery = np.eye(4, dtype=np.float32)[[0, 1, 1, 2]]
    data, furthest = Drawn(gallery, gallery[1:2]), np.array([-1.0])
    assert recall(data, np.array([[2]]), furthest) == 1.0
    assert recall(data, np.array([[3, -1]]), furthest) == 0.0
    with pytest.raises(BenchError, match="finds a row twice"):
        recall(data, np.array([[2, 2]]), furthest)


def test_the_same_seed_draws_the_same_clusters() -> None:
    once, again, other = drawn(1000, 8, 30), drawn(1000, 8, 30), drawn(1000, 8, 30, seed=1)
    assert np.array_equal(once.gallery, again.gallery)
    assert not np.array_equal(once.queries, other.queries)
    assert np.allclose(np.linalg.norm(once.gallery, axis=1), 1)


def test_the_fastest_of_those_that_find_enough_is_judged() -> None:
    def graph(name: str, found: float, ms: float) -> Measured:
        return Measured(name, 1.0, 1.0, found, [ms], [20.0], [1.0], 10)

    slow, quick = graph("faiss:hnsw:ef=256", 0.999, 4.0), graph("faiss:hnsw:ef=64", 0.99, 1.0)
    careless = graph("faiss:hnsw:ef=16", 0.9, 0.1)
    assert target([slow, quick, careless]) == (True, quick)
    assert target([slow, careless]) == (False, slow)
    assert target([careless]) == (False, careless)
    assert target([graph("usearch", 1.0, 0.1)]) is None
