"""A dataset at a glance: one picture with a row per product, for the eye to judge what the numbers are about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_bench.core import SPLITS, BadImage, BenchError, Dataset, Images
from retrieval_bench.datasets.shop.prints import lettering
from retrieval_bench.images.reading import encode_png
from retrieval_bench.registry import unknown
from retrieval_bench.system.files import write_whole

CELL = 112
MARGIN = 8
SIDE_NOTE = 152
PER_CATEGORY = 3
PER_ROW = 12
MOST_ROWS = 40
INK, PALE, ALARM = (30, 30, 34), (236, 236, 232), (196, 44, 40)


def contact_sheet(dataset: Dataset, path: Path, split: str | None = None) -> None:
    """Write a PNG with a row per product: three of each category (or of all), at most 40 rows, 12 images a row.

    split: only this one; None shows all three side by side, the gallery first. An image that cannot be decoded gets a
    crossed cell. Raises BenchError for an unknown split or where the file cannot be written.
    """
    if split is not None and split not in SPLITS:
        raise BenchError(unknown("split", split, SPLITS))
    shown = [split] if split is not None else ["gallery", "train", "query"]
    columns = PER_ROW // len(shown)
    labels = _chosen(dataset, shown)
    width = SIDE_NOTE + len(shown) * (columns * CELL + MARGIN)
    height = 32 + len(labels) * CELL + MARGIN
    sheet = np.full((height, width, 3), PALE, np.uint8)
    for block, name in enumerate(shown):
        left = SIDE_NOTE + block * (columns * CELL + MARGIN)
        part = dataset.splits[name]
        _write_line(sheet, f"{name} ({len(part)})", left + 2, 12, columns * CELL)
        for row, label in enumerate(labels):
            for column, item in enumerate(np.flatnonzero(part.labels == label)[:columns]):
                top, start = 32 + row * CELL, left + column * CELL
                sheet[top + 2 : top + CELL - 2, start + 2 : start + CELL - 2] = _cell(part.images, int(item), CELL - 4)
    for row, label in enumerate(labels):
        _write_line(sheet, dataset.label_names[label], 6, 32 + row * CELL + CELL // 2 - 7, SIDE_NOTE - 12)
    write_whole(Path(path), encode_png(sheet), option="--sheet")


def _chosen(dataset: Dataset, shown: list[str]) -> list[int]:
    """The first few labels of every category that occur, evenly thinned to MOST_ROWS."""
    of_category: dict[int, list[int]] = {}
    for name in shown:
        part = dataset.splits[name]
        categories = part.categories if part.categories is not None else part.labels
        for label, category in zip(part.labels.tolist(), categories.tolist(), strict=True):
            few = of_category.setdefault(category, [])
            if label not in few:
                few.append(label)
    # Spread over each category: its first labels may be look-alikes.
    labels = []
    for category in sorted(of_category):
        few = sorted(of_category[category])
        count = min(PER_CATEGORY, len(few))
        labels += [few[i * (len(few) - 1) // max(count - 1, 1)] for i in range(count)]
    rows = min(MOST_ROWS, len(labels))
    return [labels[i * len(labels) // rows] for i in range(rows)]


def _cell(images: Images, row: int, side: int) -> np.ndarray:
    """One image fitted into (side, side, 3) uint8 on white, or a red cross with the reason."""
    cell = np.full((side, side, 3), 255, np.uint8)
    try:
        pixels = images[row]
    except BadImage as bad:
        diagonal = np.arange(side)
        for shift in (-1, 0, 1):
            at = np.clip(diagonal + shift, 0, side - 1)
            cell[diagonal, at] = cell[diagonal, side - 1 - at] = ALARM
        _write_line(cell, bad.reason, 2, side - 16, side - 4)
        return cell
    height, width = pixels.shape[:2]
    fit = side / max(height, width)
    size = max(1, round(width * fit)), max(1, round(height * fit))
    small = np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.BOX if fit < 1 else Image.Resampling.NEAREST)
    )
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def _write_line(canvas: np.ndarray, text: str, left: int, top: int, room: int) -> None:
    """Text in the 5 x 7 font, twice its size where that fits into `room` pixels, else once and cut."""
    bits = lettering(text) > 0
    if 2 * bits.shape[1] <= room:
        bits = bits.repeat(2, axis=0).repeat(2, axis=1)
    bits = bits[:, :room]
    canvas[top : top + bits.shape[0], left : left + bits.shape[1]][bits] = INK
