"""Two controls that bracket every table: `random` should score near chance, `oracle` exactly 1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from retrieval_bench.core import Distance, Extractor, Ranking, Setup, Split
from retrieval_bench.registry import EXTRACTORS

DIMENSIONS = 64


@dataclass(eq=False)
class RandomControl:
    """A random vector for each image, drawn from a hash of its pixels: the same image always has the same one."""

    seed: int
    distance: Distance = "cosine"
    wanted: int = 1  # what it draws means nothing, whichever pixels it hashes

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, 64) float32, normally distributed."""
        rows = np.empty((len(images), DIMENSIONS), np.float32)
        for row, image in enumerate(images):
            digest = hashlib.sha256(f"{self.seed} {image.shape} ".encode() + image.tobytes()).digest()
            rows[row] = np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(DIMENSIONS, np.float32)
        return rows


@dataclass(eq=False)
class Oracle:
    """Sees the labels: equal labels have equal codes, different labels different ones.

    Where images have several labels they have several codes, and a `searcher` puts those that share one first.
    """

    distance: Distance = "hamming"
    wanted: int = 1  # it looks at no pixel

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        raise TypeError("the oracle needs labels, which images do not carry: call transform_split(split)")

    def transform_split(self, split: Split) -> np.ndarray:
        """n labels -> (n, 8) packed uint8: splitmix64 of the label, a bijection, so no two labels share a code.

        Of several labels an image, (n, 8 m), the first one again where there are fewer.
        """
        labels = split.label_sets
        if labels.ndim == 2:
            labels = np.where(labels >= 0, labels, labels[:, :1])
            self.searcher = SharedCodes
        mixed = labels.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return mixed.astype("<u8").view(np.uint8).reshape(len(split), -1)


class SharedCodes:
    """Finds rows that share a code of 8 bytes with the query at distance 0, and all others at distance 1.

    gallery: (n, 8 m) uint8.
    """

    def __init__(self, gallery: np.ndarray) -> None:
        self._codes = _as_codes(gallery)

    @property
    def bytes(self) -> int:
        return self._codes.nbytes

    def __call__(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """As `core.Searcher` has it."""
        indices = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        for row, codes in enumerate(_as_codes(queries)):
            away = np.logical_not(np.isin(self._codes, codes).any(axis=1))
            order = np.argsort(away, kind="stable")
            if exclude is not None:
                order = order[~np.isin(order, exclude[row])]
            order = order[:k]
            indices[row, : len(order)] = order
            distances[row, : len(order)] = away[order]  # 0 or 1
        return Ranking(indices, distances)


def _as_codes(rows: np.ndarray) -> np.ndarray:
    """(n, 8 m) uint8 -> (n, m) uint64."""
    return np.ascontiguousarray(rows).view("<u8")


@EXTRACTORS("random", family="control", about="a random vector an image: what chance gives")
def random(setup: Setup) -> Extractor:
    return RandomControl(setup.seed)


@EXTRACTORS("oracle", family="control", about="sees the labels: the highest score there is")
def oracle(setup: Setup) -> Extractor:
    return Oracle()
