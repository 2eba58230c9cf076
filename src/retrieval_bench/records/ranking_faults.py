"""What no ranking can be, whoever found it: a search, or the file of a record."""

from __future__ import annotations

import numpy as np


def fault_of_ranking(indices: np.ndarray, distances: np.ndarray, gallery: int, queries: np.ndarray) -> str:
    """Why these cannot be rows of the gallery with the nearest first; "" where they can.

    indices, distances: (q, depth). gallery: how many images it has. queries: (q,) names for the message.
    """
    if indices.size and (indices.min() < -1 or indices.max() >= gallery):
        return f"indices names rows that the gallery of {gallery} images does not have"
    ordered = np.sort(indices, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        return "indices names an image twice for one query"
    if distances.dtype.kind not in "fiu" or np.isnan(distances).any():
        return "distances holds what is no number"
    if (query := first_not_ascending(distances)) is not None:
        return f"distances of the query {str(queries[query])[:200]!r} do not ascend"
    return ""


def first_not_ascending(distances: np.ndarray) -> int | None:
    """The first row of (q, depth) distances in which one lies below the one before it; None where all ascend."""
    falling = (distances[:, 1:] < distances[:, :-1]).any(axis=1)
    return int(falling.argmax()) if falling.any() else None
