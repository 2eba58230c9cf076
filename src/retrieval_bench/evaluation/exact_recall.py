"""How much of what exact search finds another search finds."""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.search.reference import distances_to


def recall_of_exact(
    found: np.ndarray, exact: Ranking, queries: np.ndarray, gallery: np.ndarray, distance: Distance
) -> np.ndarray:
    """Of the k nearest rows of each query, the share that was found; a row as near as the k-th counts as one of them.

    Args:
        found: (q, k) int64 gallery rows, none twice in a line; -1 where nothing was found.
        exact: (q, k), what exact search finds; it may end before k where fewer rows may be found.
        queries: (q, d), as both searches had them.
        gallery: (n, d), likewise.
        distance: by which they were compared.

    Returns:
        (q,) float64, 0 to 1. A query that may find nothing has 1.
    """
    shares = np.ones(len(found))
    for query, rows in enumerate(found):
        near = exact.indices[query][exact.indices[query] >= 0]
        if not len(near):
            continue
        hits = int(np.isin(rows, near).sum())
        others = rows[(rows >= 0) & ~np.isin(rows, near)]
        if hits < len(near) and len(others):
            asked, known = (_exact(rows, distance) for rows in (queries[query], gallery[others]))
            away = distances_to(asked, known, distance).astype(np.float32)
            hits += int((away <= exact.distances[query, len(near) - 1]).sum())
        shares[query] = min(hits, len(near)) / len(near)
    return shares


def _exact(rows: np.ndarray, distance: Distance) -> np.ndarray:
    return rows if distance == "hamming" else rows.astype(np.float64)
