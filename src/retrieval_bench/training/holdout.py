"""The part of train that is kept aside to choose by, where a dataset brings none."""

from __future__ import annotations

import numpy as np


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows to learn from, rows to validate on), both ascending: of each label `share` of its images, rounded.

    A label keeps at least one image to learn from, so one with a single image gives none. Which ones are chosen
    depends on the seed, the label and the count of its images alone.
    """
    kept = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        many = min(round(share * len(rows)), len(rows) - 1)
        kept.append(np.random.default_rng([seed, int(label)]).permutation(rows)[:many])
    chosen = np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen.astype(np.int64)
