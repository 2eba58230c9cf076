"""Decision tree and small neural network, both of scikit-learn, on the principal axes of the features."""

from __future__ import annotations

from typing import Any

import numpy as np

from retrieval_bench.classifiers.classifier import FittedClassifier, TrainingData
from retrieval_bench.classifiers.preprocessing import Scale, unit
from retrieval_bench.linalg.blocked import blocked_principal_axes, blocked_projection
from retrieval_bench.registry import CLASSIFIERS

TREE_AXES = 64
MLP_AXES = 512
HIDDEN = 256
EPOCHS = 60

_AXES_ROWS = 4096  # rows that the axes are learned from, drawn by the seed: their cost grows with the cube


@CLASSIFIERS("tree", about="decision tree on the first 64 principal axes")
def tree(data: TrainingData) -> FittedClassifier:
    """CART with Gini impurity, grown until pure (Breiman et al. 1984); scores are the labels' shares of a leaf."""
    from sklearn.tree import DecisionTreeClassifier

    space, points = _principal(data, TREE_AXES)
    model = DecisionTreeClassifier(random_state=data.seed).fit(points, data.class_index)
    facts = {"axes": points.shape[1], "leaves": int(model.get_n_leaves()), "depth": int(model.get_depth())}
    return FittedClassifier(lambda queries: model.predict_proba(space(queries)), facts)


@CLASSIFIERS("mlp", about="neural network with one hidden layer of 256, on the first 512 principal axes")
def mlp(data: TrainingData) -> FittedClassifier:
    """ReLU, Adam, 60 epochs, softmax; scores are probabilities.

    The number of epochs is fixed: stopping early would need a validation part that labels with one image cannot give.
    """
    from sklearn.neural_network import MLPClassifier

    space, points = _principal(data, MLP_AXES)
    # One scale for all axes, so that the first ones stay the larger: about 1 is what Adam's step is made for.
    spread = np.float32(float(points.std()) or 1.0)
    model = MLPClassifier((HIDDEN,), max_iter=EPOCHS, random_state=data.seed, alpha=1e-3)
    model.fit(points / spread, data.class_index)
    facts: dict[str, Any] = {"axes": points.shape[1], "hidden": HIDDEN, "epochs": int(model.n_iter_)}
    facts |= {"loss": float(model.loss_), "converged": bool(model.n_iter_ < EPOCHS)}
    return FittedClassifier(lambda queries: model.predict_proba(space(queries) / spread), facts)


class _Space:
    """(q, d) features -> (q, k) float32 on the principal axes of train."""

    def __init__(self, scale: Scale, basis: np.ndarray, bits: bool) -> None:
        self._scale = scale
        self._basis = basis
        self._bits = bits

    def __call__(self, queries: np.ndarray) -> np.ndarray:
        return self._scale.apply(unit(queries, self._bits)) @ self._basis


def _principal(data: TrainingData, at_most: int) -> tuple[_Space, np.ndarray]:
    """The space, and (n, k) where the rows of train stand in it."""
    rows = unit(data.rows, data.bits)
    scale = Scale.of(rows)
    scale.apply(rows)
    some = rows
    if len(rows) > _AXES_ROWS:
        some = rows[np.sort(np.random.default_rng(data.seed).permutation(len(rows))[:_AXES_ROWS])]
    basis = blocked_principal_axes(some, data.threads, at_most)
    return _Space(scale, basis, data.bits), blocked_projection(rows, basis, data.threads)
