"""The trial of stores, by its command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.search.stores import trial
from retrieval_bench.search.stores.durability import Durability
from retrieval_bench.search.stores.readers import ReadersResult
from retrieval_bench.search.stores.store import Nearby
from retrieval_bench.search.stores.trial import StoreResult, TrialData, Truth, parse_stores
from retrieval_bench.search.stores.trial_table import lines
from tests.support.command import call
from tests.support.store_rows import rows_of


@pytest.mark.usefixtures("server")
def test_a_trial_of_codes_where_one_store_can_and_one_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_READ_S", 0.3)
    words = ("--n", 1000, "--dim", 64, "--queries", 8, "--distance", "hamming", "--out", tmp_path / "out")
    done = call("stores", "--stores", "pgvector:hnsw:ef=40,lancedb:ivf_pq", *words)
    assert done.exit_code == 4, done.output
    assert "lancedb:ivf_pq failed: lancedb: ivf_pq compares no codes" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "failed:" not in line) <= 100
    assert (tmp_path / "out" / "stores.txt").read_text(encoding="utf-8") == done.stdout
    record = json.loads((tmp_path / "out" / "stores.json").read_text(encoding="utf-8"))
    assert (record["rows"], record["columns"], record["server_settings"]["fsync"]) == (1000, 8, "on")
    first, second = record["results"]
    assert second["failed"]
    assert first["recall"] > 0.8
    assert first["filtered"]["pgvector:hnsw:ef=40"]["1"] > 0.9
    assert first["filtered"]["pgvector:hnsw:ef=40:iterative=off"]["1"] < 0.5
    assert first["durability"]["lost"] == first["readers"]["errors"] == 0
    assert first["over_raw"] > 0


@pytest.mark.usefixtures("server")
def test_mistakes_of_the_command_are_one_sentence_each(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.ones(3))
    (tmp_path / "torn.npy").write_bytes(b"no array")
    for words, sentence in (
        (("--stores", "exact"), "exact is no store; stores are lancedb, pgvector"),
        (("--stores", ","), "--stores names none"),
        (("--stores", "pgvector"), "say which; write pgvector:KIND"),
        (("--stores", "pgvector:exact:dsn=postgresql://me:hush@h:1/db"), "dsn holds a password"),
        (("--distance", "cosin"), "did you mean 'cosine'?"),
        (("--vectors", tmp_path / "flat.npy"), "holds no array of two dimensions"),
        (("--vectors", tmp_path / "torn.npy"), "cannot be read as a .npy array"),
        (
            ("--stores", "pgvector:exact", "--dsn", "postgresql://me:hush@127.0.0.1:1/db"),
            "at me@127.0.0.1:1/db",
        ),
    ):
        done = call("stores", "--n", 1000, "--dim", 8, *words)
        assert done.exit_code == 2, done.output
        assert sentence in done.stderr
        assert "hush" not in done.output
        assert done.stderr.count("\n") == 1


def test_mistakes_that_need_no_server_are_told_before_anything_is_tried(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\n")
    for words, sentence in (
        (("--dim", 9, "--distance", "hamming"), "--dim 9: bits are kept by eights; write 8 or 16"),
        (("--out", tmp_path / "list.csv"), "is a file; name a folder"),
        (("--vectors", tmp_path / "list.csv"), "cannot be read as a .npy array of numbers; save one with np.save"),
        (("--vectors", tmp_path / "none.npy"), "none.npy: cannot be read (No such file or directory)"),
    ):
        done = call("stores", "--n", 1000, "--dim", 8, "--stores", "lancedb:exact", *words)
        assert done.exit_code == 2, done.output
        assert sentence in done.stderr
        assert "pickle" not in done.stderr


def test_the_tables_fit_a_terminal_whatever_a_store_is_called() -> None:
    name = "pgvector:hnsw:m=32:build_ef=400:ef=1000:iterative=strict_order:dsn=postgresql://someone@a.far.host:5432/db"
    whole = StoreResult(name, 123_456.7, 1234.5, 12_345.6, 12.34, 123.4, 0.999)
    whole.filtered = {name: dict.fromkeys(trial.SHARES, 0.5)}
    whole.readers, whole.durability = ReadersResult(12_345, 3, "why", 1.2, 3.4), Durability(500, 1, 0, 0, "server")
    text = lines([whole, StoreResult("lancedb:exact", failed="no room")], 10)
    assert all(len(line) <= 100 for line in text if "pgvector" not in line)
    assert f"{name}: first error: why" in text
    assert text[-1] == "lancedb:exact failed: no room"
    assert parse_stores("pgvector:exact, lancedb:exact")[1].resolved["kind"] == "exact"
    assert not Durability(5, 0, 1, 0, "server").kept


def test_recall_counts_what_a_filter_allows() -> None:
    data = TrialData(rows_of("cosine", 1000), rows_of("cosine", 5, seed=3), k=20)
    truth = Truth(data)
    nearest = truth.nearest(1)
    assert (nearest.ids[:, 10:] == -1).all()  # one percent of 1,000 rows is 10
    assert (truth.bucket[nearest.ids[:, :10]] == 0).all()
    assert truth.recall(nearest, 1) == 1
    half = np.where(np.arange(20) < 5, nearest.ids, -1)
    assert truth.recall(Nearby(half, nearest.distances), 1) == 0.5
    with pytest.raises(BenchError, match="at least 1,000 rows, and there are 5; raise --n"):
        TrialData(data.queries, data.queries)
    with pytest.raises(BenchError, match="at least 2 queries"):
        TrialData(data.gallery, data.queries[:1])
