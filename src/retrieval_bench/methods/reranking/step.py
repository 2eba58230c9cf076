"""What a re-ranking step is, and how a short list is put in a new order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from retrieval_bench.core import Bundle, Distance, Extractor, Ranking, Searcher


class Step(Protocol):
    """One step of re-ranking; what it has to know about the gallery it works out when `searcher` is called."""

    extractor: Extractor | None
    """What it needs to know of each image besides what the method has; None: nothing."""

    averages: bool
    """It takes means of what is compared, which must then be vectors or bits and nothing with a search of its own."""

    def searcher(self, inner: Searcher, gallery: Bundle, compared: Mapping[str, Distance], own: str) -> Searcher:
        """A searcher that asks `inner` and re-ranks what it finds.

        gallery: by name, what is known of each image. compared: the names under which gallery and queries hold what
        `inner` compares, each with its distance; several where rankings are joined. own: the name of what `extractor`
        made of them.
        """


def reordered(found: Ranking, scores: np.ndarray) -> Ranking:
    """The first c of each ranking by these scores, (q, c) float, the smallest first; equal scores stay as they were.

    scores: from 0 to 1. The distance of a re-ranked item is its score, with a trace of its former place so that
    what is told apart by it shows no tie; that of an item behind them is 1 + its place.
    """
    c = min(scores.shape[1], found.indices.shape[1])
    scores = np.where(found.indices[:, :c] >= 0, scores[:, :c], np.inf)
    order = np.argsort(scores, axis=1, kind="stable")
    indices = found.indices.copy()
    indices[:, :c] = np.take_along_axis(found.indices[:, :c], order, axis=1)
    places = np.arange(found.indices.shape[1])
    distances = np.broadcast_to(1 + places, indices.shape).astype(np.float64)
    distances[:, :c] = np.take_along_axis(scores, order, axis=1) * (1 - c * TRACE) + places[:c] * TRACE
    distances = np.where(indices >= 0, distances, np.inf).astype(np.float32)
    return Ranking(indices, np.maximum.accumulate(distances, axis=1))


TRACE = 1e-6
