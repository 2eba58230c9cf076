"""A few images of each method again: alone, among others and in another order, which must change nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_bench.core import Extractor, Setup, Split
from retrieval_bench.experiment.extraction import both, decoded, described_texts, texts_of
from retrieval_bench.images.screening import pictured_rows
from retrieval_bench.methods.modalities import IMAGE, TEXT
from retrieval_bench.methods.pipeline import Part

IMAGES = 4
"""So many are described again; the two of them at the ends are a batch of their own, too."""
TOLERANCE = 1e-5
"""Of the largest number. Less is the rounding of a library that adds up in another order for another batch; what comes
from the cache may have been rounded by another processor. Bits and whole numbers must be equal."""
TOLERANCE_ON_GPU = 1e-3


def inconsistency(part: Part, gallery: Split, features: np.ndarray, setup: Setup, side: str = IMAGE) -> str:
    """What is wrong with a part, in words; "" for one that describes each item as before.

    Args:
        part: an extractor that has learned.
        gallery: the items that were described.
        features: (n, d), what the quality pass made of them, or took from the cache.
        setup: the seed draws the items.
        side: what the part reads of each, one of modalities.CHOICES.

    Returns:
        The first of the ways in which features differ, with the largest deviation.
    """
    extractor = part.extractor
    no_items = any(hasattr(extractor, name) for name in ("transform_split", "describe_split"))
    if no_items or any(getattr(extractor, name, False) for name in ("elsewhere", "lexical")) or not len(features):
        return ""
    able = np.flatnonzero(pictured_rows(gallery)) if side != TEXT else np.arange(len(features))
    drawn = able[np.random.default_rng(setup.seed).permutation(len(able))[:IMAGES]]
    tolerance = TOLERANCE_ON_GPU if setup.device != "cpu" and part.spec.entry.family == "deep" else TOLERANCE
    ways: Mapping[str, Sequence[Sequence[int]]] = {
        "alone": [[int(row)] for row in drawn],
        "in another batch": [drawn[[0, -1]].tolist()],
        "in another order": [drawn[::-1].tolist()],
    }
    for how, batches in ways.items():
        for rows in batches:
            away = _deviation(_described(extractor, gallery, rows, side), features[rows])
            if not away <= tolerance * _largest(features[rows]):
                others = f"by up to {away:.3g}" if np.isfinite(away) else "in shape or kind"
                kind = "a text" if side == TEXT else "an image"
                return f"{kind} {how} gets other features than among all, {others}"
    return ""


def _described(extractor: Extractor, gallery: Split, rows: Sequence[int], side: str) -> np.ndarray:
    told = None if side == IMAGE else described_texts(extractor, [texts_of(gallery)[row] for row in rows])
    if side == TEXT and told is not None:
        return told
    seen = extractor.transform(decoded(gallery.images, rows))
    return seen if told is None else both(seen, told)


def _deviation(again: np.ndarray, before: np.ndarray) -> float:
    """The largest difference of two numbers; infinite where the arrays cannot be compared."""
    if not isinstance(again, np.ndarray) or again.shape != before.shape or again.dtype != before.dtype:
        return float("inf")
    return float(np.abs(again.astype(np.float64) - before.astype(np.float64)).max(initial=0.0))


def _largest(features: np.ndarray) -> float:
    """Of the numbers, by size; 0 for whole numbers, which are not rounded."""
    return float(np.abs(features).max(initial=0)) if features.dtype.kind == "f" else 0.0
