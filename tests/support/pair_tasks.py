"""A training on pairs that takes a second: the pictures of the small shop, with words beside them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from retrieval_bench.core import Dataset, Setup
from retrieval_bench.pair_training.settings import PairSettings
from retrieval_bench.training.pairs import PairTask
from tests.support.shop import shop

WORDS = ("red mug honey", "green bottle solis", "blue carton ember", "yellow shirt nordic", "purple shoe atlas")
OTHERS = ("crimson cup honey", "emerald flask solis", "azure box ember", "mustard tee nordic", "plum sneaker atlas")


def shop_with_texts(n_labels: int = 5, each: int = 4) -> Dataset:
    """The small shop; a picture's text says what its label is, in one of two wordings."""
    data = shop(n_labels, each)
    splits = {}
    for name, split in data.splits.items():
        said = [(WORDS, OTHERS)[row % 2][label] for row, label in enumerate(split.labels)]
        splits[name] = replace(split, texts=tuple(said))
    return data.with_splits(splits)


def pair_task(method: str = "hsv:levels=1", data: Dataset | None = None, **given: Any) -> PairTask:
    """Towers so small that an epoch takes some milliseconds."""
    data = data or shop_with_texts()
    small = {"epochs": 3, "batch": 8, "dims": 16, "width": 16, "hidden": 8, "holdout": 0.4}
    return PairTask(
        method=method,
        split=data.train,
        label_names=data.label_names,
        dataset="shop",
        fingerprint=data.fingerprint,
        settings=PairSettings(**(small | given)),
        setup=Setup(threads=2),
    )
