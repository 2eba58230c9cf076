"""Heads within a run: what they learn from, what the record holds of them, and what is refused."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from retrieval_bench.classifiers.classifier import FittedClassifier
from retrieval_bench.core import Dataset
from retrieval_bench.datasets.splits import some
from retrieval_bench.experiment.classification import Learnable, classify_all, unseen
from retrieval_bench.experiment.prepare import Plan, ready
from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import CLASSIFIERS, Entry, Spec
from retrieval_bench.report.table import caption
from tests.support import records
from tests.support.methods import MeanColor, spec
from tests.support.shop import shop

EVERY = tuple(entry.name for entry in CLASSIFIERS)


def with_classifiers(data: Dataset, out: Path, *methods: str | Method, **changes: Any) -> Record:
    parsed = tuple(parse_method(method) if isinstance(method, str) else method for method in methods)
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    return run(Plan(**({"methods": parsed, "dataset": source, "classifiers": EVERY, "threads": 2} | changes)), out)


@pytest.fixture(scope="module")
def all_classifiers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Record, dict[str, np.ndarray]]]:
    """A run of one method with every classifier on two threads, and its arrays; once for all who ask."""

    @functools.cache
    def of(method: str) -> tuple[Record, dict[str, np.ndarray]]:
        folder = tmp_path_factory.mktemp("classifiers")
        record = with_classifiers(shop(4, 4), folder, method)
        return record, load_rankings(folder, record)

    return of


@pytest.mark.slow(reason="a whole run with every classifier")
@pytest.mark.parametrize(
    "method",
    ["color", "phash", "color+hsv", "color+phash+concat", "color+verify=5", "moments"],
)
def test_every_classifier_is_judged_and_its_figures_follow_from_the_saved_arrays(
    all_classifiers: Any, method: str
) -> None:
    record, arrays = all_classifiers(method)
    (row,) = record.rows
    assert row.status == "ok", row.error
    assert tuple(row.classifiers) == EVERY == record.settings.classifiers
    expected = arrays["query_labels"]
    for name, head in row.classifiers.items():
        assert head.error is None
        classes, scores, predicted = (
            arrays[f"{method}/heads/{name}/{what}"] for what in ("classes", "scores", "predicted")
        )
        assert scores.shape == (16, 4)
        assert head.scores["accuracy"] == pytest.approx(np.mean(predicted == expected))
        macro = precision_recall_fscore_support(expected, predicted, average="macro", zero_division=0)[:3]
        assert [head.scores[f"macro_{what}"] for what in ("precision", "recall", "f1")] == pytest.approx(macro)
        areas = [roc_auc_score(expected == label, scores[:, place]) for place, label in enumerate(classes)]
        assert head.scores["macro_roc_auc"] == pytest.approx(np.mean(areas))
        assert head.times["fit"].value is not None
        assert head.times["predict_p50"].n == 16
    if method == "color":
        assert row.classifiers["svm"].scores["accuracy"] > 0.9


@pytest.mark.slow(reason="a run with classifiers")
def test_a_reranked_method_has_the_classifiers_of_the_method_that_it_reranks(tmp_path: Path) -> None:
    plain, again = with_classifiers(shop(4, 3), tmp_path, "color", "color+qe=2", classifiers=("svm",)).rows
    assert plain.classifiers["svm"].scores == again.classifiers["svm"].scores


@pytest.mark.slow(reason="whole runs with classifiers")
@pytest.mark.parametrize(
    ("method", "reason"),
    [("color+phash+rrf", "keeps no single vector"), ("crop-resistant", "compared in a way of its own")],
)
def test_what_has_no_vector_says_so_and_keeps_its_row(tmp_path: Path, method: str, reason: str) -> None:
    (row,) = with_classifiers(shop(), tmp_path, method, classifiers=("svm", "knn")).rows
    assert row.status == "ok"
    assert row.scores["accuracy"] > 0
    for head in row.classifiers.values():
        assert head.error is not None
        assert reason in head.error
        assert not head.scores


@pytest.mark.parametrize("when", ["fit", "scores"])
@pytest.mark.slow(reason="two runs")
def test_a_classifier_that_breaks_ends_neither_the_others_nor_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    def fail(*_: Any) -> Any:
        return 1 // 0

    broken = fail if when == "fit" else lambda lessons: FittedClassifier(fail)
    monkeypatch.setitem(CLASSIFIERS._entries, "svm", Entry("svm", broken, "for tests"))
    record = with_classifiers(shop(4, 3), tmp_path, "color", classifiers=("svm", "knn"))
    (row,) = record.rows
    assert row.status == "ok"
    assert row.scores["accuracy"] > 0
    assert row.classifiers["svm"].error is not None
    assert re.search("svm.*ZeroDivisionError: .*division", row.classifiers["svm"].error)
    assert not row.classifiers["svm"].scores
    assert row.classifiers["knn"].error is None
    assert row.classifiers["knn"].scores["accuracy"] > 0
    (logged,) = (entry for entry in caplog.records if row.classifiers["svm"].error in entry.getMessage())
    assert logged.exc_info, "our own bug keeps its traceback"
    assert f"No svm: {row.classifiers['svm'].error.removeprefix('svm failed: ')}." in caption(record)
    kept = load_rankings(tmp_path, record)
    assert "color/heads/knn/scores" in kept
    assert "color/heads/svm/scores" not in kept


@pytest.mark.slow(reason="whole runs with classifiers")
def test_the_oracle_teaches_nobody_and_says_so(tmp_path: Path) -> None:
    record = with_classifiers(shop(), tmp_path / "with", "oracle", "random", classifiers=("knn",))
    assert record.rows[0].classifiers == {}
    told = "it sees the labels of the queries, so no classifier learns from it"
    assert [row.notices for row in record.rows] == [(told,), ()]
    assert f"oracle: {told}." in caption(record)
    assert not with_classifiers(shop(), tmp_path / "without", "oracle", classifiers=()).rows[0].notices


@pytest.mark.slow(reason="whole runs with classifiers")
def test_a_row_of_a_backend_says_where_classifiers_learn_if_that_is_nowhere(tmp_path: Path) -> None:
    (row,) = with_classifiers(shop(), tmp_path / "alone", "hsv on numpy", classifiers=("knn",)).rows
    told = "classifiers learn in the row of hsv, which this run does not have; search with exact, too"
    assert (row.classifiers, row.notices) == ({}, (told,))
    both = with_classifiers(shop(), tmp_path / "both", "hsv", "hsv on numpy", classifiers=("knn",)).rows
    assert [row.notices for row in both] == [(), ()]
    assert "knn" in both[0].classifiers


@pytest.mark.slow(reason="whole runs with classifiers")
def test_one_label_or_no_train_is_told(tmp_path: Path) -> None:
    data = shop(3, 3)
    alone = data.with_splits({"train": data.train.take([0, 1])})
    record = with_classifiers(alone, tmp_path / "a", "phash", "hsv", classifiers=("svm", "knn"))
    one = some([data.label_names[data.train.labels[0]]])
    told = f"classifiers learn from train and all of its images have one label, {one}; add images of another label"
    assert {facts.error for row in record.rows for facts in row.classifiers.values()} == {told}
    assert [line for line in caption(record) if "have one label" in line] == [f"No svm, knn: {told}."]
    none = data.with_splits({"train": data.train.take([])})
    (row,) = with_classifiers(none, tmp_path / "b", "phash", classifiers=("svm",)).rows
    assert "shop has none; add a train split" in (row.classifiers["svm"].error or "")
    assert row.status == "ok"


@pytest.mark.slow(reason="a whole run with classifiers")
def test_one_label_of_the_gallery_is_told_of_the_gallery(tmp_path: Path) -> None:
    data = shop(2, 3)
    asked = data.gallery.take(np.flatnonzero(data.gallery.labels == 1))
    known = replace(asked, ids=tuple(f"again/{item}" for item in asked.ids))
    mixed = data.with_splits({"query": known})
    (row,) = with_classifiers(mixed, tmp_path, "phash", classifiers=("knn",), learn_from="gallery").rows
    assert row.classifiers["knn"].error == (
        "classifiers learn from gallery and all of its images that are no query have one label, "
        f"{some([data.label_names[0]])}; add images of another label"
    )


def test_classifiers_that_fail_for_one_reason_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(lessons: Any) -> Any:
        raise ModuleNotFoundError("No module named 'sklearn'")

    for name in EVERY:
        monkeypatch.setitem(CLASSIFIERS._entries, name, Entry(name, broken, "for tests"))
    rows = Learnable(np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1]), False)
    done = classify_all(
        EVERY, lambda: (rows, rows), seed=0, threads=1, timed=[0], progress=lambda what, number, total: None
    )
    row = records.row(classifiers={name: one.facts for name, one in done.items()})
    told = [line for line in caption(records.record(row)) if "sklearn" in line]
    assert told == [f"No {', '.join(EVERY)}: ModuleNotFoundError: No module named 'sklearn'."]


def test_queries_that_no_classifier_can_be_right_about_are_counted() -> None:
    data = shop(4, 3)
    fewer = data.with_splits({"train": data.train.take([0, 1, 2, 6, 7, 8])})
    source = Spec(Entry(data.name, lambda root: fewer, "for tests"), {})
    asked = Plan(methods=(parse_method("phash"),), dataset=source, classifiers=("knn",))
    told = f"no classifier can be right about 6 of 12 queries: train has no image of {some(data.label_names[1::2])}"
    assert ready(fewer, asked).dataset.notices[-1] == told
    assert not any("classifier" in one for one in ready(data, asked).dataset.notices)
    assert not any("classifier" in one for one in ready(fewer, replace(asked, classifiers=())).dataset.notices)
    assert not any("classifier" in one for one in ready(fewer, replace(asked, learn_from="gallery")).dataset.notices)


def test_the_first_of_several_labels_counts_for_classifiers() -> None:
    data = shop(4, 3)
    several = replace(data.query, other_labels=np.roll(data.query.labels, 3)[:, None])
    source = Spec(Entry(data.name, lambda root: data, "for tests"), {})
    asked = Plan(methods=(parse_method("phash"),), dataset=source, classifiers=("knn",))
    (told,) = [one for one in ready(data.with_splits({"query": several}), asked).dataset.notices if "classifier" in one]
    assert told.startswith("classifiers learn the first label of each image")


@pytest.mark.slow(reason="whole runs with classifiers")
def test_no_classifier_learns_from_a_query(tmp_path: Path) -> None:
    data = shop(3, 4)
    again = data.train.take([1, 2, 5, 9])
    mixed = data.with_splits({"query": replace(again, ids=tuple(f"again/{item}" for item in again.ids))})
    assert unseen(mixed.train, mixed.query).tolist() == [0, 3, 4, 6, 7, 8, 10, 11]
    # `random` knows nothing but the image itself: a head that saw the queries would be right about all of them.
    (row,) = with_classifiers(mixed, tmp_path, "random", classifiers=("knn",)).rows
    assert row.classifiers["knn"].scores["accuracy"] < 1


@pytest.mark.slow(reason="whole runs with classifiers")
def test_train_that_is_also_gallery_is_extracted_once(tmp_path: Path) -> None:
    data = shop(4, 3)
    built: list[MeanColor] = []

    def build(setup: object) -> MeanColor:
        built.append(MeanColor())
        return built[-1]

    (row,) = with_classifiers(
        data.with_splits({"gallery": data.train}), tmp_path, spec("mean", build), classifiers=("svm",)
    ).rows
    assert row.classifiers["svm"].scores["accuracy"] > 0.9
    assert row.features is not None
    assert row.features.computed == 24


@pytest.mark.slow(reason="whole runs with every classifier")
def test_threads_change_no_bit_of_a_head(tmp_path: Path, all_classifiers: Any) -> None:
    record = with_classifiers(shop(4, 4), tmp_path, "color", threads=1)
    one, two = (
        {name: array for name, array in arrays.items() if "/heads/" in name}
        for arrays in (load_rankings(tmp_path, record), all_classifiers("color")[1])
    )
    assert one.keys() == two.keys()
    assert len(one) == 3 * len(EVERY)
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)
