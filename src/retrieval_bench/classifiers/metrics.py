"""How good a classifier is: from scores and labels to numbers, each with its definition beside it.

Conventions: the prediction is the label of the highest score, the lower label of equals. A label that training never
saw cannot be scored: it ranks below every seen label for every query, with the same score for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval_bench.classifiers.classifier import whole_labels
from retrieval_bench.core import Judged
from retrieval_bench.evaluation import metrics

TOP = 5


def judge_classifier(expected: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Classification figures over all queries, every one in 0 ... 1.

    expected: (q,) int64 labels; scores: (q, C) finite, higher = more likely; classes: (C,) int64, ascending.

    accuracy: share of queries whose prediction is their label.
    macro_precision, macro_recall, macro_f1: as the metrics of these names define them, with the prediction in the
        place of the k-NN vote: mean over the labels that occur among the queries.
    macro_roc_auc: one label against the rest, area under the ROC curve = probability that a query of the label scores
        higher than another query, equals counting half; mean over the labels that have queries and are not the label
        of all. A label unseen in training scores the same for every query: 0.5. Absent where no label qualifies.
    top5_accuracy: the label is among the 5 highest scores (the lower label first of equals); absent unless C > 5.
    Raises ValueError without queries or where shapes or numbers are wrong.
    """
    expected, scores, classes = _checked(expected, scores, classes)
    predicted = classes[scores.argmax(axis=1)]
    judged = Judged(expected, predicted[:, None], np.ones(len(expected), np.int64))
    figures = {
        "accuracy": float(np.mean(predicted == expected)),
        "macro_precision": metrics.macro_precision(judged, 1),
        "macro_recall": metrics.macro_recall(judged, 1),
        "macro_f1": metrics.macro_f1(judged, 1),
    }
    areas = [_area(column, right) for column, right in _against_rest(expected, scores, classes)]
    if areas:
        figures["macro_roc_auc"] = float(np.mean(areas))
    if len(classes) > TOP:
        highest = classes[np.argsort(-scores, axis=1, kind="stable")[:, :TOP]]
        figures["top5_accuracy"] = float(np.mean((highest == expected[:, None]).any(axis=1)))
    return figures


def confusion(expected: np.ndarray, predicted: np.ndarray, n_labels: int) -> np.ndarray:
    """(q,), (q,) int64 labels from 0 below n_labels -> (n_labels, n_labels) int64: [i, j] counts the queries of label i
    that were predicted as j."""
    expected, predicted = np.asarray(expected, np.int64), np.asarray(predicted, np.int64)
    if expected.shape != predicted.shape or expected.ndim != 1:
        raise ValueError(f"{predicted.shape} predictions for {expected.shape} labels")
    both = np.concatenate([expected, predicted])
    if len(both) and not 0 <= both.min() <= both.max() < n_labels:
        raise ValueError(f"labels run from {both.min()} to {both.max()}, must be 0 ... {n_labels - 1}")
    if not len(both):
        return np.zeros((n_labels, n_labels), np.int64)
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(expected, predicted, labels=np.arange(n_labels)).astype(np.int64)


def roc_curve(
    expected: np.ndarray, scores: np.ndarray, classes: np.ndarray, grid: Sequence[float] | np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Averaged ROC curves, one label against the rest, as {"false_positive_rate", "micro", "macro"}, each (g,) float64.

    grid: ascending false-positive rates in 0 ... 1; without it 0, 0.01, ... 1.
    macro: mean over labels, those of macro_roc_auc, of the true-positive rate at each false-positive rate: read off
        straight lines between the points of the curve, the upper end where it rises vertically. NaN-free; zeros where
        no label qualifies.
    micro: the same of one curve over all (query, label) pairs, for every label in train or among the queries.
    """
    expected, scores, classes = _checked(expected, scores, classes)
    grid = np.linspace(0, 1, 101) if grid is None else np.asarray(grid, np.float64)
    if grid.ndim != 1 or not len(grid) or grid[0] < 0 or grid[-1] > 1 or (np.diff(grid) < 0).any():
        raise ValueError("the grid must hold ascending rates between 0 and 1")
    curves = [_curve(column, right, grid) for column, right in _against_rest(expected, scores, classes)]
    labels = np.union1d(classes, expected)
    table = np.full((len(expected), len(labels)), -np.inf)
    table[:, np.searchsorted(labels, classes)] = scores
    right = expected[:, None] == labels
    zeros = np.zeros(len(grid))
    return {
        "false_positive_rate": grid,
        "micro": _curve(table.ravel(), right.ravel(), grid) if len(labels) > 1 else zeros,
        "macro": np.mean(curves, axis=0) if curves else zeros,
    }


def _against_rest(expected: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each label with both queries and other queries: (q,) its scores, (q,) bool whose label it is."""
    place = {int(label): column for column, label in enumerate(classes)}
    nothing = np.zeros(len(expected))
    labels = np.unique(expected)
    return [
        (scores[:, place[int(label)]] if int(label) in place else nothing, expected == label)
        for label in (labels if len(labels) > 1 else labels[:0])
    ]


def _area(scores: np.ndarray, right: np.ndarray) -> float:
    """The share of pairs of a right and a wrong one that are in order, equal ones counting half."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(right, scores))


def _curve(scores: np.ndarray, right: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(g,) true-positive rates at the false-positive rates of the grid; both kinds must occur."""
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    found, missed = np.cumsum(right)[ends], np.cumsum(~right)[ends]
    # interp takes the last of several points with the same rate: the upper end of a vertical rise
    return np.interp(grid, np.append(0, missed) / missed[-1], np.append(0, found) / found[-1])


def _checked(
    expected: np.ndarray, scores: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    expected, classes = whole_labels("expected labels", expected), whole_labels("classes", classes)
    scores = np.asarray(scores, np.float64)
    if not len(expected):
        raise ValueError("no query to judge")
    if expected.ndim != 1 or classes.ndim != 1 or scores.shape != (len(expected), len(classes)):
        raise ValueError(f"scores have shape {scores.shape}, expected ({len(expected)}, {len(classes)})")
    if not len(classes) or (np.diff(classes) <= 0).any():
        raise ValueError("classes must be ascending and there must be at least one")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return expected, scores, classes
