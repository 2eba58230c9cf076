"""What a dataset is like, in numbers that say when a kind of method is strong: products, views, colour, texture.

How many products and views there are, a record says. Colour and texture are measured on a sample of its gallery images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BadImage, Dataset
from retrieval_bench.images.resize import grey, shrunk
from retrieval_bench.records.schema import Record

SIDE = 128
"""Pixels of the shorter side at which images are looked at, so that a dataset of large photos has no more texture."""


@dataclass(frozen=True)
class Property:
    """key: in the JSON; title: in a table; about: what the number is."""

    key: str
    title: str
    about: str


PROPERTIES = (
    Property("products", "products", "labels in play, in the gallery or among the queries"),
    Property("views", "views", "gallery images of a product, mean"),
    Property(
        "colour", "colour", "colourfulness (Hasler and Süsstrunk, 2003): 0 grey, 15 slight, 45 average, 80 strong"
    ),
    Property("texture", "texture", "mean change of brightness, 0 to 255, from a pixel to the next at a side of 128"),
)


def told_by_record(record: Record) -> dict[str, float]:
    """The properties that every record holds."""
    facts = record.dataset
    gallery = facts.images.gallery - facts.distractors
    return {"products": float(facts.labels), "views": gallery / max(1, facts.labels)}


def looked_at(dataset: Dataset, images: int) -> dict[str, float]:
    """Mean colour and texture of so many gallery images, evenly spread; images that cannot be read are passed over."""
    rows = np.unique(np.linspace(0, len(dataset.gallery) - 1, min(images, len(dataset.gallery))).round().astype(int))
    found = []
    for row in rows.tolist():
        try:
            image = dataset.gallery.images[row]
        except BadImage:
            continue
        found.append((colourfulness(shrunk(image, SIDE)), roughness(grey(image, SIDE))))
    if not found:
        return {}
    colour, texture = np.mean(found, axis=0).tolist()
    return {"colour": colour, "texture": texture}


def colourfulness(image: np.ndarray) -> float:
    """(h, w, 3) uint8 RGB -> how colourful it is: Hasler and Süsstrunk, "Measuring colourfulness in natural images"."""
    red, green, blue = (image[..., channel].astype(np.float64) for channel in range(3))
    across, along = red - green, (red + green) / 2 - blue
    return float(np.hypot(across.std(), along.std()) + 0.3 * np.hypot(across.mean(), along.mean()))


def roughness(image: np.ndarray) -> float:
    """(h, w) uint8 -> the mean size of the gradient, by differences of neighbours."""
    light = image.astype(np.float64)
    if min(light.shape) < 2:
        return 0.0
    down, right = np.diff(light, axis=0)[:, :-1], np.diff(light, axis=1)[:-1]
    return float(np.hypot(down, right).mean())


def known_properties(found: Sequence[dict[str, float]]) -> list[Property]:
    """Those that are known of every dataset and are not the same in all."""
    return [
        one
        for one in PROPERTIES
        if all(one.key in each for each in found) and len({each[one.key] for each in found}) > 1
    ]
