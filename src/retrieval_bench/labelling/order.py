"""Which images a person should look at first: a few that differ most from all that is known, then the doubtful ones."""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.linalg.rows import signs, unit_rows

DIVERSE = 100
"""Images that are chosen because they are far from all labels; at most one in five of those without a label."""


def by_usefulness(features: np.ndarray, distance: Distance, known: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """Order the images without a label.

    First some of which each is the farthest from all that are known or chosen already (Gonzalez, "Clustering to
    minimize the maximum intercluster distance", 1985; for labelling: Sener and Savarese, ICLR 2018): new products and
    odd pictures come here. Then the others, the least sure first.

    Args:
        features: (n, d) vectors, or (n, bytes) packed codes for hamming.
        distance: how they are compared.
        known: (n,) int64, the label of each image, -1 where it is not known.
        sure: (n,) float64, how sure the proposal of each is.

    Returns:
        Rows of all images without a label.
    """
    rows = np.flatnonzero(known < 0)
    first = farthest_first(_points(features, distance), np.flatnonzero(known >= 0), rows, min(DIVERSE, len(rows) // 5))
    rest = np.setdiff1d(rows, first)
    return np.concatenate([first, rest[np.argsort(sure[rest], kind="stable")]])


def farthest_first(points: np.ndarray, begin: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Choose `count` of `rows`, each the farthest (Euclidean) from `begin` and from those before it.

    points: (n, d) float32. Equally far: the lowest row. Where `begin` is empty, the first is the nearest to the mean.
    """
    if not count:
        return np.empty(0, np.int64)
    squares = np.einsum("nd,nd->n", points, points, dtype=np.float64)

    def from_one(row: int) -> np.ndarray:
        return squares[rows] - 2 * (points[rows] @ points[row]) + squares[row]

    chosen: list[int] = []
    if len(begin):
        from retrieval_bench.search.index import ExactIndex

        found = ExactIndex(points[begin], "euclidean").search(points[rows], 1)
        apart = found.distances[:, 0].astype(np.float64) ** 2
    else:
        mean = points[rows].mean(axis=0)
        chosen.append(int(rows[np.argmin(squares[rows] - 2 * (points[rows] @ mean))]))
        apart = from_one(chosen[0])
        apart[rows == chosen[0]] = -np.inf
    while len(chosen) < count:
        place = int(np.argmax(apart))
        chosen.append(int(rows[place]))
        apart = np.minimum(apart, from_one(chosen[-1]))
        apart[place] = -np.inf
    return np.array(chosen, np.int64)


def _points(features: np.ndarray, distance: Distance) -> np.ndarray:
    """Vectors whose Euclidean distances order as the distance does; of inner products, as their lengths allow."""
    if distance == "hamming":
        return signs(features)
    points = np.asarray(features, np.float32)
    return unit_rows(points) if distance == "cosine" else points
