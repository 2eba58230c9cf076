"""Re-ranking by a network that reads a query and a candidate together, picture and text: a cross-encoder.

Vectors of a query and of a gallery item are made without knowledge of each other. Here both are read at once, which is
too slow for a whole gallery and is done with the first of a ranking alone (Nogueira and Cho, "Passage re-ranking with
BERT", 2019). Tokens are the vectors that the search compares, cut into pieces, and the words of both texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from retrieval_bench.core import BenchError, Bundle, Distance, Extractor, Ranking, Searcher
from retrieval_bench.extractors.text.hashed_words import HashedWords
from retrieval_bench.linalg.rows import signs, unit_rows
from retrieval_bench.methods.reranking.step import Step, reordered
from retrieval_bench.registry import STEPS, Range
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import pinned


@dataclass(eq=False)
class Cross:
    """shortlist: items that are read together with the query. network_: what was learned. epoch_: the epoch that was
    kept; 0 where none clearly found held-out labels better than the search before, whose order then stays."""

    shortlist: int
    epochs: int
    extractor: Extractor | None = field(default_factory=HashedWords)
    averages: bool = False
    comparable: bool | None = False
    network_: Any = None
    epoch_: int = 0

    @property
    def said(self) -> str:
        """Whether anything was learned that is used."""
        if self.network_ is None or self.epoch_:
            return ""
        return "was not clearly better on held-out labels after any epoch, so the order before it stays"

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
        """Learn from training items that search among themselves."""
        from retrieval_bench.methods.reranking.cross_training import train_cross

        vectors = token_vectors(items, compared)
        depth = min(self.shortlist + 1, len(labels))
        found = inner(items, depth, np.arange(len(labels)))
        self.network_, self.epoch_ = train_cross(
            vectors, items.arrays[own], found, labels, epochs=self.epochs, seed=seed, progress=progress
        )

    def searcher(self, inner: Searcher, gallery: Bundle, compared: Mapping[str, Distance], own: str) -> Searcher:
        if self.network_ is None:
            raise BenchError("cross learns from train, and nothing was learned")
        return CrossSearcher(inner, gallery, compared, own, self)


@dataclass(eq=False)
class CrossSearcher:
    """Each query is read with its own candidates and nothing else, so that no other query changes a bit."""

    inner: Searcher
    gallery: Bundle
    compared: Mapping[str, Distance]
    own: str
    step: Cross

    def __post_init__(self) -> None:
        from retrieval_bench.methods.reranking.cross_network import ItemTokens

        self._items = ItemTokens.of(token_vectors(self.gallery, self.compared), self.gallery.arrays[self.own])

    @property
    def bytes(self) -> int:
        """What is searched before, and what is kept of each item to read."""
        read = [name for name in self.compared if self.gallery.arrays[name].dtype != object]
        return self.inner.bytes + sum(self.gallery.arrays[name].nbytes for name in (*read, self.own))

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        from retrieval_bench.methods.reranking.cross_network import ItemTokens, together
        from retrieval_bench.methods.reranking.cross_training import first_scores

        shortlist = min(self.step.shortlist, len(self.gallery))
        found = self.inner(queries, max(k, shortlist), exclude)
        asked = ItemTokens.of(token_vectors(queries, self.compared), queries.arrays[self.own])
        before = first_scores(found.distances[:, :shortlist])
        scores = np.ones(before.shape)
        with pinned(1):  # whose bits are the same wherever it runs
            for query, indices in enumerate(found.indices[:, :shortlist]):
                there = np.flatnonzero(indices >= 0)
                read = together(self.step.network_, asked, query, self._items, indices[there], before[query, there])
                scores[query, there] = 1 / (1 + np.exp(read.astype(np.float64)))
        result = reordered(found, scores)
        return Ranking(result.indices[:, :k], result.distances[:, :k])


def token_vectors(items: Bundle, compared: Mapping[str, Distance]) -> dict[str, np.ndarray]:
    """Name -> (n, d) float32 of each array that has vectors, its numbers about 1 in the mean; a row of zeros stays."""
    found = {}
    for name, distance in compared.items():
        array = items.arrays[name]
        if array.dtype == object or array.ndim != 2:
            continue  # compared in a way of its own
        rows = signs(array) if distance == "hamming" else unit_rows(array.astype(np.float32))
        found[name] = rows if distance == "hamming" else rows * np.float32(np.sqrt(rows.shape[1]))
    return found


@STEPS(
    "cross",
    about="a small Transformer over pictures and texts re-ranks the first 50",
    main="shortlist",
    modalities=("text",),
)
def cross(
    *,
    shortlist: Annotated[int, Range(2)] = 50,
    epochs: Annotated[int, Range(1, 1000)] = 10,
) -> Step:
    """Re-ranking by a cross-encoder of two layers, trained on train.

    Args:
        shortlist: how many of the first are read together with the query
        epochs: how often each training item asks; the best epoch on held-out labels is kept, none where none is
            clearly better than the order before
    """
    if shortlist < 2 or epochs < 1:
        raise BenchError(f"cross: shortlist={shortlist} must be at least 2 and epochs={epochs} at least 1")
    return Cross(shortlist, epochs)
