from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval_bench import datasets, extractors, search
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.repeat import compared, plan_of
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods import pipeline
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.registry import DATASETS, parse
from tests.support.records import record as made_up
from tests.support.records import row
from tests.support.shop import shelf_at

REGISTERED = (datasets, extractors, pipeline, search)  # importing them fills the registries


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return shelf_at(tmp_path / "shelf")


@pytest.mark.long(reason="two whole runs")
def test_a_record_repeats_from_its_own_metadata(shelf: Path, tmp_path: Path) -> None:
    methods = tuple(map(parse_method, ("color:words=4", "phash", "oracle")))
    plan = Plan(methods, parse(DATASETS, "folder"), root=shelf, k=(1, 3), seed=5, limit=10)
    run(plan, tmp_path / "once")
    before = load(tmp_path / "once")
    again = plan_of(before)
    assert (again.methods, again.root, again.k, again.seed, again.limit) == (methods, shelf, (1, 3), 5, 10)
    after = run(again, tmp_path / "again")
    arrays = [load_rankings(tmp_path / name, record) for name, record in (("once", before), ("again", after))]
    assert compared(before, after, *arrays).verdict == "identical"
    assert compared(before, after, *arrays).reasons == ()

    moved = dict(arrays[1])
    moved["phash/indices"] = np.roll(moved["phash/indices"], 1, axis=1)
    other = compared(before, after, arrays[0], moved)
    assert other.verdict == "within tolerance"
    assert "phash: other gallery images" in other.differences[0]
    assert other.reasons

    (shelf / "query" / "product-0" / "0.png").unlink()
    with pytest.raises(NotComparable, match="fingerprint"):
        compared(before, run(again, tmp_path / "third"), *arrays)


def test_a_number_that_moved_is_told_with_what_changed_around_it() -> None:
    before = made_up(row(scores={"accuracy": 0.5}))
    after = made_up(row(scores={"accuracy": 0.7}), environment={"libraries": {"numpy": "3"}}, settings={"threads": 1})
    again = compared(before, after, None, None)
    assert again.verdict == "different"
    assert again.differences == ("sift: 1 quality numbers differ, accuracy most, by +0.200000",)
    assert "numpy: 2 then, 3 now" in again.reasons
    assert "threads: 2 then, 1 now" in again.reasons
    near = compared(before, made_up(row(scores={"accuracy": 0.51})), None, None)
    assert near.verdict == "within tolerance"
    gone = compared(before, made_up(row("hog")), None, None)
    assert gone.verdict == "different"


def test_random_weights_stay_random() -> None:
    untrained = row("resnet18[untrained]", family="deep", weights={"source": "seed 0", "sha256": "1"})
    plan = plan_of(made_up(untrained, settings={"methods": ("resnet18",)}, dataset={"spec": "products"}))
    assert plan.weights == "random"
    with pytest.raises(BenchError, match="names no method"):
        plan_of(made_up())
    with pytest.raises(
        BenchError, match="names no method"
    ):  # before minutes of running that nothing can be compared with
        plan_of(made_up(settings={"methods": ("resnet18",)}))
