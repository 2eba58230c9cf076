"""What all text encoders share: cleaning of texts, one text at a time, unit rows, loading at first use."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np

from retrieval_bench.core import BenchError, Distance, Split
from retrieval_bench.linalg.rows import unit

CHARACTERS = 16_384
"""Of a text that is longer the rest is left out before anything else is done with it: time and memory stay bounded."""

Encode = Callable[[str], np.ndarray | None]
"""One encodable text -> (d,) floats of any length; None where the model finds nothing in the text that it knows."""

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """Prepare a text for every encoder.

    Args:
        text: any string, also one with lone surrogates.

    Returns:
        The text without space around it, cut after CHARACTERS characters, with U+FFFD for each lone surrogate.
    """
    return _LONE_SURROGATES.sub("\ufffd", text.strip()[:CHARACTERS])


@dataclass(eq=False)
class TextVectors:
    """An extractor of texts that compares by cosine and learns nothing.

    Each text is encoded alone. So row i depends on text i only, to the last bit: no padding, no batch.

    Args:
        name: the method.
        load: reads the model and returns the function that encodes one text. Called once, at first use.
        weights: source and sha256 of the weights, for the record.
        dimensions: length of a row.
        window: how many tokens (words, for `glove`) the encoder reads; the rest of a longer text is left out.
    """

    learned: ClassVar[tuple[str, ...]] = ()
    serial: ClassVar[bool] = True

    name: str
    load: Callable[[], Encode]
    weights: Mapping[str, str]
    dimensions: int
    window: int
    distance: Distance = "cosine"
    _encode: Encode | None = field(default=None, init=False, repr=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def fit(self, train: Split) -> Self:
        """Load the model, so that the first text does not pay for it; nothing is learned."""
        self._loaded()
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Refuse pictures. Raises BenchError."""
        raise BenchError(f"{self.name} reads texts and no pictures; give it a dataset with texts")

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts -> (n, dimensions) float32 of norm 1, or zeros where a text is empty or nothing in it is known."""
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        encode = self._loaded()
        for row, text in enumerate(texts):
            text = encodable(text)
            vector = encode(text) if text else None
            if vector is not None:
                rows[row] = unit(vector)
        return rows

    def _loaded(self) -> Encode:
        with self._loading:
            if self._encode is None:
                self._encode = self.load()
            return self._encode
