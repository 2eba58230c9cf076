"""Each clause of the contract of a classifier is broken by somebody, and seen; those of this package keep it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from retrieval_bench.classifiers.classifier import FittedClassifier, TrainingData
from retrieval_bench.contracts.classifier import CLAUSES, check_classifier
from retrieval_bench.core import BenchError
from retrieval_bench.registry import CLASSIFIERS, Entry, fill
from tests.support.command import call

Build = Callable[[TrainingData], FittedClassifier]
COUNT = itertools.count()


@pytest.fixture
def broken() -> Iterator[Callable[[Build], dict[str, str]]]:
    """Clause -> detail of those that a classifier breaks, which is registered meanwhile."""
    fill()
    before = CLASSIFIERS.own()

    def of(build: Build) -> dict[str, str]:
        CLASSIFIERS.replace([*before, Entry("probe", build, "a classifier of this test")])
        found = check_classifier("probe")
        assert [one.clause for one in found] == list(CLAUSES)
        return {one.clause: one.detail for one in found if one.verdict == "broken"}

    yield of
    CLASSIFIERS.replace(before)


def centres(data: TrainingData) -> np.ndarray:
    """(C, d) the mean of each label."""
    rows = np.unpackbits(data.rows, axis=1).astype(np.float64) if data.bits else data.rows.astype(np.float64)
    return np.stack([rows[data.class_index == label].mean(axis=0) for label in range(data.n_classes)])


def near(queries: np.ndarray, means: np.ndarray) -> np.ndarray:
    rows = np.unpackbits(queries, axis=1) if queries.dtype == np.uint8 else queries
    return -((rows[:, None, :].astype(np.float64) - means) ** 2).sum(axis=2)


def honest(data: TrainingData) -> FittedClassifier:
    means = centres(data)
    return FittedClassifier(lambda queries: near(queries, means), {"labels": data.n_classes})


def keeps_arrays(data: TrainingData) -> FittedClassifier:
    return FittedClassifier(honest(data).score, {"means": centres(data)})


def one_label_less(data: TrainingData) -> FittedClassifier:
    means = centres(data)[1:]
    return FittedClassifier(lambda queries: near(queries, means))


def infinite(data: TrainingData) -> FittedClassifier:
    return FittedClassifier(lambda queries: np.full((len(queries), data.n_classes), np.inf))


def of_numbers_alone(data: TrainingData) -> FittedClassifier:
    if data.bits:
        raise TypeError("bits are no numbers")
    return honest(data)


def of_the_batch(data: TrainingData) -> FittedClassifier:
    means = centres(data)
    return FittedClassifier(lambda queries: near(queries, means) * len(queries))


def dice(data: TrainingData) -> FittedClassifier:
    means, away = centres(data), next(COUNT)
    return FittedClassifier(lambda queries: near(queries, means) + away)


def of_the_threads(data: TrainingData) -> FittedClassifier:
    means = centres(data) * data.threads
    return FittedClassifier(lambda queries: near(queries, means))


def writes_into_train(data: TrainingData) -> FittedClassifier:
    fitted = honest(data)
    data.rows[:] = 0
    return fitted


def writes_into_queries(data: TrainingData) -> FittedClassifier:
    means = centres(data)

    def score(queries: np.ndarray) -> np.ndarray:
        found = near(queries, means)
        queries[:] = 0
        return found

    return FittedClassifier(score)


@pytest.mark.parametrize(
    ("build", "clause", "said"),
    [
        (keeps_arrays, "fits", "`chosen` is no plain numbers and texts"),
        (one_label_less, "scores", "failed: ValueError"),
        (infinite, "scores", "classifier probe gave scores that are not finite"),
        (of_numbers_alone, "bits", "failed: TypeError: bits are no numbers"),
        (of_the_batch, "order-independent", "scores of a query alone are others than beside others"),
        (dice, "repeatable", "fitted again: the scores are others; draw from `seed` alone"),
        (of_the_threads, "repeatable", "fitted again with 2 threads: the scores are others"),
        (writes_into_train, "leaves its input alone", "fitting writes into the rows or the labels of train"),
        (writes_into_queries, "leaves its input alone", "scoring writes into the queries"),
    ],
)
def test_what_breaks_a_clause_of_a_classifier_is_seen(broken: Callable, build: Build, clause: str, said: str) -> None:
    assert said in broken(build)[clause]


def test_a_classifier_that_keeps_all_passes(broken: Callable) -> None:
    assert broken(honest) == {}


@pytest.mark.parametrize("name", [entry.name for entry in CLASSIFIERS.fill().own()])
def test_classifiers_of_this_package_keep_the_contract(name: str) -> None:
    assert [f"{one.clause}: {one.detail}" for one in check_classifier(name) if one.verdict == "broken"] == []


def test_a_name_that_no_classifier_has_is_one_sentence() -> None:
    with pytest.raises(BenchError, match="unknown classifier 'svn'; did you mean 'svm'"):
        check_classifier("svn")


def test_the_command_checks_a_classifier_by_its_name(broken: Callable) -> None:
    done = call("check", "tree", "--json")
    assert done.exit_code == 0, done.output
    assert [one["clause"] for one in json.loads(done.stdout)] == list(CLAUSES)
    broken(infinite)
    refused = call("check", "svmm")
    assert refused.exit_code == 2
    assert "unknown method or classifier 'svmm'; did you mean 'svm'?" in refused.stderr
    done = call("check", "probe")
    assert done.exit_code == 1
    assert "scores                  broken" in done.stdout
