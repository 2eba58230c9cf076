"""`pairs:FILE`: pictures and texts in one space, by the two towers of a file that `train --mode pairs` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split, printable
from retrieval_bench.extractors.deep.frozen_pictures import FrozenPictures, restored_pictures
from retrieval_bench.pair_training.file import PairFile, read_pairs
from retrieval_bench.pair_training.tokenise import read_words
from retrieval_bench.pair_training.towers import image_vector, text_vector
from retrieval_bench.registry import EXTRACTORS


class PairTowers:
    """Both towers, and what describes pictures below one of them.

    Args:
        called: the method, for sentences.
        source: name of the file, for the record.
        found: what the file holds.
        pictures: its extractors, with what they had learned.
    """

    distance: Distance = "cosine"

    def __init__(self, called: str, source: str, found: PairFile, pictures: FrozenPictures) -> None:
        self._called, self._found, self._pictures = called, found, pictures
        self.weights = {
            "source": source,
            "sha256": found.sha256,
            "recipe": f"{found.shape.kind} over {found.tokens.kind}, and a layer over {self.image_method}",
        }
        self.trained_on: dict[str, Any] = {**found.facts, "images": list(found.images)}

    @property
    def image_method(self) -> str:
        """How the extractors below the image tower are called."""
        return "+".join(part.spec for part in self._found.parts)

    @property
    def chunk(self) -> int:
        return self._pictures.chunk

    @property
    def wanted(self) -> int | None:
        return self._pictures.wanted

    def fit(self, train: Split) -> Self:
        """Nothing: all was learned before."""
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, dims) float32 of length 1; zeros for a picture that its extractors do not describe."""
        rows = np.zeros((len(images), self._found.shape.dims), np.float32)
        features = self._pictures.transform(images) if len(images) else rows
        for row, one in enumerate(features if len(images) else ()):
            if len(one) != self._found.shape.features:
                raise BenchError(
                    f"{self._called}: {self.image_method} gives {len(one)} numbers of a picture and the file's image "
                    f"tower takes {self._found.shape.features}; train it again"
                )
            rows[row] = image_vector(self._found.both, one)
        return rows

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts -> (n, dims) float32 of length 1; zeros for a text without a word."""
        rows = np.zeros((len(texts), self._found.shape.dims), np.float32)
        for row, text in enumerate(texts):
            rows[row] = text_vector(self._found.both, self._found.tokens.tokens(read_words(text)), rows.shape[1])
        return rows


def _named(file: str) -> tuple[Path, str]:
    """The path, and what sentences begin with. BenchError where there is no file."""
    path = Path(file)
    called = f"pairs:{printable(path.name)}"
    if not path.is_file():
        raise BenchError(f"{called}: there is no file {printable(path)}; name one that `train --mode pairs` wrote")
    return path, called


def _check(file: str = "") -> None:
    _named(file)


@EXTRACTORS(
    "pairs",
    family="deep",
    about="pictures and texts in one space: the two towers that `train --mode pairs` wrote",
    argument="file",
    modalities=("image", "text"),
)
def pairs(setup: Setup, *, file: str = "") -> Extractor:
    """Towers that were trained on pairs of pictures and texts.

    Args:
        setup: what the run fixes for every method.
        file: the file that `train --mode pairs` wrote.
    """
    path, called = _named(file)
    found = read_pairs(path, called)
    return PairTowers(called, path.name, found, restored_pictures(found.parts, setup, found.seed, called))


pairs.check = _check  # type: ignore[attr-defined]
