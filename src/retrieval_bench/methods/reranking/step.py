"""The interface of a re-ranking step, and the function that puts a short list in a new order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from retrieval_bench.core import Bundle, Distance, Extractor, Ranking, Searcher
from retrieval_bench.system.progress import Progress


class Step(Protocol):
    """One step of re-ranking. It prepares what it needs of the gallery when `searcher` is called."""

    extractor: Extractor | None
    """Describes each image for this step, besides the features of the method; None: the step needs nothing more."""

    averages: bool
    """True if the step averages features; these must then be vectors or bits, without a searcher of their own."""

    comparable: bool | None
    """True if the distances of two queries are on one scale after this step, False if each query has a scale of its
    own; None: as before the step."""

    def searcher(self, inner: Searcher, gallery: Bundle, compared: Mapping[str, Distance], own: str) -> Searcher:
        """Build a searcher that calls `inner` and re-ranks its result.

        Args:
            inner: the search whose rankings are re-ranked.
            gallery: the features of each gallery image, by name.
            compared: name -> distance of the features that `inner` compares; several if rankings are joined.
            own: the name of the features that `extractor` made.

        Returns:
            The new searcher. Its queries are bundles with the same names as `gallery`.
        """


@runtime_checkable
class LearningStep(Step, Protocol):
    """A step that learns from train before it re-ranks anything."""

    said: str
    """What a reader of its row must know of what was learned, behind its name; "" for nothing."""

    def fit(
        self,
        inner: Searcher,
        items: Bundle,
        compared: Mapping[str, Distance],
        own: str,
        labels: np.ndarray,
        seed: int,
        progress: Progress,
    ) -> None:
        """Learn from training items that search among themselves.

        Args:
            inner: the search that will be re-ranked, over these items.
            items: their features by name, at most LEARN_FROM items.
            compared: as for `searcher`.
            own: as for `searcher`.
            labels: (n,) int64, the label of each item.
            seed: of the run.
            progress: called with (what, steps done, steps in all).
        """


def reordered(found: Ranking, scores: np.ndarray) -> Ranking:
    """Put the first c items of each ranking in a new order.

    Args:
        found: the rankings of q queries.
        scores: (q, c) float, 0 to 1; smaller is better. Items with equal scores keep their order.

    Returns:
        The new rankings. The distance of a re-ranked item is its score plus a very small part of its former rank, so
        that items with equal scores are no ties. The distance of an item behind the first c is 1 + its rank from 0.
    """
    c = min(scores.shape[1], found.indices.shape[1])
    scores = np.where(found.indices[:, :c] >= 0, scores[:, :c], np.inf)
    order = np.argsort(scores, axis=1, kind="stable")
    indices = found.indices.copy()
    indices[:, :c] = np.take_along_axis(found.indices[:, :c], order, axis=1)
    ranks = np.arange(found.indices.shape[1])
    distances = np.broadcast_to(1 + ranks, indices.shape).astype(np.float64)
    distances[:, :c] = np.take_along_axis(scores, order, axis=1) * (1 - c * TRACE) + ranks[:c] * TRACE
    distances = np.where(indices >= 0, distances, np.inf).astype(np.float32)
    return Ranking(indices, np.maximum.accumulate(distances, axis=1))


TRACE = 1e-6
