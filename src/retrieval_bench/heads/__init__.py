"""Classifiers on any feature, learned from train: one file a family, found through the HEADS registry."""

from retrieval_bench.heads import linear, neighbours, shallow
from retrieval_bench.heads.head import Head, fit_head
from retrieval_bench.heads.verdict import confusion, judge_head, roc_curve

__all__ = [
    "Head",
    "confusion",
    "fit_head",
    "judge_head",
    "linear",
    "neighbours",
    "roc_curve",
    "shallow",
]
