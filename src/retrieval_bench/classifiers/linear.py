"""Linear classifiers: support vector machine and logistic regression, both of scikit-learn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrieval_bench.classifiers.classifier import FittedClassifier, TrainingData
from retrieval_bench.classifiers.model_selection import chosen, hold_out
from retrieval_bench.classifiers.preprocessing import Scale, unit
from retrieval_bench.linalg.blocked import corner, gram, mixed
from retrieval_bench.registry import CLASSIFIERS

STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""C of the SVM. Beyond it nearly everything is separable, and the solution stays the same."""

LOGISTIC_STRENGTHS = (1.0, 10.0, 100.0)

GRAM_ROWS = 8192
"""More rows than this, and their inner products (half a GiB) are not kept: liblinear then reads the rows."""

_ITERATIONS = 300


@CLASSIFIERS("svm", about="linear SVM, one label against the rest, C chosen on train")
def svm(data: TrainingData) -> FittedClassifier:
    """Hinge loss, one label against the rest (Cortes and Vapnik, Machine Learning 1995); scores are decision values.

    libsvm solves the dual from the inner products of the rows, which are computed once for all labels and strengths:
    81 labels of 2,640 rows of 8,704 numbers took 0.8 s a strength on one core, where liblinear took 30 to 75 s. Beyond
    GRAM_ROWS rows liblinear solves it, with a penalty on the bias, and C is 1, not chosen.
    """
    rows, scale = _scaled(data)
    if len(rows) > GRAM_ROWS:
        return _liblinear(data, rows, scale)
    inner = gram(rows, data.threads)
    kept, held = hold_out(data.class_index, data.seed)
    right = []
    if len(held):
        learned_from, judged_by = np.ascontiguousarray(inner[np.ix_(kept, kept)]), inner[np.ix_(held, kept)]
        for strength in STRENGTHS:
            dual, bias = _one_against_rest(learned_from, data.class_index[kept], strength, data)
            guess = (judged_by @ dual + bias).argmax(axis=1)
            right.append(float(np.mean(guess == data.class_index[held])))
    choice = chosen("C", STRENGTHS, right, 1.0)
    dual, bias = _one_against_rest(inner, data.class_index, choice["C"], data)
    return FittedClassifier(
        LinearScores(mixed(dual.T, rows), bias, scale, data.bits),
        {**choice, "solver": "libsvm", "converged": True},
    )


def _one_against_rest(
    inner: np.ndarray, class_index: np.ndarray, strength: float, data: TrainingData
) -> tuple[np.ndarray, np.ndarray]:
    """(n, n) inner products, (n,) labels -> (n, C) float64 weights of the rows, (C,) biases."""
    from sklearn.svm import SVC

    dual = np.zeros((len(inner), data.n_classes), np.float64)
    bias = np.empty(data.n_classes, np.float64)

    def fit(number: int) -> None:
        model = SVC(C=strength, kernel="precomputed").fit(inner, class_index == number)
        dual[model.support_, number] = model.dual_coef_[0]
        bias[number] = model.intercept_[0]

    with ThreadPoolExecutor(data.threads) as pool:
        list(pool.map(fit, range(data.n_classes)))
    return dual, bias


def _liblinear(data: TrainingData, rows: np.ndarray, scale: Scale) -> FittedClassifier:
    from sklearn.svm import LinearSVC

    # liblinear draws from one generator for the whole process: no threads here.
    model = LinearSVC(C=1.0, loss="hinge", random_state=data.seed, max_iter=_ITERATIONS).fit(rows, data.class_index)
    weights, bias = _both(model.coef_, model.intercept_)
    converged = bool(np.max(model.n_iter_) < _ITERATIONS)
    return FittedClassifier(
        LinearScores(weights, bias, scale, data.bits), {"C": 1.0, "solver": "liblinear", "converged": converged}
    )


@CLASSIFIERS("logistic", about="multinomial logistic regression, C chosen on train")
def logistic(data: TrainingData) -> FittedClassifier:
    """Softmax over linear scores with a quadratic penalty, by L-BFGS; scores are the logits.

    Rows of more numbers than there are rows are turned into as many numbers first, see `corner`.
    """
    from scipy.linalg import solve_triangular
    from sklearn.linear_model import LogisticRegression

    rows, scale = _scaled(data)
    turned = len(rows) < rows.shape[1] and len(rows) <= GRAM_ROWS
    # float64 although it takes twice as long: in float32 the solver gives up at other places than scikit-learn's own.
    points = corner(gram(rows, data.threads)) if turned else rows.astype(np.float64)

    def fit(some: np.ndarray, strength: float) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(points[some], data.class_index[some])

    kept, held = hold_out(data.class_index, data.seed)
    right = []
    if len(held):
        with ThreadPoolExecutor(data.threads) as pool:
            models = list(pool.map(lambda strength: fit(kept, strength), LOGISTIC_STRENGTHS))
        right = [float(np.mean(model.predict(points[held]) == data.class_index[held])) for model in models]
    choice = chosen("C", LOGISTIC_STRENGTHS, right, 10.0)
    model = fit(np.arange(len(points)), choice["C"])
    weights, bias = _both(model.coef_, model.intercept_)
    if data.n_classes == 2:  # the difference of the two scores is the logit
        weights, bias = weights / 2, bias / 2
    if turned:
        weights = mixed(solve_triangular(points, weights.T, lower=True, trans=1).T, rows)
    converged = bool(np.max(model.n_iter_) < _ITERATIONS)
    return FittedClassifier(
        LinearScores(weights, bias, scale, data.bits), {**choice, "solver": "lbfgs", "converged": converged}
    )


def _scaled(data: TrainingData) -> tuple[np.ndarray, Scale]:
    rows = unit(data.rows, data.bits)
    scale = Scale.of(rows)
    return scale.apply(rows), scale


def _both(weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For two labels scikit-learn keeps the second one's row only."""
    weights, bias = np.asarray(weights, np.float64), np.broadcast_to(bias, len(weights)).astype(np.float64)
    return (
        (np.concatenate([-weights, weights]), np.concatenate([-bias, bias])) if len(weights) == 1 else (weights, bias)
    )


class LinearScores:
    """(q, d) features -> (q, C) weights of the scaled rows, plus bias; the scale is worked into both."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, scale: Scale, bits: bool) -> None:
        self.weights = weights / scale.length
        self.bias = bias - self.weights @ scale.mean.astype(np.float64)
        self._bits = bits

    def __call__(self, queries: np.ndarray) -> np.ndarray:
        return unit(queries, self._bits).astype(np.float64) @ self.weights.T + self.bias
