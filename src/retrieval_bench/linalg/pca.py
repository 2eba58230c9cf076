"""Principal components: fewer numbers that keep most of the differences; whitening makes their axes equal."""

from __future__ import annotations

import numpy as np


def principal_axes(rows: np.ndarray, dims: int, whiten: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float32 -> mean (d,) float32 and axes (d, m) float32 with m = min(dims, d, n - 1 or 1).

    whiten: each axis is divided by the standard deviation along it, to this power: 0 leaves lengths as they are, 1
    whitens (Jegou and Chum, ECCV 2012), 0.5 goes half the way. Axes along which nothing varies are left out; the sign
    of an axis is such that its largest entry is positive. Where all rows are equal nothing is known of the axes: then
    the first coordinates are kept as they are.
    """
    rows = rows.astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    n, d = centred.shape
    if not centred.any():
        return np.zeros(d, np.float32), np.eye(d, min(dims, d), dtype=np.float32)
    if d <= n:
        variances, axes = np.linalg.eigh(centred.T @ centred / n)
    else:  # the same axes from the smaller of the two products
        variances, mixtures = np.linalg.eigh(centred @ centred.T / n)
        axes = centred.T @ mixtures
        axes /= np.maximum(np.linalg.norm(axes, axis=0), 1e-300)
    order = np.argsort(-variances, kind="stable")[: min(dims, max(n - 1, 1))]
    kept = order[variances[order] > 1e-10 * max(float(variances[order[0]]), 1e-300)]
    axes = axes[:, kept]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    deviations = np.sqrt(np.maximum(variances[kept], 1e-20))
    # In one order in memory, whichever way they were found: products go by it in their last bits, and the cache
    # gives back this order.
    return mean.astype(np.float32), np.ascontiguousarray(axes / deviations**whiten, np.float32)


def projected(rows: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(n, d) -> (n, m) float32."""
    return (rows - mean) @ axes
