"""`bm25`: texts by the words that they share, as search engines have ranked them for thirty years.

Robertson, Walker, Jones, Hancock-Beaulieu, Gatford: Okapi at TREC-3, 1994. Scores are those of bm25s (Lu, BM25S: orders
of magnitude faster lexical search via eager sparse scoring, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Ranking, Setup, Split
from retrieval_bench.registry import EXTRACTORS, Range
from retrieval_bench.texts.words import words_of

Variant = Literal["lucene", "robertson", "atire"]


class Bm25:
    """How often a word is in a text says what it is about, and in how few texts of the gallery it is says how much.

    Those statistics are the gallery's, which is what is searched: they are counted when its index is made, as in any
    search engine, and nothing is learned from train.
    """

    distance: Distance = "inner_product"
    comparable = False  # a longer query has higher scores with everything
    lexical = True
    """What it keeps of texts are words, not vectors."""

    def __init__(self, k1: float, b: float, variant: Variant) -> None:
        self._bm25s = _library()
        self._k1, self._b, self._variant = k1, b, variant

    def fit(self, train: Split) -> Self:
        """Nothing is learned."""
        return self

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, 1) objects, the words of each text as a tuple; () of a text without words."""
        rows = np.empty((len(texts), 1), object)
        for row, text in enumerate(texts):
            rows[row, 0] = tuple(words_of(text))
        return rows

    def searcher(self, gallery: np.ndarray) -> Bm25Searcher:
        """Over the words of the gallery's texts. gallery: of `transform_texts`."""
        return Bm25Searcher(self._bm25s, [list(words) for (words,) in gallery], self._k1, self._b, self._variant)


class Bm25Searcher:
    """The distance is the negated score. Equal ones go by row."""

    nothing = 0.0
    """The distance of a text that shares no word with the query."""

    def __init__(self, bm25s: Any, texts: Sequence[list[str]], k1: float, b: float, variant: Variant) -> None:
        self._n, self._index = len(texts), None
        if any(texts):
            self._index = bm25s.BM25(k1=k1, b=b, method=variant, dtype="float64")
            self._index.index(list(texts), show_progress=False)

    @property
    def bytes(self) -> int:
        """Of the scores that are kept, word by word, and of the words."""
        if self._index is None:
            return 0
        kept = sum(self._index.scores[name].nbytes for name in ("data", "indices", "indptr"))
        return int(kept + sum(len(word.encode(errors="surrogatepass")) for word in self._index.vocab_dict))

    def scores(self, words: Sequence[str]) -> np.ndarray:
        """(n,) float64 of one query with every text of the gallery."""
        if self._index is None or not words:
            return np.zeros(self._n)
        return np.asarray(self._index.get_scores(list(words)), np.float64)

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """queries: (q, 1) of `transform_texts`."""
        found = min(k, self._n)
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for row, (words,) in enumerate(queries):
            away = -self.scores(words)
            if exclude is not None:
                out = np.atleast_1d(exclude[row])
                away[out[out >= 0]] = np.inf
            order = _nearest(away, found)
            order = order[away[order] < np.inf]
            indices[row, : len(order)], distances[row, : len(order)] = order, away[order] + 0.0  # no -0
        return Ranking(indices, distances)


def _nearest(away: np.ndarray, k: int) -> np.ndarray:
    """The k smallest, in order; equal ones by their place."""
    if k < len(away):
        last = np.partition(away, k - 1)[k - 1]
        candidates = np.flatnonzero(away <= last)
    else:
        candidates = np.arange(len(away))
    return candidates[np.argsort(away[candidates], kind="stable")][:k]


def _library() -> Any:
    try:
        import bm25s
    except ImportError:
        raise BenchError(
            'bm25 needs the package bm25s, which is not installed; pip install "retrieval-bench[text]"'
        ) from None
    return bm25s


@EXTRACTORS("bm25", about="texts by the words they share, rare ones most", family="text", modalities=("text",))
def bm25(
    setup: Setup,
    *,
    k1: Annotated[float, Range(0)] = 1.5,
    b: Annotated[float, Range(0, 1)] = 0.75,
    variant: Variant = "lucene",
) -> Bm25:
    """Okapi BM25 over the gallery's texts.

    Args:
        setup: of the run.
        k1: how soon a word that occurs again adds nothing more
        b: how far long texts are held against short ones, 0 (not at all) to 1 (fully)
        variant: of the formula, by bm25s's names
    """
    return Bm25(k1, b, variant)
