"""Figures of a classifier against scikit-learn's, on scores with ties, unseen labels and labels without queries."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as peer

from retrieval_bench.classifiers import confusion, judge_classifier, roc_curve


def case(seed: int, classes: list[int], asked: list[int], levels: int = 4, q: int = 60):
    """(expected, scores, classes): few levels, so that many scores are equal; `asked` are the labels of the queries."""
    random = np.random.default_rng(seed)
    expected = np.concatenate([asked, random.choice(asked, q - len(asked))])
    return expected, random.integers(0, levels, (q, len(classes))) / levels, np.array(classes)


CASES = {
    "every label": case(0, [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]),
    "few ties": case(1, [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], levels=10**6),
    "unseen labels": case(2, [1, 3, 4, 8, 9, 11], [0, 1, 3, 4, 7, 8, 9, 11, 12]),
    "labels without queries": case(3, [0, 2, 5, 6, 7, 9, 10], [2, 5, 10]),
    "two labels": case(4, [3, 6], [3, 6]),
    "only unseen labels": case(5, [0, 1], [2, 3]),
    "one label asked": case(6, [0, 1, 2], [1]),
    "all equal": (np.array([0, 1, 2, 2]), np.zeros((4, 3)), np.array([0, 1, 2])),
}
each = pytest.mark.parametrize("name", CASES)


def rest_curves(expected: np.ndarray, scores: np.ndarray, classes: np.ndarray):
    """One label against the rest: (right, its scores) for labels with queries and other queries."""
    for label in np.unique(expected):
        right = expected == label
        if not right.all():
            column = np.flatnonzero(classes == label)
            yield right, scores[:, column[0]] if len(column) else np.zeros(len(expected))


def area_pair_by_pair(right: np.ndarray, column: np.ndarray) -> float:
    """The share of (right, wrong) pairs that the scores put in order, equal ones counting half: the slow twin."""
    ahead, behind = column[right][:, None], column[~right][None, :]
    return float(np.mean((ahead > behind) + 0.5 * (ahead == behind)))


@each
def test_figures_equal_scikit_learns(name):
    expected, scores, classes = CASES[name]
    figures = judge_classifier(expected, scores, classes)
    predicted = classes[scores.argmax(axis=1)]
    assert figures["accuracy"] == pytest.approx(peer.accuracy_score(expected, predicted), abs=1e-12)
    precision, recall, f1, _ = peer.precision_recall_fscore_support(
        expected, predicted, labels=np.unique(expected), average="macro", zero_division=0
    )
    assert figures["macro_precision"] == pytest.approx(precision, abs=1e-12)
    assert figures["macro_recall"] == pytest.approx(recall, abs=1e-12)
    assert figures["macro_f1"] == pytest.approx(f1, abs=1e-12)
    # The library takes areas from scikit-learn, which is no judge of itself: here every pair is counted.
    areas = [area_pair_by_pair(right, column) for right, column in rest_curves(expected, scores, classes)]
    assert ("macro_roc_auc" in figures) == bool(areas)
    if areas:
        assert figures["macro_roc_auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert all(0 <= figure <= 1 for figure in figures.values())


def test_area_equals_the_multiclass_area_of_scikit_learn():
    expected, scores, classes = CASES["few ties"]
    scores = scores / scores.sum(axis=1, keepdims=True)
    area = peer.roc_auc_score(expected, scores, multi_class="ovr", average="macro", labels=classes)
    assert judge_classifier(expected, scores, classes)["macro_roc_auc"] == pytest.approx(area, abs=1e-12)


def test_top5_equals_scikit_learns_and_takes_the_lower_label_of_equals():
    expected, scores, classes = CASES["few ties"]
    top = peer.top_k_accuracy_score(expected, scores, k=5, labels=classes)
    assert judge_classifier(expected, scores, classes)["top5_accuracy"] == pytest.approx(top, abs=1e-12)
    flat = judge_classifier(np.arange(7), np.zeros((7, 7)), np.arange(7))
    assert flat["top5_accuracy"] == pytest.approx(5 / 7)
    assert flat["accuracy"] == pytest.approx(1 / 7)
    assert "top5_accuracy" not in judge_classifier(np.arange(5), np.eye(5), np.arange(5))


def test_an_unseen_label_counts_as_wrong_and_halves_its_area():
    figures = judge_classifier(np.array([0, 1, 7]), np.array([[3.0, 1], [1, 3], [3, 1]]), np.array([0, 1]))
    assert figures["accuracy"] == pytest.approx(2 / 3)
    assert figures["macro_recall"] == pytest.approx(2 / 3)
    assert figures["macro_precision"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert figures["macro_roc_auc"] == pytest.approx((3 / 4 + 1 + 1 / 2) / 3)


@each
def test_confusion_counts_query_by_query(name):
    expected, scores, classes = CASES[name]
    predicted = classes[scores.argmax(axis=1)]
    table = confusion(expected, predicted, 14)
    counted = np.zeros((14, 14), np.int64)
    for label, guess in zip(expected, predicted, strict=True):
        counted[label, guess] += 1
    np.testing.assert_array_equal(table, counted)
    assert table.dtype == np.int64
    assert table.sum() == len(expected)


@each
def test_curves_equal_scikit_learns(name):
    expected, scores, classes = CASES[name]
    curves = roc_curve(expected, scores, classes)
    grid = curves["false_positive_rate"]
    np.testing.assert_array_equal(grid, np.linspace(0, 1, 101))

    def read(right: np.ndarray, column: np.ndarray) -> np.ndarray:
        false, true, _ = peer.roc_curve(right, column, drop_intermediate=False)
        return np.array([_upper(rate, false, true) for rate in grid])

    each_label = [read(right, column) for right, column in rest_curves(expected, scores, classes)]
    np.testing.assert_allclose(curves["macro"], np.mean(each_label, axis=0) if each_label else 0 * grid, atol=1e-12)
    labels = np.union1d(expected, classes)
    lowest = scores.min() - 1
    columns = [scores[:, classes == label].sum(axis=1) if label in classes else lowest for label in labels]
    table = np.stack([np.broadcast_to(column, len(expected)) for column in columns], axis=1)
    micro = read((expected[:, None] == labels).ravel(), table.ravel())
    np.testing.assert_allclose(curves["micro"], micro, atol=1e-12)


def _upper(rate: float, false: np.ndarray, true: np.ndarray) -> float:
    """The curve at one false-positive rate, the upper end of a vertical rise: by hand."""
    after = int(np.searchsorted(false, rate, "right"))
    if after == len(false):
        return float(true[-1])
    part = (rate - false[after - 1]) / (false[after] - false[after - 1])
    return float(true[after - 1] + part * (true[after] - true[after - 1]))


def test_the_mean_curve_encloses_the_mean_area():
    expected, scores, classes = CASES["few ties"]
    curves = roc_curve(expected, scores, classes, np.linspace(0, 1, 20001))
    area = np.trapezoid(curves["macro"], curves["false_positive_rate"])
    assert area == pytest.approx(judge_classifier(expected, scores, classes)["macro_roc_auc"], abs=1e-3)


@pytest.mark.parametrize("grid", [[0.5, 0.2], [-0.1, 1], [0, 1.1], [], [[0, 1]]])
def test_a_grid_that_is_none(grid):
    with pytest.raises(ValueError, match="ascending rates between 0 and 1"):
        roc_curve(*CASES["two labels"], grid)


@pytest.mark.parametrize("judge", [judge_classifier, roc_curve])
def test_what_cannot_be_judged(judge):
    expected, scores, classes = CASES["two labels"]
    with pytest.raises(ValueError, match="no query to judge"):
        judge(expected[:0], scores[:0], classes)
    with pytest.raises(ValueError, match="scores have shape"):
        judge(expected, scores[:, :1], classes)
    with pytest.raises(ValueError, match="classes must be ascending"):
        judge(expected, scores, classes[::-1])
    for bad in (np.nan, np.inf, -np.inf):
        wrong = scores.copy()
        wrong[3, 1] = bad
        with pytest.raises(ValueError, match="must be finite"):
            judge(expected, wrong, classes)


def test_labels_that_a_confusion_has_no_place_for():
    with pytest.raises(ValueError, match=r"labels run from 0 to 3, must be 0 \.\.\. 2"):
        confusion(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="labels run from -1"):
        confusion(np.array([0, 1]), np.array([-1, 1]), 3)
    with pytest.raises(ValueError, match="predictions for"):
        confusion(np.array([0, 1]), np.array([0]), 3)
    assert confusion(np.empty(0, np.int64), np.empty(0, np.int64), 2).tolist() == [[0, 0], [0, 0]]
