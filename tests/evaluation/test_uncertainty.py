"""What a run says of how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.evaluation.mean_intervals import DEFINITION
from retrieval_bench.evaluation.significance import DIFFERENCES
from retrieval_bench.evaluation.uncertainty import (
    COMPARED,
    class_mean_intervals_of,
    comparisons,
    intervals_of,
    statistics,
)
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Statistics
from retrieval_bench.registry import Entry, Spec
from retrieval_bench.report.table import markdown
from tests.support.shop import shop


@pytest.mark.slow(reason="a whole run with every pair of methods")
def test_a_run_holds_intervals_and_every_pair_but_controls(tmp_path: Path) -> None:
    data = shop(5, 4)
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    methods = tuple(map(parse_method, ("color", "phash", "hsv", "random", "oracle")))
    record = run(Plan(methods, source, k=(1, 5)), tmp_path)
    assert record.statistics is not None
    assert (record.statistics.clusters, record.statistics.level) == (5, 0.95)
    per_query = {name for name in record.rows[0].scores if not name.startswith("macro")}
    for row in record.rows:
        assert row.intervals.keys() == per_query
        for name, reach in row.intervals.items():
            assert -1e-9 <= reach.low <= row.scores[name] + 1e-9
            assert row.scores[name] - 1e-9 <= reach.high <= 1 + 1e-9
    (oracle,) = (row for row in record.rows if row.method == "oracle")
    assert oracle.scores["class_mean_map@r"] == oracle.intervals["class_mean_map@r"].high == 1.0
    assert oracle.intervals["class_mean_map@r"].low < 0.7, "five labels cannot say more"
    assert "1.000-1.000" not in markdown(record)
    assert record.comparisons.keys() == set(COMPARED)
    arrays = load_rankings(tmp_path, record)
    right = {
        name: arrays["gallery_labels"][arrays[f"{name}/indices"][:, 0]] == arrays["query_labels"]
        for name in ("color", "phash", "hsv")
    }
    pairs = {(pair.first, pair.second): pair for pair in record.comparisons["accuracy"].pairs}
    assert pairs.keys() == {("color", "phash"), ("color", "hsv"), ("phash", "hsv")}
    for (first, second), pair in pairs.items():
        assert pair.mean == pytest.approx(np.mean(right[first].astype(float) - right[second]))
    assert record.comparisons["accuracy"].groups.keys() == right.keys()


def test_class_means_have_intervals_that_weigh_labels_the_same() -> None:
    labels = np.array([0] * 30 + [1, 2, 3, 4, 5])
    values = {"recall@5": np.array([1.0] * 30 + [0, 0, 0, 0, 1]), "accuracy": np.ones(35)}
    how = statistics(labels, 0)
    ((name, reach),) = class_mean_intervals_of(values, labels, how).items()
    assert name == "class_mean_recall@5"
    assert reach.low < 2 / 6 < reach.high < values["recall@5"].mean()
    each = np.array([1.0, 0, 0, 0, 0, 1])
    alone = intervals_of({"recall@5": each}, np.arange(6), statistics(np.arange(6), 0))["recall@5"]
    assert (reach.low, reach.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_a_record_says_how_its_intervals_are_computed_and_an_old_one_stays_as_it_was() -> None:
    how = statistics(np.arange(4), 0)
    assert how.intervals == DEFINITION
    assert how.differences == DIFFERENCES
    assert Statistics(**how.model_dump()) == how
    old = {"resamples": 10_000, "level": 0.95, "seed": 0, "clusters": 4}
    assert Statistics(**old).model_dump(mode="json") == old


def test_queries_of_one_product_carry_no_interval() -> None:
    one = np.zeros(6, np.int64)
    how = statistics(one, 0)
    values = {name: np.linspace(0, 1, 6) for name in COMPARED}
    assert intervals_of(values, one, how) == {}
    assert comparisons({"a": values, "b": values}, one, how) == {}


def test_one_method_is_compared_with_nothing() -> None:
    products = np.arange(6)
    assert comparisons({"a": {name: np.ones(6) for name in COMPARED}}, products, statistics(products, 0)) == {}
