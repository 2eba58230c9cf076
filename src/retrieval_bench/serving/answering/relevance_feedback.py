"""More like this, less like that: a query moved towards some items and away from others.

Where a method keeps one vector of numbers, by Rocchio's rule (Salton & Buckley 1990, with the usual weights):
query + 0.75 x mean of the liked - 0.15 x mean of the disliked, of unit vectors where the distance is cosine. Bits,
rankings and what is compared in a way of its own have no mean: there the query and each liked item search for
themselves, and reciprocal-rank fusion joins what they find.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Distance, Rows
from retrieval_bench.linalg.rows import unit_rows

LIKED, DISLIKED = 0.75, 0.15
"""Rocchio's b and c; that of the query is 1."""

NO_MEAN = (
    "this method keeps no single vector, so there is no mean to move to: the query and the liked pictures each search, "
    "and reciprocal-rank fusion joins their rankings; the disliked ones are left out"
)


def has_mean(rows: Rows, distance: Distance) -> bool:
    """Whether rows are single vectors that can be added."""
    return isinstance(rows, np.ndarray) and rows.dtype.kind == "f" and distance != "hamming"


def moved(
    query: np.ndarray | None, liked: np.ndarray | None, disliked: np.ndarray | None, distance: Distance
) -> np.ndarray:
    """Rocchio's query.

    Args:
        query: (1, d) float; None: there is none but what is liked.
        liked: (m, d) float; None: nothing is.
        disliked: (n, d) float; None: nothing is.
        distance: by which the method compares.

    Returns:
        (1, d) of the dtype of these.
    """
    some = next(rows for rows in (query, liked, disliked) if rows is not None and len(rows))
    total = np.zeros((1, some.shape[1]), np.float32)
    for rows, weight in ((query, 1.0), (liked, LIKED), (disliked, -DISLIKED)):
        if rows is not None and len(rows):
            own = rows.astype(np.float32)
            total += np.float32(weight) * (unit_rows(own) if distance == "cosine" else own).mean(axis=0)
    return np.ascontiguousarray(total.astype(some.dtype))
