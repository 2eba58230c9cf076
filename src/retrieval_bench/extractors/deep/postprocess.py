"""What is done to a network's vector after pooling: power law, centring, whitening, a learned head, and what it is
kept as.

Everything that is learned (mean, axes, rotation) is learned from the vectors of training images and passed in, as with
encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.extractors.local.encoders import power_law
from retrieval_bench.linalg.pca import principal_axes, projected
from retrieval_bench.linalg.rows import unit

Kept = Literal["float32", "float16", "int8", "bits"]
Tune = Literal["no", "head"]

ITQ_ROUNDS = 50
INT8_LARGEST = 127


@dataclass(frozen=True)
class PostProcess:
    """power: sign(x) |x|^power first; 1 leaves it. centre: subtract the mean of train.

    whiten: components kept after centring; 0 keeps all as they are. level: how far these are whitened, 0 to 1.
    tune: "head" replaces the vector by the scores of a linear classifier (multinomial logistic regression) learned from
    train's labels, less their mean: images are then near when they look like the same products.
    kept: float32 and float16: rows of length 1. int8: whole numbers from -127 to 127, the largest of a row being 127,
    which cosine does not mind. bits: signs after centring, and where components are kept after a rotation that makes
    signs lose least (ITQ: Gong and Lazebnik, CVPR 2011), packed and compared by Hamming distance.
    """

    power: float = 1.0
    centre: bool = False
    whiten: int = 0
    level: float = 1.0
    tune: Tune = "no"
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
        names += ("head_", "bias_") if self.tune == "head" else ()
        return (*names, "rotation_") if self.whiten and self.kept == "bits" and self.tune == "no" else names

    def fit(self, rows: np.ndarray, labels: np.ndarray | None = None, threads: int = 1) -> dict[str, np.ndarray]:
        """(n, d) float32 vectors of training images -> what `apply` needs of them. labels: (n,), for `tune` alone."""
        rows = self._powered(rows)
        found = {}
        if self.whiten:
            found["mean_"], found["axes_"] = principal_axes(rows, self.whiten, self.level)
            if "rotation_" in self.learned:
                found["rotation_"] = itq_rotation(projected(rows, found["mean_"], found["axes_"]), self.seed)
        elif "mean_" in self.learned:
            found["mean_"] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        if self.tune == "head":
            if labels is None:
                raise ValueError("tune=head learns from labels")
            seen = np.stack([self._placed(row, found) for row in rows])
            found["head_"], found["bias_"] = class_scores(seen, labels, self.seed, threads)
        return found

    def _placed(self, row: np.ndarray, learned: Mapping[str, np.ndarray]) -> np.ndarray:
        """Centred or whitened, at length 1."""
        if self.whiten:
            return unit(projected(row[None], learned["mean_"], learned["axes_"])[0])
        return unit(row - learned["mean_"]) if "mean_" in learned else unit(row)

    def width(self, dimensions: int, learned: Mapping[str, np.ndarray]) -> int:
        """Columns of a row of `dimensions` numbers after `apply`."""
        numbers = learned["axes_"].shape[1] if self.whiten else dimensions
        numbers = learned["head_"].shape[1] if self.tune == "head" else numbers
        return -(-numbers // 8) if self.kept == "bits" else numbers

    @property
    def dtype(self) -> type:
        return {"float32": np.float32, "float16": np.float16, "int8": np.int8, "bits": np.uint8}[self.kept]

    def apply(self, row: np.ndarray, learned: Mapping[str, np.ndarray]) -> np.ndarray:
        """(d,) float32 of one image -> (width,) of `dtype`. A row of zeros stays one, but for bits."""
        empty = not row.any()
        if self.learned or self.power != 1:
            row = self._powered(row[None])[0]
            if self.tune == "head":
                row = self._placed(row, learned) @ learned["head_"] + learned["bias_"]
            elif self.whiten:
                row = projected(row[None], learned["mean_"], learned["axes_"])[0]
            elif "mean_" in learned:
                row = row - learned["mean_"]
            if self.kept == "bits":
                turned = row @ learned["rotation_"] if "rotation_" in learned else row
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


def class_scores(rows: np.ndarray, labels: np.ndarray, seed: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) rows of length 1, (n,) labels -> (d, C) weights and (C,) bias of the scores of the C labels, of mean 0."""
    from retrieval_bench.classifiers.classifier import TrainingData
    from retrieval_bench.classifiers.linear import LinearScores, logistic

    names, places = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise BenchError("tune=head: every train image has one label; a head needs at least two labels in train")
    learned = logistic(
        TrainingData(np.ascontiguousarray(rows), places.astype(np.int64), len(names), seed, threads, False)
    )
    assert isinstance(learned.score, LinearScores)
    weights, bias = learned.score.weights, learned.score.bias
    centred = (weights - weights.mean(axis=0)).T
    return np.ascontiguousarray(centred, np.float32), (bias - bias.mean()).astype(np.float32)


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
