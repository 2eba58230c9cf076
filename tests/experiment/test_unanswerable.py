"""Queries without an answer: set aside for the metrics, and asked all the same how far their nearest image is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import DISTRACTOR, Dataset
from retrieval_bench.evaluation.open_set import open_set
from retrieval_bench.experiment.prepare import Plan, prepare
from retrieval_bench.experiment.runner import run
from retrieval_bench.images.reading import ImageBytes
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.files import load, load_rankings
from retrieval_bench.records.schema import OpenSet, Record, find_row
from retrieval_bench.system.cache import FeatureCache
from tests.support.runs import plan
from tests.support.shop import shop

GONE = (1, 4)
"""Labels that have queries and no gallery image."""


def half_open() -> Dataset:
    data = shop(6, 3)
    return data.with_splits({"gallery": data.gallery.take(np.flatnonzero(~np.isin(data.gallery.labels, GONE)))})


def of(record: Record, method: str) -> OpenSet:
    row = find_row(record.rows, method)
    assert row is not None, method
    assert row.status == "ok", row.error
    assert row.open_set is not None, method
    return row.open_set


METHODS = ("hsv", "phash", "hsv+qe", "hsv+phash", "hsv+verify", "hsv+reciprocal", "hsv+phash+rrf", "random", "oracle")


@pytest.mark.long(reason="runs nine methods from end to end")
def test_distances_are_those_of_the_same_queries_with_an_answer(tmp_path: Path) -> None:
    """A label of its own for one gallery image that is an answer to all: now nothing is set aside, and the first
    distances of the queries that were are the same."""
    data = half_open()
    record = run(plan(data, *METHODS), tmp_path / "some")
    some = load_rankings(tmp_path / "some", record)
    assert record.dataset.queries_left_out == 6
    assert some["unanswerable_ids"].tolist() == [data.query.ids[row] for row in range(18) if row // 3 in GONE]
    assert some["unanswerable_labels"].tolist() == [1, 1, 1, 4, 4, 4]
    extra = np.full((len(data.gallery), 2), -1, np.int64)
    extra[0] = GONE
    answered = data.with_splits({"gallery": replace(data.gallery, other_labels=extra)})
    whole = run(plan(answered, *METHODS), tmp_path / "all")
    assert whole.dataset.queries_left_out == 0
    assert all(row.open_set is None for row in whole.rows)
    every = load_rankings(tmp_path / "all", whole)
    assert not any("unanswerable" in name for name in every)
    aside = np.isin(every["query_labels"], GONE)
    for method in METHODS:
        found = of(record, method)
        assert (found.answerable, found.unanswerable) == (12, 6)
        if method in ("hsv+reciprocal", "hsv+phash+rrf"):
            assert "gives each query a scale of its own" in found.unavailable
            assert not found.scores
            assert f"{method}/unanswerable_distances" not in some
            continue
        if method == "oracle":
            continue  # its codes have another width where images have several labels
        assert np.array_equal(some[f"{method}/unanswerable_distances"], every[f"{method}/distances"][aside, 0]), method
        assert np.array_equal(some[f"{method}/distances"][:, 0], every[f"{method}/distances"][~aside, 0]), method
        again = open_set(
            some[f"{method}/distances"][:, 0],
            some[f"{method}/unanswerable_distances"],
            some["query_labels"],
            some["unanswerable_labels"],
        )
        assert again == found
    assert of(record, "oracle").scores == {"auroc": 1.0, "rejected@95": 1.0}
    assert load(tmp_path / "some") == record


def test_a_run_in_which_all_have_an_answer_says_nothing(tmp_path: Path) -> None:
    record = run(plan(shop(3, 2), "phash"), tmp_path)
    assert record.rows[0].open_set is None
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert '"open_set"' not in text
    assert not any("unanswerable" in name for name in load_rankings(tmp_path, record))


def test_features_are_computed_once_and_then_come_from_the_cache(tmp_path: Path) -> None:
    data = half_open()
    asked = plan(data, "hsv", cache=FeatureCache(tmp_path / "cache"))
    first, second = (run(asked, tmp_path / name).rows[0] for name in ("first", "second"))
    assert first.features is not None
    assert second.features is not None
    assert (first.features.computed, first.features.from_cache) == (12 + 18, 0)
    assert (second.features.computed, second.features.from_cache) == (0, 12 + 18)
    assert first.open_set == second.open_set
    assert first.times["end_to_end_p50"].n == second.times["end_to_end_p50"].n == 12


def test_leave_one_out_hides_the_own_row_of_a_query_that_is_alone(tmp_path: Path) -> None:
    data = shop(4, 3)
    rows = [row for row in range(12) if row // 3 != 2] + [6]  # label 2 has one image alone
    gallery = data.gallery.take(rows)
    both = Dataset("loo", data.train, gallery, gallery, data.label_names, data.category_names, leave_one_out=True)
    record = run(plan(both, "hsv"), tmp_path)
    arrays = load_rankings(tmp_path, record)
    assert arrays["unanswerable_ids"].tolist() == [gallery.ids[-1]]
    assert arrays["hsv/unanswerable_distances"].shape == (1,)
    assert arrays["hsv/unanswerable_distances"][0] > 0.01  # its own row would be at 0
    found = of(record, "hsv")
    assert found.intervals == {}  # one label says nothing of others
    assert found.scores["auroc"] in np.arange(19) / 18


def unlabelled(data: Dataset) -> Dataset:
    """The last label stands for none, in the gallery and among the queries, and has no training image."""
    last = len(data.label_names) - 1
    train = data.train.take(np.flatnonzero(data.train.labels != last))
    return replace(
        data.with_splits({"train": train}),
        label_names=(*data.label_names[:-1], DISTRACTOR),
        category_names=(*data.category_names, DISTRACTOR),
        gallery=replace(data.gallery, categories=np.where(data.gallery.labels == last, 2, data.gallery.categories)),
        query=replace(data.query, categories=np.where(data.query.labels == last, 2, data.query.categories)),
        train=train,
    )


@pytest.mark.parametrize("relevance", ["label", "category", "graded"])
def test_queries_without_a_label_have_no_answer_although_distractors_have_none_too(
    tmp_path: Path, relevance: str
) -> None:
    record = run(plan(unlabelled(shop(4, 2)), "hsv", "oracle", relevance=relevance), tmp_path)
    assert record.status == "finished", record.violations
    assert record.dataset.queries_left_out == 2
    assert record.dataset.distractors == 2
    arrays = load_rankings(tmp_path, record)
    assert arrays["unanswerable_labels"].tolist() == [-1, -1]
    assert of(record, "oracle").scores["auroc"] == 1.0
    assert of(record, "hsv").intervals  # each is an observation of its own


def test_relevance_by_category_decides_what_has_an_answer() -> None:
    data = half_open()
    assert prepare(plan(data, "hsv")).left_out == 6
    assert prepare(plan(data, "hsv", relevance="category")).unanswerable is None  # label 3 is of their category
    third = data.query.labels == 5  # of a category that no gallery image has
    kinds = replace(data.query, categories=np.where(third, 2, data.query.categories))
    names = (*data.category_names, "neither")
    asked = replace(data, query=kinds, category_names=names)
    aside = prepare(plan(asked, "hsv", relevance="category")).unanswerable
    assert aside is not None
    assert aside.query.labels.tolist() == [2, 2, 2]
    assert prepare(plan(asked, "hsv", relevance="graded")).left_out == 6


def test_several_labels_need_all_to_be_missing() -> None:
    data = half_open()
    others = np.full((18, 1), -1, np.int64)
    others[3] = 0  # the first query of label 1 shows label 0, too
    aside = prepare(plan(data.with_splits({"query": replace(data.query, other_labels=others)}), "hsv")).unanswerable
    assert aside is not None
    assert aside.query.ids == tuple(data.query.ids[row] for row in (4, 5, 12, 13, 14))


def test_a_broken_query_is_not_an_unanswerable_one(tmp_path: Path) -> None:
    data = half_open()
    broken = ImageBytes([data.query.images.read(row) if row != 3 else b"no image" for row in range(18)])
    asked = plan(data.with_splits({"query": replace(data.query, images=broken)}), "hsv", max_bad=0.5)
    record = run(asked, tmp_path)
    assert [item.id for item in record.dataset.skipped] == [data.query.ids[3]]
    assert of(record, "hsv").unanswerable == 5


@pytest.mark.parametrize(
    ("method", "culprit"),
    [
        ("hsv", ""),
        ("phash", ""),
        ("hsv+qe", ""),
        ("hsv+verify", ""),
        ("hsv+phash", ""),
        ("hsv+phash+concat", ""),
        ("hsv+phash+rrf", "rrf"),
        ("hsv+phash+vote:depth=5", "vote:depth=5"),
        ("hsv+phash+rrf+qe", "rrf"),
        ("hsv+phash+rrf+verify", ""),
        ("hsv+reciprocal", "reciprocal"),
        ("hsv+verify+reciprocal", "reciprocal"),
        ("hsv+reciprocal+verify", ""),
        ("crop-resistant", "crop-resistant"),
    ],
)
def test_only_distances_on_one_scale_are_compared(method: str, culprit: str) -> None:
    asked: Plan = plan(shop(2, 2), method)
    said = Pipeline(asked.methods[0], asked.setup, asked.backend).incomparable
    assert said.startswith(f"{culprit} gives each query a scale of its own") if culprit else said == ""
