"""The public interface of the classifiers: check the features, fit, and return an object that scores queries."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, as_array
from retrieval_bench.registry import CLASSIFIERS

_BLOCK = 256  # queries scored at once: bounds what a classifier holds beside the scores


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a classifier learns from.

    Args:
        rows: (n, d) float32 features, or (n, bytes) packed uint8 if `bits`.
        class_index: (n,) int64, the position of each row's label among the ascending labels; each of 0 to
            n_classes - 1 occurs.
        n_classes: number of different labels, at least 2.
        seed: seed of everything random, from 0.
        threads: Python threads that may be used, at least 1. Each library keeps to one thread meanwhile.
        bits: the rows are packed bits.
    """

    rows: np.ndarray
    class_index: np.ndarray
    n_classes: int
    seed: int
    threads: int
    bits: bool


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """What a registered classifier returns.

    Args:
        score: (q, d) checked queries -> (q, C) float64; higher means more likely.
        chosen: what was chosen while fitting, as plain values for the record.
    """

    score: Callable[[np.ndarray], np.ndarray]
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier.

    Attributes:
        name: its name in the registry.
        classes: (C,) int64, the labels that occur in train, ascending.
        chosen: what was selected on train, how good it was there, whether the solver converged; only numbers, text and
            bool.
    """

    name: str
    classes: np.ndarray
    chosen: Mapping[str, Any]
    _width: int
    _bits: bool
    _score: Callable[[np.ndarray], np.ndarray]

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Score every label for each query.

        Scores can be compared within a column and within a row. They are probabilities only if the classifier says so.
        Except for `knn`, the last bits of a query's scores may depend on the other queries: BLAS rounds by shape.

        Args:
            queries: (q, d), as in training.

        Returns:
            (q, C) float64, always finite; column j belongs to `classes[j]`, higher means more likely.

        Raises:
            BenchError: A feature is not finite.
            ValueError: Wrong shape or dtype.
        """
        from threadpoolctl import threadpool_limits

        queries = _checked(queries, self._bits, "query")
        if queries.shape[1] != self._width:
            raise ValueError(
                f"classifier {self.name} learned from rows of {self._width} columns, not of {queries.shape[1]}"
            )
        scores = np.empty((len(queries), len(self.classes)), np.float64)
        with threadpool_limits(1):
            for start in range(0, len(queries), _BLOCK):
                scores[start : start + _BLOCK] = self._score(queries[start : start + _BLOCK])
        if not np.isfinite(scores).all():
            raise ValueError(f"classifier {self.name} gave scores that are not finite")
        return scores

    def predict(self, queries: np.ndarray) -> np.ndarray:
        """Predict the label of each query.

        Args:
            queries: (q, d), as in training.

        Returns:
            (q,) int64, the label of the highest score; of equal scores, the lower label.
        """
        return self.classes[self.scores(queries).argmax(axis=1)]


def fit_classifier(
    name: str, features: np.ndarray, labels: np.ndarray, *, seed: int, threads: int, bits: bool = False
) -> Classifier:
    """Fit a classifier to the features of `train`.

    Every classifier gets rows of length 1 (a zero row stays zero), as the cosine distance does; the packed codes of
    `bits` all have the same length already.

    The same seed gives the same classifier, to the bit, for every number of threads: BLAS keeps to one thread, and how
    the work is divided does not depend on `threads`. Another BLAS or processor may round differently.

    Args:
        name: a registered classifier: knn, svm, logistic, tree, mlp.
        features: (n, d) float32; or, with `bits`, (n, bytes) packed uint8, each bit read as -1 or +1.
        labels: (n,) int64 from 0, at least two different; one image of a label is enough.
        seed: seed of everything random, from 0.
        threads: Python threads to use, at least 1.
        bits: the features are packed bits.

    Returns:
        The fitted classifier.

    Raises:
        BenchError: The classifier is unknown, there is no row or only one label, a feature is not finite, or an array
            is masked.
        ValueError: Wrong shape or dtype, a label below 0, or no thread.
    """
    from threadpoolctl import threadpool_limits

    entry = CLASSIFIERS[name]
    features = _checked(features, bits, "train")
    labels = whole_labels("labels", labels)
    if labels.shape != (len(features),):
        raise ValueError(f"labels have shape {labels.shape}, expected ({len(features)},)")
    if not len(features):
        raise BenchError(f"classifier {name}: the train split holds no image; it needs images of at least two labels")
    classes, class_index = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise BenchError(f"classifier {name}: all train images have one label; a classifier needs at least two labels")
    if threads < 1:
        raise ValueError(f"threads is {threads}, must be at least 1")
    data = TrainingData(features, class_index.astype(np.int64), len(classes), seed, threads, bits)
    with threadpool_limits(1), warnings.catch_warnings():
        # Whether a solver converged is told in `chosen`.
        warnings.filterwarnings("ignore", category=_convergence_warning())
        # A catalogue has one photo of each label; that does not mean that the labels are continuous values.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        learned = entry.build(data)
    return Classifier(name, classes, learned.chosen, features.shape[1], bits, learned.score)


def whole_labels(name: str, given: Any) -> np.ndarray:
    """As int64, where a cast changes none of them.

    Raises:
        BenchError: The array is masked.
        ValueError: One is no whole number from 0.
    """
    labels = as_array(name, given, "it must hold one label for each image")
    if labels.dtype.kind not in "biu" and labels.size:
        raise ValueError(f"{name} are {labels.dtype}, expected whole numbers from 0")
    if labels.size and labels.min() < 0:
        raise ValueError(f"{name} hold {labels.min()}, expected whole numbers from 0")
    return labels.astype(np.int64)


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    return ConvergenceWarning


def _checked(features: np.ndarray, bits: bool, split: str) -> np.ndarray:
    features = as_array(f"{split} features", features, "all must have as many columns")
    wanted = np.uint8 if bits else np.float32
    if features.ndim != 2 or features.dtype != wanted or not features.shape[1]:
        raise ValueError(f"features are {features.dtype} {features.shape}, expected {np.dtype(wanted)} (n, d), d > 0")
    if not bits and not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise BenchError(
            f"the features of {split} image {row} are not finite; classifiers take finite numbers only: "
            "fix the extractor"
        )
    return np.ascontiguousarray(features)
