"""Did two searches find the same? Judged by distances, as FAISS and scikit-learn judge themselves.

Two exact searches may order rows differently whose distances differ in the last bit only. So rows are not compared by
number: the true distance of each row found is computed anew in float64 and must be the distance that belongs at its
rank, within rounding.
"""

from __future__ import annotations

import numpy as np

# Largest error of a float32 distance between two vectors of length 1, with room: a dot product of 2048 dimensions is
# off by less than 5e-7. Distances of codes are whole numbers and have no error.
ROUNDING = 1e-6

_VALUES_AT_ONCE = 1 << 24  # float64 values gathered at a time: 128 MiB


def disagreement(
    queries: np.ndarray, gallery: np.ndarray, found: np.ndarray, expected: np.ndarray, distances: np.ndarray | None
) -> str | None:
    """Why `found` is not as good an answer as `expected`, or None where it is.

    queries: (q, d), gallery: (n, d): float32 of unit length, nearest by inner product; or uint8 codes, by Hamming.
    found, expected: (q, k) gallery rows, nearest first. `expected` is believed to hold the k nearest.
    distances: (q, k) what the search gives as distances of `found`, -product or differing bits; None: not judged.
    """
    if found.shape != expected.shape:
        return f"result has shape {found.shape}, not {expected.shape}"
    if ((found < 0) | (found >= len(gallery))).any():
        return f"a row is outside the gallery of {len(gallery):,} rows"
    tolerance = 0.0 if gallery.dtype == np.uint8 else ROUNDING
    step = max(1, _VALUES_AT_ONCE // (found.shape[1] * gallery.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        nearest = true_distances(queries[part], gallery, found[part])
        # Sorted: rows within rounding of each other may stand in either order.
        ours = np.sort(nearest, axis=1)
        theirs = np.sort(true_distances(queries[part], gallery, expected[part]), axis=1)
        wrong = {
            "finds a row twice": np.diff(np.sort(found[part], axis=1), axis=1) == 0,
            "is not in order": np.diff(nearest, axis=1) < -tolerance,
            "misses a nearer row": ours > theirs + tolerance,
            "is nearer than what was expected: the expectation is wrong": ours < theirs - tolerance,
        }
        if distances is not None:
            wrong["gives a wrong distance"] = abs(distances[part] - nearest) > tolerance
        for what, where in wrong.items():
            if where.any():
                return f"query {start + int(np.argmax(where.any(axis=1)))} {what}"
    return None


def true_distances(queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(q, k) float64: the distance of each query to the gallery rows named for it."""
    picked = gallery[rows]  # (q, k, d)
    if gallery.dtype == np.uint8:
        return np.bitwise_count(picked ^ queries[:, None]).sum(axis=2, dtype=np.int64).astype(np.float64)
    return 0.0 - np.einsum("qkd,qd->qk", picked, queries, dtype=np.float64)
