"""What a run says of how sure it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.evaluation.uncertainty import COMPARED, comparisons, intervals_of, statistics
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.records.files import load_rankings
from retrieval_bench.registry import Entry, Spec
from tests.support.shop import shop


@pytest.mark.slow(reason="a whole run with every pair of methods")
def test_a_run_holds_intervals_and_every_pair_but_controls(tmp_path: Path) -> None:
    data = shop(5, 4)
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    methods = tuple(map(parse_method, ("color", "phash", "hsv", "random", "oracle")))
    record = run(Plan(methods, source, k=(1, 5)), tmp_path)
    assert record.statistics is not None
    assert (record.statistics.clusters, record.statistics.level) == (5, 0.95)
    per_query = {name for name in record.rows[0].scores if not name.startswith(("macro", "class_mean"))}
    for row in record.rows:
        assert row.intervals.keys() == per_query
        for name, reach in row.intervals.items():
            assert -1e-9 <= reach.low <= row.scores[name] + 1e-9
            assert row.scores[name] - 1e-9 <= reach.high <= 1 + 1e-9
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


def test_queries_of_one_product_carry_no_interval() -> None:
    one = np.zeros(6, np.int64)
    how = statistics(one, 0)
    values = {name: np.linspace(0, 1, 6) for name in COMPARED}
    assert intervals_of(values, one, how) == {}
    assert comparisons({"a": values, "b": values}, one, how) == {}


def test_one_method_is_compared_with_nothing() -> None:
    products = np.arange(6)
    assert comparisons({"a": {name: np.ones(6) for name in COMPARED}}, products, statistics(products, 0)) == {}
