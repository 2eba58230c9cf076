"""Classifiers that learn from the features of train: one file a family, found through the HEADS registry.

Importing this package registers them all. Nearest-neighbour metrics of a ranking belong in `evaluation`.
"""

from retrieval_bench.classifiers import knn, linear, tree_mlp
from retrieval_bench.classifiers.classifier import Head, fit_head
from retrieval_bench.classifiers.metrics import confusion, judge_head, roc_curve

__all__ = [
    "Head",
    "confusion",
    "fit_head",
    "judge_head",
    "knn",
    "linear",
    "roc_curve",
    "tree_mlp",
]
