"""The words of a text as the buckets of their letters: what `cross` reads of an item's text.

Each word is a set of runs of three letters, and itself, hashed into buckets (Bojanowski et al., "Enriching word vectors
with subword information", TACL 2017): a misspelt word shares most of them with the right one, and no vocabulary is
needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Split
from retrieval_bench.texts.words import words_of

WORDS = 24
"""Words of a text that are read."""
GRAMS = 12
"""Buckets of a word that are kept: itself, and the first of its runs of letters."""
BUCKETS = 8192
"""Bucket 0 stands for nothing."""


class HashedWords:
    """An extractor: the words of a text, packed into (n, WORDS * GRAMS * 2) bytes."""

    distance: Distance = "hamming"

    def fit(self, train: Split) -> Self:
        """There is nothing to learn."""
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Refuse pictures. Raises BenchError."""
        raise BenchError("words are read of texts, not of pictures")

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """The words of each text."""
        rows = np.zeros((len(texts), WORDS, GRAMS), np.uint16)
        for row, text in enumerate(texts):
            for place, word in enumerate(words_of(text)[:WORDS]):
                grams = grams_of(word)
                rows[row, place, : len(grams)] = grams
        return rows.reshape(len(texts), WORDS * GRAMS).view(np.uint8)


def grams_of(word: str) -> list[int]:
    """Buckets, from 1, of a word and of its runs of three letters, its ends marked; at most GRAMS."""
    marked = f"<{word}>"
    runs = [marked, *(marked[at : at + 3] for at in range(len(marked) - 2))]
    return [1 + zlib.crc32(run.encode(errors="surrogatepass")) % (BUCKETS - 1) for run in dict.fromkeys(runs)][:GRAMS]


def bucket_rows(packed: np.ndarray) -> np.ndarray:
    """(n, WORDS, GRAMS) uint16 from the rows of `HashedWords`."""
    buckets: np.ndarray = np.ascontiguousarray(packed).view(np.uint16).reshape(len(packed), WORDS, GRAMS)
    return buckets
