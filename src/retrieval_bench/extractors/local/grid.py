"""A grid of square patches in several sizes, each divided into cells: where dense descriptors are taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CELLS = 4
"""Cells along each side of a patch, as in SIFT."""


def patches(maps: np.ndarray, cell: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Values at the cell centres of all patches that lie inside.

    maps: (h, w, c), already averaged over cells of `cell` pixels. step: pixels from patch to patch.
    Returns (n, CELLS * CELLS, c) and places (n, 2) float32, row and column of each centre, -0.5 to 0.5 of the image;
    n is 0 where the image is smaller than a patch.
    """
    height, width = maps.shape[:2]
    reach = CELLS * cell // 2
    rows, columns = np.arange(reach, height - reach + 1, step), np.arange(reach, width - reach + 1, step)
    offsets = [round((place - (CELLS - 1) / 2) * cell) for place in range(CELLS)]
    values = [
        maps[np.clip(rows + down, 0, height - 1)[:, None], np.clip(columns + across, 0, width - 1)]
        for down in offsets
        for across in offsets
    ]
    described = np.stack(values, axis=2).reshape(len(rows) * len(columns), CELLS * CELLS, maps.shape[2])
    down, across = np.meshgrid(rows / height - 0.5, columns / width - 0.5, indexing="ij")
    return described, np.stack([down.ravel(), across.ravel()], axis=1).astype(np.float32)


def joined(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The patches of several sizes, one after the other."""
    descriptors, places = zip(*parts, strict=True)
    return np.concatenate(descriptors), np.concatenate(places)
