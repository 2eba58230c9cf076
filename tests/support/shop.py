"""A shop small enough for tests: a few labels, seeded pixels, everything in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_bench.core import Dataset, Split
from retrieval_bench.images.reading import ImageBytes, encode_png

COLORS = ((220, 40, 40), (40, 180, 60), (40, 70, 220), (230, 200, 40), (150, 40, 170), (30, 30, 30))


def picture(label: int, number: int, side: int = 48) -> np.ndarray:
    """(side, side, 3) uint8: the label's colour and stripes, with noise that differs from picture to picture."""
    rng = np.random.default_rng([label, number])
    pixels = np.full((side, side, 3), 245.0)
    pixels[8:-8, 8:-8] = COLORS[label % len(COLORS)]
    pixels[8:-8:4, 8:-8] *= 0.5
    pixels[8 : 12 + 3 * label, 8:20] = 255 - 40 * (label % 3)
    return np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)


def split(name: str, labels: list[int], first: int = 0, images: ImageBytes | None = None) -> Split:
    ids = tuple(f"{name}/{label}/{first + row}.png" for row, label in enumerate(labels))
    if images is None:
        images = ImageBytes([encode_png(picture(label, first + row)) for row, label in enumerate(labels)])
    categories = np.array([label % 2 for label in labels], np.int64)
    return Split(ids, np.array(labels, np.int64), images, categories)


def shelf_at(folder: Path) -> Path:
    """A folder that is split already, with the pictures of the shop: 4 labels, 3 images of each in every split."""
    for first, part in enumerate(("train", "gallery", "query")):
        for label in range(4):
            own = folder / part / f"product-{label}"
            own.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(picture(label, 100 * first + number)).save(own / f"{number}.png")
    return folder


def shop(n_labels: int = 4, each: int = 3) -> Dataset:
    """`each` images of every label in every split; no image occurs twice."""
    labels = [label for label in range(n_labels) for _ in range(each)]
    return Dataset(
        name="shop",
        train=split("train", labels, 0),
        gallery=split("gallery", labels, 1000),
        query=split("query", labels, 2000),
        label_names=tuple(f"product-{label}" for label in range(n_labels)),
        category_names=("even", "odd"),
    )
