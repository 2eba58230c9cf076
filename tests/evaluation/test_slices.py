from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.compare.reload import dataset_of, main_values
from retrieval_bench.core import Dataset, NotComparable
from retrieval_bench.evaluation.query_metadata import Known, known_in, known_of
from retrieval_bench.evaluation.slices import Slicing, sliced, slicings
from retrieval_bench.evaluation.uncertainty import intervals_of, statistics
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load_rankings, save
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import DATASETS, Entry
from tests.support.command import call
from tests.support.command import run as run_command
from tests.support.methods import MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import shop, split

pytestmark = pytest.mark.usefixtures("own_cache")


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
        "price": np.array(["", *(f"{row}.50" for row in range(1, n))], dtype=object),
        "same": np.zeros(n),
    }
    return data.with_splits({"train": train, "query": replace(data.query, attributes=columns)})


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path]:
    folder = tmp_path_factory.mktemp("slices")
    return run(plan(attributed(), spec("mean", MeanColor), "phash"), folder), folder


@pytest.fixture
def shop_record(a_run: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Record, Path]:
    """A record, its folder, not to be written to, and its dataset under the name by which the record asks for it."""
    data = attributed()
    monkeypatch.setitem(DATASETS._entries, "shop", Entry("shop", lambda root: data, "for tests"))
    return a_run


def known(data: Dataset) -> Known:
    return known_of(data, np.array(data.query.ids))


def test_every_slicing_divides_all_queries_once() -> None:
    data = attributed()
    ways = {way.by: way for way in slicings(known(data), np.full(len(data.query), 6))}
    assert set(ways) == {"category", "class size", "|turned|", "holes", "lamp", "price"}
    # text: many values that are no numbers; same: one value; all queries have 6 relevant images
    for way in ways.values():
        rows = np.concatenate(list(way.slices.values()))
        assert sorted(rows.tolist()) == list(range(len(data.query)))
    assert {name: len(rows) for name, rows in ways["class size"].slices.items()} == {
        "none": 6,
        "1": 6,
        "2-5": 6,
        "6-20": 6,
    }
    assert [len(rows) for rows in ways["|turned|"].slices.values()] == [6, 6, 6, 6]
    assert next(iter(ways["|turned|"].slices)) == "3.91 to 25.4", "as far to the left as to the right"
    assert len(ways["holes"].slices["unknown"]) == 5
    assert ways["lamp"].slices["night"].tolist() == list(range(1, 24, 2))
    assert len(ways["price"].slices) == 5, "numbers written as text are numbers; one is not known"


def test_many_counts_become_few_groups_of_queries() -> None:
    sizes = np.random.default_rng(0).integers(1, 40, 400)
    (way,) = slicings(Known(), sizes)
    assert way.by == "relevant images"
    assert len(way.slices) == 4
    assert min(map(len, way.slices.values())) > 70
    last = 0
    for name, rows in way.slices.items():
        low, high = (float(edge) for edge in name.split(" to "))
        assert ((sizes[rows] >= low) & (sizes[rows] <= high)).all()
        assert low >= last
        last = high


def test_edges_are_written_as_finely_as_they_differ() -> None:
    column = np.linspace(1000.001, 1000.009, 100)
    (way,) = slicings(Known(attributes={"weight": column}), np.full(100, 2))
    assert len(way.slices) == 4
    assert next(iter(way.slices)) == "1000.001 to 1000.003"


def test_a_record_keeps_what_is_known(shop_record: tuple[Record, Path]) -> None:
    """Without the data, the arrays tell names, categories, class sizes and attributes."""
    record, folder = shop_record
    kept, data = known_in(load_rankings(folder, record)), attributed()
    direct = known(data)
    assert kept.label_names == data.label_names
    assert kept.category_names == data.category_names
    np.testing.assert_array_equal(kept.categories, data.query.categories)
    np.testing.assert_array_equal(kept.class_sizes, direct.class_sizes)
    assert set(kept.attributes) == {"turned", "holes", "lamp", "price"}
    for name, column in kept.attributes.items():
        np.testing.assert_array_equal(column, direct.attributes[name])


def test_an_old_record_knows_nothing() -> None:
    old = known_in({"query_labels": np.zeros(3)})
    assert (old.label_names, old.categories, old.class_sizes, dict(old.attributes)) == ((), None, None, {})


