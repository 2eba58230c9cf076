"""What is done to a network's vector after pooling: power law, centring, whitening, and what it is kept as.

Everything that is learned (mean, axes, rotation) is learned from the vectors of training images and passed in, as with
encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.extractors.encoders import power_law, unit
from retrieval_bench.extractors.pca import principal_axes, projected

Kept = Literal["float32", "float16", "int8", "bits"]

ITQ_ROUNDS = 50
INT8_LARGEST = 127


@dataclass(frozen=True)
class PostProcess:
    """power: sign(x) |x|^power first; 1 leaves it. centre: subtract the mean of train.

    whiten: components kept after centring; 0 keeps all as they are. level: how far these are whitened, 0 to 1.
    kept: float32 and float16: rows of length 1. int8: whole numbers from -127 to 127, the largest of a row being 127,
    which cosine does not mind. bits: signs after centring, and where components are kept after a rotation that makes
    signs lose least (ITQ: Gong and Lazebnik, CVPR 2011), packed and compared by Hamming distance.
    """

    power: float = 1.0
    centre: bool = False
    whiten: int = 0
    level: float = 1.0
    kept: Kept = "float32"
    seed: int = 0

    def checked(self, name: str) -> PostProcess:
        if self.whiten < 0:
            raise BenchError(f"{name}: whiten={self.whiten} must be 0 (off) or the number of components to keep")
        if not 0 <= self.level <= 1:
            raise BenchError(f"{name}: level={self.level:g} must lie between 0 (not whitened) and 1 (wholly)")
        if not 0 < self.power <= 1:
            raise BenchError(f"{name}: power={self.power:g} must be above 0 and at most 1, which changes nothing")
        return self

    @property
    def distance(self) -> Distance:
        return "hamming" if self.kept == "bits" else "cosine"

    @property
    def learned(self) -> tuple[str, ...]:
        names: tuple[str, ...] = ("mean_",) if self.centre or self.whiten or self.kept == "bits" else ()
        names += ("axes_",) if self.whiten else ()
        return (*names, "rotation_") if self.whiten and self.kept == "bits" else names

    def fit(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(n, d) float32 vectors of training images -> what `apply` needs of them."""
        rows = self._powered(rows)
        found = {}
        if self.whiten:
            found["mean_"], found["axes_"] = principal_axes(rows, self.whiten, self.level)
            if self.kept == "bits":
                found["rotation_"] = itq_rotation(projected(rows, found["mean_"], found["axes_"]), self.seed)
        elif self.learned:
            found["mean_"] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return found

    def width(self, dimensions: int, learned: Mapping[str, np.ndarray]) -> int:
        """Columns of a row of `dimensions` numbers after `apply`."""
        numbers = learned["axes_"].shape[1] if self.whiten else dimensions
        return -(-numbers // 8) if self.kept == "bits" else numbers

    @property
    def dtype(self) -> type:
        return {"float32": np.float32, "float16": np.float16, "int8": np.int8, "bits": np.uint8}[self.kept]

    def apply(self, row: np.ndarray, learned: Mapping[str, np.ndarray]) -> np.ndarray:
        """(d,) float32 of one image -> (width,) of `dtype`. A row of zeros stays one, but for bits."""
        empty = not row.any()
        if self.learned or self.power != 1:
            row = self._powered(row[None])[0]
            if self.whiten:
                row = projected(row[None], learned["mean_"], learned["axes_"])[0]
            elif self.learned:
                row = row - learned["mean_"]
            if self.kept == "bits":
                turned = row @ learned["rotation_"] if self.whiten else row
                return np.packbits(turned >= 0)
            row = unit(row)
        if empty:
            row = np.zeros_like(row)
        if self.kept == "int8":
            largest = float(np.abs(row).max(initial=0.0))
            return np.rint(row * (INT8_LARGEST / largest if largest > 0 else 0.0)).astype(np.int8)
        return row.astype(self.dtype)

    def _powered(self, rows: np.ndarray) -> np.ndarray:
        """The power law, and length 1 again."""
        if self.power == 1:
            return rows
        powered = power_law(rows, self.power)
        lengths = np.sqrt(np.sum(np.square(powered, dtype=np.float64), axis=1, keepdims=True))
        return (powered / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def itq_rotation(rows: np.ndarray, seed: int) -> np.ndarray:
    """(n, m) centred -> (m, m) float32 rotation after which the signs of a row are nearest to the row itself."""
    rows = rows.astype(np.float64)
    drawn = np.random.default_rng(seed).standard_normal((rows.shape[1], rows.shape[1]))
    rotation, _ = np.linalg.qr(drawn)
    for _ in range(ITQ_ROUNDS):
        signs = np.where(rows @ rotation >= 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(signs.T @ rows)
        rotation = (left @ right).T
    return np.ascontiguousarray(rotation, np.float32)
