"""What a part of a method makes of pictures and texts, and what a file keeps of words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval_bench.experiment.extraction import described_items
from retrieval_bench.methods.pipeline import Part, Pipeline

WORDS_BYTES = 8
"""Of the checksum of an item's words."""


def part_rows(
    part: Part, side: str, pictures: Sequence[np.ndarray | None], texts: Sequence[str] | None = None
) -> np.ndarray:
    """The features of n items, as a run describes them.

    Args:
        part: that has learned.
        side: what is read of an item, one of `modalities.CHOICES`.
        pictures: (h, w, 3) uint8 RGB. None: an item without one, where the part also reads its text.
        texts: of the same items, "" for none. None: there are none.

    Returns:
        A row for each.
    """
    seen = [None if picture is None else unwritable(picture) for picture in pictures]
    return described_items(part.extractor, side, seen, [""] * len(pictures) if texts is None else texts)


def sides_of(pipeline: Pipeline, *, gallery: bool) -> list[str]:
    """What each part reads of an item of the gallery, or of a query."""
    side = pipeline.sides.gallery if gallery else pipeline.sides.query
    return [part.side(side) for part in pipeline.parts]


def counts_words(part: Part) -> bool:
    """Whether what it makes of a text are words, of which an index keeps a checksum alone."""
    return bool(getattr(part.extractor, "lexical", False))


def storable(features: np.ndarray) -> np.ndarray:
    """The same, or in place of (n, 1) tuples of words (n, WORDS_BYTES) uint8 checksums; zeros where there are none."""
    if features.dtype != object:
        return features
    kept = np.zeros((len(features), WORDS_BYTES), np.uint8)
    for row, (words,) in enumerate(features):
        if words:
            digest = hashlib.blake2b("\0".join(words).encode(errors="surrogatepass"), digest_size=WORDS_BYTES)
            kept[row] = np.frombuffer(digest.digest(), np.uint8)
    return kept


def unwritable(picture: np.ndarray) -> np.ndarray:
    """The same pixels, into which no method can write."""
    view = picture.view()
    view.flags.writeable = False
    return view
