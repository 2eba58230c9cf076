"""Classifiers that learn from the features of train: one file a family, found through the CLASSIFIERS registry.

Importing this package registers them all. Nearest-neighbour metrics of a ranking belong in `evaluation`.
"""

from retrieval_bench.classifiers import knn, linear, tree_mlp
from retrieval_bench.classifiers.classifier import Classifier, fit_classifier
from retrieval_bench.classifiers.metrics import confusion, judge_classifier, roc_curve

__all__ = [
    "Classifier",
    "confusion",
    "fit_classifier",
    "judge_classifier",
    "knn",
    "linear",
    "roc_curve",
    "tree_mlp",
]
