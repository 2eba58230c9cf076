"""What makes one vector of the many local descriptors of an image: bag of words, VLAD or Fisher vector.

An encoder learns arrays from a sample of descriptors, and with them encodes all descriptors of one image. It holds no
state of its own: what was learned is passed in, so that whoever keeps the arrays keeps everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

Learned = Mapping[str, np.ndarray]


class Encoder(Protocol):
    """learned: names of the arrays that `fit` returns."""

    learned: ClassVar[tuple[str, ...]]

    def fit(self, images: Sequence[np.ndarray], seed: int, threads: int = 1) -> dict[str, np.ndarray]:
        """images: for each training image a sample of its descriptors, (n, d) float32; n may be 0, but not for all.

        threads: Python threads that may be used; the result does not depend on them.
        """

    def encode(self, descriptors: np.ndarray, learned: Learned) -> np.ndarray:
        """(n, d) float32 -> (D,) float32 of length 1; all zeros where n is 0."""


def power_law(vector: np.ndarray, power: float) -> np.ndarray:
    """sign(v) |v|^power: what occurs in bursts counts less (Perronnin, Sanchez and Mensink, ECCV 2010)."""
    powered: np.ndarray = np.sign(vector) * np.abs(vector) ** power
    return powered
