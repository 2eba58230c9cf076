"""The part of train that is kept aside to choose by, where a dataset brings none: images of each label, or labels."""

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


def hold_out_labels(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows to learn from, rows to choose by), both ascending: all images of `share` of the labels are held out.

    Two labels are held out at least where any is, since one alone is found without looking; and two are left to learn
    from, so fewer than four labels give none to choose by. Which ones depends on the seed and the labels alone.
    """
    known = np.unique(labels)
    many = min(max(2, round(share * len(known))), len(known) - 2) if share and len(known) >= 4 else 0
    chosen = np.isin(labels, np.random.default_rng(seed).permutation(known)[:many])
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
