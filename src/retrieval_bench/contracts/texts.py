"""Texts on which an extractor is checked that reads texts: listings, queries, and one of each awkward kind."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from retrieval_bench.core import Split
from retrieval_bench.datasets.shop.look import looks
from retrieval_bench.datasets.shop.wording import written_texts
from retrieval_bench.images.reading import ImageBytes, encode_png

AWKWARD = (
    "",
    " \t\n",
    "mug",
    "MUG mug Mug",
    "<b>mug</b> &amp; <script>alert(1)</script>",
    "קומקום תה אדום",
    "赤いマグカップ",
    "красная кружка",
    "☕ 🎉",
    "a\x00b\x1b[31mc",
    "half of a pair: \ud800",
    "mug " * 5000,
)
TRAIN_VIEWS, OTHER_VIEWS, QUERY_VIEWS = (1, 2), (3, 4), (8,)
PRODUCTS = 12


@functools.cache
def written() -> tuple[list[str], Split, Split]:
    """(texts to describe, items to learn from, other items to learn from); written once a process."""
    some = looks(0)[:: 100 // PRODUCTS][:PRODUCTS]
    asked, _ = written_texts(some, 0, "query", QUERY_VIEWS)
    return [*asked, *AWKWARD], _items("train", TRAIN_VIEWS), _items("other", OTHER_VIEWS)


def _items(name: str, views: Sequence[int]) -> Split:
    some = looks(0)[:: 100 // PRODUCTS][:PRODUCTS]
    texts, _ = written_texts(some, 0, "train", views)
    labels = np.repeat(np.arange(len(some)), len(views))
    blank = encode_png(np.full((2, 2, 3), 200, np.uint8))
    return Split(
        tuple(f"{name}/{row:03}" for row in range(len(texts))),
        labels,
        ImageBytes([blank] * len(texts)),
        texts=tuple(texts),
    )
