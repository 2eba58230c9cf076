"""`tfidf`: texts by the pieces of words that they share, so that a misspelt word is still near the right one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Setup, Split, refuse_unfitted
from retrieval_bench.registry import EXTRACTORS, Range
from retrieval_bench.texts.words import normalised


class TfIdf:
    """One number for each piece of two to `longest` letters that is common in the texts of train, weighed by how few of
    these have it (Salton, Buckley: Term-weighting approaches in automatic text retrieval, 1988)."""

    distance: Distance = "cosine"
    learned = ("pieces_", "idf_")

    def __init__(self, longest: int, pieces: int) -> None:
        self._longest, self._most = longest, pieces

    def fit(self, train: Split) -> Self:
        """Choose the pieces and weigh them, by the texts of train."""
        vectoriser = self._vectoriser()
        texts = [normalised(text) for text in train.texts or ()]
        try:
            vectoriser.fit(texts)
        except ValueError:  # scikit-learn's word for texts without a single piece
            raise BenchError(
                f"tfidf learns from the texts of train, and none of its {len(train)} items has a text with letters; "
                "drop tfidf, or let it learn from the gallery by --learn-from gallery"
            ) from None
        self.pieces_ = np.array(vectoriser.get_feature_names_out(), dtype=str)
        self.idf_ = np.asarray(vectoriser.idf_, np.float64)
        self.__dict__.pop("_fitted", None)
        return self

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(n, pieces) float32 rows of length 1; zeros for a text without any of the pieces."""
        refuse_unfitted(self, "tfidf")
        counts = self._fitted.transform([normalised(text) for text in texts])
        return np.ascontiguousarray(counts.toarray(), np.float32)

    @cached_property
    def _fitted(self):  # type: ignore[no-untyped-def]
        vectoriser = self._vectoriser(self.pieces_)
        vectoriser.idf_ = self.idf_
        return vectoriser

    def _vectoriser(self, pieces: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            analyzer="char_wb",
            ngram_range=(2, self._longest),
            max_features=self._most if pieces is None else None,
            vocabulary=None if pieces is None else {piece: place for place, piece in enumerate(pieces.tolist())},
            lowercase=False,
            sublinear_tf=True,
            dtype=np.float64,
        )


@EXTRACTORS("tfidf", about="texts by pieces of words, weighed on train", family="text", modalities=("text",))
def tfidf(
    setup: Setup, *, longest: Annotated[int, Range(2, 8)] = 4, pieces: Annotated[int, Range(1, 65_536)] = 4096
) -> TfIdf:
    """Character n-grams, as scikit-learn counts and weighs them.

    Args:
        setup: of the run.
        longest: letters of the longest pieces; the shortest have two
        pieces: how many are kept, at most: those that occur most in train
    """
    return TfIdf(longest, pieces)
