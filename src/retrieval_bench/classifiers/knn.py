"""k nearest neighbours, found by the engine that ranks the gallery, so that 1-NN here is 1-NN there."""

from __future__ import annotations

import numpy as np

from retrieval_bench.classifiers.classifier import FittedClassifier, TrainingData
from retrieval_bench.core import Distance
from retrieval_bench.registry import CLASSIFIERS

NEIGHBOURS = 9
"""At most. Of 1, 3, 5, 9 and 15 the best on other photos than train's (Grocery's val list: colour 0.56, 1-NN 0.52).
Train alone cannot tell: photos come in series, and with a part of it held out k = 1 always wins (0.98)."""

_DEPTH = 4096  # ranks looked at: whole rankings of a large train split are not worth their cost


@CLASSIFIERS(
    "knn", about="vote of the 9 nearest by cosine (packed codes: Hamming), fewer where labels have fewer images"
)
def knn(data: TrainingData) -> FittedClassifier:
    """k = NEIGHBOURS, or the median number of images of a label in train where that is less.

    Score of a label = its votes among the k nearest + (n - r) / (n + 1), r = rank from 0 of its first row.
    So a tie goes to the label seen first, as in the metric knn_accuracy@k, and labels without a vote are ordered too.
    A label that is not among the first 4,096 has score 0.
    """
    from retrieval_bench.search.index import ExactIndex

    distance: Distance = "hamming" if data.bits else "cosine"
    neighbours = min(NEIGHBOURS, int(np.median(np.bincount(data.class_index))))
    index = ExactIndex(data.rows, distance)
    depth = min(len(data.rows), _DEPTH)

    def score(queries: np.ndarray) -> np.ndarray:
        return votes(data.class_index[index.search(queries, depth).indices], neighbours, data.n_classes)

    return FittedClassifier(score, {"neighbours": neighbours, "distance": distance})


def votes(labels: np.ndarray, k: int, n_classes: int) -> np.ndarray:
    """(q, m) labels found, nearest first -> (q, n_classes) float64, as `knn` defines it with n = m."""
    q, m = labels.shape
    owners = np.arange(q)[:, None]
    first = np.full((q, n_classes), m, np.int64)
    np.minimum.at(first, (owners, labels), np.arange(m))
    scores = (m - first) / (m + 1)
    np.add.at(scores, (owners, labels[:, :k]), 1.0)
    return scores
