"""The regularisation is chosen on train alone: the best value on a held-out, seeded quarter of each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def hold_out(class_index: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) labels of the rows -> rows to learn from and rows to judge by, both ascending int64.

    A label with m images gives max(1, m // 4) of them; one with a single image gives none and is always learned from.
    The second is empty where no label has two images.
    """
    random = np.random.default_rng(seed)
    held = np.zeros(len(class_index), bool)
    for number in np.unique(class_index):
        rows = random.permutation(np.flatnonzero(class_index == number))
        if len(rows) > 1:
            held[rows[: max(1, len(rows) // 4)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def chosen(name: str, grid: Sequence[Any], right: Sequence[float], default: Any) -> dict[str, Any]:
    """For the record: {name: the first of the best, "tried": grid, "held_out_accuracy": right}; without any to judge
    by, the default."""
    if not len(right):
        return {name: default, "tried": [], "held_out_accuracy": []}
    return {name: grid[int(np.argmax(right))], "tried": list(grid), "held_out_accuracy": [float(one) for one in right]}
