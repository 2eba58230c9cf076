"""The pictures on which a contract is checked: products, and shapes that real folders hold and methods stumble over."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from retrieval_bench.core import Split
from retrieval_bench.datasets.shop.camera import Camera
from retrieval_bench.images.reading import ImageBytes, encode_png

PRODUCTS = 10
TRAIN_VIEWS, OTHER_VIEWS, PROBE_VIEW = (1, 2, 3), (8, 9), 5
PROBES = 5
LARGE = (1400, 1050)
"""Width and height."""


@functools.cache
def drawn() -> tuple[list[np.ndarray], Split, Split]:
    """(pictures to describe, images to learn from, other images to learn from); drawn once a process."""
    camera = Camera(0)
    return probes(camera), training_split(camera, TRAIN_VIEWS), training_split(camera, OTHER_VIEWS)


def probes(camera: Camera) -> list[np.ndarray]:
    """The pictures that a method describes, each (h, w, 3) uint8 RGB: products, and one of each awkward kind."""
    shots = [camera.photo(product, PROBE_VIEW)[0] for product in range(PROBES)]
    photo = Image.fromarray(shots[0])
    awkward = [
        np.full((1, 1, 3), 90, np.uint8),
        np.full((64, 48, 3), 255, np.uint8),  # blank
        np.zeros((40, 40, 3), np.uint8),
        np.array(photo.convert("L").convert("RGB")),  # looks grey, with three channels
        np.array(photo.resize((12, 300))),  # tall
        np.array(photo.resize((300, 9))),  # wide
        np.array(photo.resize(LARGE, Image.Resampling.BICUBIC)),
        np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8),
    ]
    return [np.ascontiguousarray(picture) for picture in (*shots, *awkward)]


def training_split(camera: Camera, views: Sequence[int]) -> Split:
    """Products with their labels to learn from, and two awkward pictures among them."""
    pictures = [camera.photo(product, view)[0] for product in range(PRODUCTS) for view in views]
    labels = [product for product in range(PRODUCTS) for _ in views]
    pictures += [np.full((1, 1, 3), 90, np.uint8), np.full((64, 48, 3), 255, np.uint8)]
    images = ImageBytes([encode_png(picture) for picture in pictures])
    ids = tuple(f"train/{row:03}.png" for row in range(len(pictures)))
    return Split(ids, np.array([*labels, 0, 1], np.int64), images)
