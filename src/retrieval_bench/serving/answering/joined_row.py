"""All columns as one: reciprocal-rank fusion of what each of them found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import Bundle, Ranking
from retrieval_bench.methods.fusion import rrf

DEPTH = 100
"""How far each ranking is read, or k where that is more: `+rrf:depth=100` of a run."""


@dataclass(frozen=True, eq=False)
class _Known:
    """A searcher whose answer is known already."""

    ranking: Ranking
    bytes: int = 0

    def __call__(self, queries: Any, k: int, exclude: np.ndarray | None = None) -> Ranking:
        return Ranking(self.ranking.indices[:, :k], self.ranking.distances[:, :k])


def joined_row(rankings: Mapping[str, Sequence[int]], k: int, depth: int = DEPTH) -> Ranking:
    """Join rankings by the very code that joins methods in a run.

    Args:
        rankings: of each column, the items that it found, nearest first; an item has the same number in all of them.
        k: items wanted.
        depth: how far each ranking is read.

    Returns:
        The ranking of one query: the items of all rankings, or the first k of them; not padded.
    """
    known = {len(ranking) for ranking in rankings.values()}
    most = min(max(known, default=0), depth)
    found = {item for ranking in rankings.values() for item in ranking[:most]}
    if not found:
        return Ranking(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32))
    padded = {}
    for name, ranking in rankings.items():
        indices = np.full((1, most), -1, np.int64)
        own = np.asarray(ranking[:most], np.int64)
        indices[0, : len(own)] = own
        padded[name] = Ranking(indices, np.zeros((1, most), np.float32))
    blank = Bundle({name: np.zeros((most, 1), np.uint8) for name in padded})
    searcher = rrf(depth=most).searcher(blank, lambda name, features: _Known(padded[name]))
    joined: Ranking = searcher(blank[np.arange(1)], min(k, len(found)))
    return joined
