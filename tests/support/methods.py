"""Extractors for tests: tiny, and misbehaving on demand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from retrieval_bench.core import Distance, Setup, Split
from retrieval_bench.methods.parse import Method
from retrieval_bench.registry import Entry, Spec


class MeanColor:
    """The mean of every channel: (n, 3) float32."""

    distance: Distance = "euclidean"

    def __init__(self) -> None:
        self.seen = 0

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(images)
        return np.array([image.mean(axis=(0, 1)) for image in images], np.float32).reshape(-1, 3)


class Centred(MeanColor):
    """The same, minus the mean over train: something to learn."""

    learned = ("mean_",)
    fits = 0

    def fit(self, train: Split) -> Self:
        type(self).fits += 1
        self.mean_ = super().transform([train.images[row] for row in range(len(train))]).mean(axis=0)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return super().transform(images) - self.mean_


def spec(name: str, build: Any, **options: Any) -> Method:
    """A method for a Plan; `build` is a class without parameters or a function of Setup."""

    def builder(setup: Setup, **given: Any) -> Any:
        return build() if isinstance(build, type) else build(setup)

    return Method((Spec(Entry(name, builder, "for tests", "test"), options),))
