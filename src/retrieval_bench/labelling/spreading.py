"""Labels that spread along the graph of nearest neighbours, a few steps far.

Zhou, Bousquet, Lal, Weston, Schoelkopf: "Learning with local and global consistency", NIPS 2004. Each image gives a
part of what it has to its neighbours, and what arrives is summed over all ways of at most STEPS steps. The sum is
linear in the labels that are known, so what an image would get without its own label is known as well: no label needs
to be hidden and spread again to learn how often a proposal is right.

scikit-learn's LabelSpreading does the same with the whole table of images and labels in memory and without an end to
the ways; a test compares both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.index import ExactIndex

NEIGHBOURS = 20
"""Of each image, in the graph."""
SCALE_AT = 7
"""The neighbour whose distance is taken as the scale of an image (Zelnik-Manor and Perona, "Self-tuning spectral
clustering", NIPS 2004), so that no unit of any method plays a part."""
ALPHA = 0.8
"""Which part of what an image has goes on to its neighbours."""
STEPS = 6
CANDIDATES = 5
"""Labels that are kept of each image, the likeliest first."""

_LABELS_AT_ONCE = 256
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """Who gives how much to whom.

    Args:
        matrix: (n, n) scipy CSR float32, symmetric, its diagonal 0, scaled by the square roots of the sums of its rows.
        neighbours: (n, k) int64, the nearest images of each, nearest first, padded with -1.
        apart: (n, k) float64, their distances, 0 where nearest; inf pads.
        scales: (n,) float64, the distance that counts as near, of each image.
    """

    matrix: Any
    neighbours: np.ndarray
    apart: np.ndarray
    scales: np.ndarray

    def __len__(self) -> int:
        return len(self.neighbours)


@dataclass(frozen=True, eq=False)
class Spread:
    """What arrives at m images.

    Args:
        labels: (m, CANDIDATES) int64, the labels of which most arrives, most first, padded with -1.
        amounts: (m, CANDIDATES) float64, how much of each; 0 where there is none.
        total: (m,) float64, of all labels together.
        given: (m,) float64, of the label that an image has itself, where it has one; else 0.
    """

    labels: np.ndarray
    amounts: np.ndarray
    total: np.ndarray
    given: np.ndarray


def graph_of(features: np.ndarray, distance: Distance, threads: int | None = None) -> NeighbourGraph:
    """Find the neighbours of each image, exactly, and weigh them.

    Args:
        features: (n, d) vectors, or (n, bytes) packed codes for hamming.
        distance: how they are compared.
        threads: search on at most so many.

    Returns:
        The graph; an image without features (a row of zeros) is a neighbour like any other, at the distance that the
        search gives it.
    """
    from scipy import sparse

    n = len(features)
    k = max(1, min(NEIGHBOURS, n - 1))
    found = ExactIndex(features, distance).search(features, k, np.arange(n), threads=threads)
    rows, apart = found.indices, found.distances.astype(np.float64)
    there = rows >= 0
    if distance == "inner_product" and there.any():
        apart = np.where(there, apart - apart[there].min(), np.inf)  # negated products: the least is the nearest
    apart = np.maximum(apart, 0)
    own = np.where(there, apart, 0)[:, : min(SCALE_AT, k)].max(axis=1)
    least = own[own > 0].min() * 1e-3 if (own > 0).any() else 1.0  # where seven copies lie at distance 0
    scales = np.maximum(own, least)
    weights = np.where(there, np.exp(-(apart**2) / (scales[:, None] * scales[np.maximum(rows, 0)])), 0)
    from_rows = np.repeat(np.arange(n), there.sum(axis=1))
    one_way = sparse.csr_matrix((weights[there], (from_rows, rows[there])), shape=(n, n))
    both = one_way + one_way.T
    sums = np.asarray(both.sum(axis=1)).ravel()
    roots = sparse.diags_array(1 / np.sqrt(np.maximum(sums, 1e-12)))
    return NeighbourGraph(sparse.csr_matrix(roots @ both @ roots).astype(np.float32), rows, apart, scales)


def spread(graph: NeighbourGraph, known: np.ndarray) -> Spread:
    """What arrives at each image of the labels of all others; what an image has itself does not come back to it.

    Args:
        graph: of n images.
        known: (n,) int64, the label of each image, -1 where it is not known.

    Returns:
        Of all n images; of one with a label, what would arrive if its label were not known.
    """
    n = len(graph)
    given = np.flatnonzero(known >= 0)
    back = _coming_back(graph, given)
    labels, class_of, counts = np.unique(known[given], return_inverse=True, return_counts=True)
    # Without its own label, an image's product has one label less than all others, which is made good; one that had no
    # other has none left.
    made_good = np.where(counts > 1, counts / np.maximum(counts - 1, 1), 0)
    best = np.full((n, CANDIDATES), -1, np.int64)
    amounts = np.zeros((n, CANDIDATES))
    total, own = np.zeros(n), np.zeros(n)
    for start in range(0, len(labels), _LABELS_AT_ONCE):
        some = labels[start : start + _LABELS_AT_ONCE]
        mine = (class_of >= start) & (class_of < start + len(some))
        columns = class_of[mine] - start
        sown = np.zeros((n, len(some)), np.float32)
        sown[given[mine], columns] = 1
        table = _walked(graph, sown).astype(np.float64)
        table[given[mine], columns] = np.maximum(table[given[mine], columns] - back[mine], 0)
        table[given[mine], columns] *= made_good[class_of[mine]]
        own[given[mine]] = table[given[mine], columns]
        total += table.sum(axis=1)
        best, amounts = _best_of(best, amounts, table, some)
    return Spread(best, amounts, total, own)


def _walked(graph: NeighbourGraph, sown: np.ndarray) -> np.ndarray:
    """The sum of (ALPHA S)^t over all steps t from 0 to STEPS, times what was sown."""
    arrived, moving = sown.copy(), sown
    for _ in range(STEPS):
        moving = np.float32(ALPHA) * (graph.matrix @ moving)
        arrived += moving
    return arrived


def _coming_back(graph: NeighbourGraph, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) what each of these gets of itself: the diagonal of `_walked`, by ways that end where they began.

    Three steps out and three back are all of them, as the matrix is symmetric.
    """
    found = np.ones(len(rows))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        ways = [graph.matrix[rows[part]]]
        while len(ways) < STEPS // 2:
            ways.append(ways[-1] @ graph.matrix)
        for t in range(2, STEPS + 1):
            out, home = ways[t // 2 - 1], ways[t - t // 2 - 1]
            found[part] += ALPHA**t * np.asarray(out.multiply(home).sum(axis=1)).ravel()
    return found


def _best_of(
    labels: np.ndarray, amounts: np.ndarray, table: np.ndarray, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best of those kept so far and of a further part of the table; equal amounts by label."""
    k = min(CANDIDATES, table.shape[1])
    places = np.argsort(-table, axis=1, kind="stable")[:, :k]
    more = np.take_along_axis(table, places, axis=1)
    all_labels = np.hstack([labels, np.where(more > 0, names[places], -1)])
    all_amounts = np.hstack([amounts, more])
    order = np.argsort(-all_amounts, axis=1, kind="stable")[:, :CANDIDATES]
    return np.take_along_axis(all_labels, order, axis=1), np.take_along_axis(all_amounts, order, axis=1)