def test_scores_of_slices_are_means_of_their_queries(shop_record: tuple[Record, Path]) -> None:
    record, folder = shop_record
    arrays = load_rankings(folder, record)
    values = {name: main_values(record, arrays, name) for name in ("mean", "phash")}
    ways = slicings(known_in(arrays), arrays["n_relevant"])
    found = {way.by: way.slices for way in sliced(ways, values, arrays["query_labels"], 0)}
    direct = values["mean"]["accuracy"]
    for by, slices in found.items():
        assert sum(one.queries for one in slices) == len(direct), by
        total = sum(one.queries * one.scores["mean"]["accuracy"].mean for one in slices)
        assert total / len(direct) == pytest.approx(record.rows[0].scores["accuracy"])
    (none, *_) = found["class size"]
    assert (none.queries, none.products) == (6, 1)
    assert none.scores["mean"]["accuracy"].low is None  # one product: nothing to draw from
    assert found["category"][0].scores["mean"]["accuracy"].low is not None


def test_the_interval_of_a_slice_is_that_of_its_queries_alone(shop_record: tuple[Record, Path]) -> None:
    record, folder = shop_record
    arrays = load_rankings(folder, record)
    values = main_values(record, arrays, "mean")
    labels = arrays["query_labels"]
    rows = np.arange(1, len(labels), 2)
    way = Slicing("odd", "odd", {"odd": rows})
    ((part,),) = (one.slices for one in sliced([way], {"mean": values, "twin": values}, labels, 3))
    alone = intervals_of({"map@r": values["map@r"][rows]}, labels[rows], statistics(labels[rows], 3))["map@r"]
    assert part.scores["mean"]["map@r"].low == pytest.approx(alone.low, abs=1e-12)
    assert part.scores["twin"]["map@r"].high == pytest.approx(alone.high, abs=1e-12)


def test_other_images_are_refused(shop_record: tuple[Record, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = shop_record
    other = shop(4, 5)
    monkeypatch.setitem(DATASETS._entries, "shop", Entry("shop", lambda root: other, "for tests"))
    with pytest.raises(NotComparable, match="fingerprint"):
        dataset_of(record)


@pytest.mark.slow(reason="a run by the command line")
def test_the_command(shelf: Path, tmp_path: Path) -> None:
    (shelf / "query" / "product-0" / "0.png").write_bytes(b"")  # skipped, and left out again
    assert run_command(shelf, tmp_path / "out", "--methods", "color,phash", "--max-bad", "1").exit_code == 0
    shown = call("slices", tmp_path / "out")
    assert shown.exit_code == 0, shown.stderr
    assert "these queries cannot be divided" in shown.stdout  # one class size, no category
    assert call("slices", tmp_path / "out", "--methods", "sift").exit_code == 2
    assert call("slices", tmp_path / "out", "--methods", "").exit_code == 2
    assert call("slices", tmp_path / "out", "--metric", "f1@3").exit_code == 2
    found = json.loads(call("slices", tmp_path / "out", "--json").stdout)
    assert found == {"dataset": "folder", "methods": ["color", "phash"], "slicings": []}
    shutil.rmtree(shelf)
    assert call("slices", tmp_path / "out").exit_code == 0, "a record knows by itself"


def test_the_command_shows_counts_and_intervals(shop_record: tuple[Record, Path]) -> None:
    shown = call("slices", shop_record[1], "--methods", "mean", "--metric", "map@r").stdout
    assert re.search(r"^day +12 +4 +[01]\.\d{3} \[[01]\.\d{3}, [01]\.\d{3}\]$", shown, re.MULTILINE), shown


def test_an_old_record_asks_the_data(
    shop_record: tuple[Record, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, folder = shop_record
    arrays, folder = load_rankings(folder, record), tmp_path
    named = ("label_names", "category_names")
    old = {name: array for name, array in arrays.items() if not name.startswith("query_") and name not in named}
    old |= {name: arrays[name] for name in ("query_ids", "query_labels")}
    save(record, folder, old)
    assert "night" in call("slices", folder).stdout
    other = shop(4, 5)
    monkeypatch.setitem(DATASETS._entries, "shop", Entry("shop", lambda root: other, "for tests"))
    assert call("slices", folder).exit_code == 3
