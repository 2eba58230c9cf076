from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from methods import MeanColor, spec
from shop import shop, split
from test_cli import call, own_cache, shelf
from test_cli import run as run_command
from test_runner import plan

from retrieval_bench.core import Dataset, NotComparable
from retrieval_bench.registry import DATASETS, Entry
from retrieval_bench.results import Record, load_rankings
from retrieval_bench.revisit import dataset_of, values_of
from retrieval_bench.runner import run
from retrieval_bench.slices import sliced, slicings

assert own_cache
assert shelf


def attributed() -> Dataset:
    """Labels with 0, 1, 2 and 6 train images; queries that carry attributes of every kind."""
    data = shop(4, 6)
    train = split("train", [1, 2, 2, *[3] * 6])
    n = len(data.query)
    columns = {
        "turned": np.linspace(-90, 90, n),
        "holes": np.where(np.arange(n) % 5 == 0, np.nan, np.arange(n, dtype=float)),
        "lamp": np.array(["day", "night"])[np.arange(n) % 2],
        "text": np.array([f"words {row}" for row in range(n)], dtype=object),
        "same": np.zeros(n),
    }
    return data.with_splits({"train": train, "query": replace(data.query, attributes=columns)})


@pytest.fixture
def shop_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Record, Path]:
    data = attributed()
    monkeypatch.setitem(DATASETS._entries, "shop", Entry("shop", lambda root: data, "for tests"))
    return run(plan(data, spec("mean", MeanColor), "phash"), tmp_path / "out"), tmp_path / "out"


def test_every_slicing_divides_all_queries_once() -> None:
    data = attributed()
    ways = {way.by: way for way in slicings(data.train, data.query, data.category_names, 4)}
    assert set(ways) == {"category", "class size", "turned", "holes", "lamp"}  # text: too many; same: one value
    for way in ways.values():
        rows = np.concatenate(list(way.slices.values()))
        assert sorted(rows.tolist()) == list(range(len(data.query)))
    assert {name: len(rows) for name, rows in ways["class size"].slices.items()} == {
        "none": 6,
        "1": 6,
        "2-5": 6,
        "6-20": 6,
    }
    assert [len(rows) for rows in ways["turned"].slices.values()] == [6, 6, 6, 6]
    assert next(iter(ways["turned"].slices)) == "-90 to -45"
    assert len(ways["holes"].slices["unknown"]) == 5
    assert ways["lamp"].slices["night"].tolist() == list(range(1, 24, 2))


def test_scores_of_slices_are_means_of_their_queries(shop_record: tuple[Record, Path]) -> None:
    record, folder = shop_record
    arrays = load_rankings(folder, record)
    data = dataset_of(record)
    found = {way["by"]: way["slices"] for way in sliced(record, arrays, data, ["mean", "phash"])}
    values = values_of(record, arrays, "mean")["accuracy"]
    for by, slices in found.items():
        assert sum(one["queries"] for one in slices) == len(values), by
        total = sum(one["queries"] * one["scores"]["mean"]["accuracy"]["mean"] for one in slices)
        assert total / len(values) == pytest.approx(record.rows[0].scores["accuracy"])
    (none, *_) = found["class size"]
    assert (none["queries"], none["products"]) == (6, 1)
    assert none["scores"]["mean"]["accuracy"]["low"] is None  # one product: nothing to draw from
    assert found["category"][0]["scores"]["mean"]["accuracy"]["low"] is not None
    json.dumps(found, allow_nan=False)


def test_other_images_are_refused(shop_record: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = shop_record
    other = shop(4, 5)
    monkeypatch.setitem(DATASETS._entries, "shop", Entry("shop", lambda root: other, "for tests"))
    with pytest.raises(NotComparable, match="fingerprint"):
        dataset_of(record)


def test_the_command(shelf: Path, tmp_path: Path) -> None:
    (shelf / "query" / "product-0" / "0.png").write_bytes(b"")  # skipped, and left out again
    assert run_command(shelf, tmp_path / "out", "--methods", "color,phash", "--max-bad", "1").exit_code == 0
    shown = call("slices", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    assert "nothing divides" in shown.stdout  # one class size, no category
    assert call("slices", tmp_path / "out", "--methods", "sift").exit_code == 2
    assert call("slices", tmp_path / "out", "--metric", "f1@3").exit_code == 2
    found = json.loads(call("slices", tmp_path / "out", "--json").stdout)
    assert found == {"dataset": "folder", "methods": ["color", "phash"], "slicings": []}
    (shelf / "query" / "product-1" / "0.png").unlink()
    assert call("slices", tmp_path / "out").exit_code == 3
