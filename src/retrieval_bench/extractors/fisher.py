"""Fisher vectors (Perronnin, Sanchez and Mensink, ECCV 2010): how an image's descriptors would move a mixture of
Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from retrieval_bench.extractors.encoders import Learned, power_law, unit
from retrieval_bench.extractors.words import learn_words

ROUNDS = 30
"""Of expectation-maximisation; the likelihood of local descriptors hardly rises after twenty."""

FAINTEST = -30.0
"""Logarithm of the least share of a Gaussian in a descriptor that is told from the next."""

NEGLIGIBLE = 1e-4
"""Shares of a Gaussian in a descriptor below this are left out, as in Sanchez et al. (IJCV 2013)."""


def learn_mixture(rows: np.ndarray, gaussians: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, d) float32 -> weights (g,), means (g, d), variances (g, d), float32: a diagonal mixture, by
    expectation-maximisation from k-means. g = gaussians, or the number of distinct rows where there are no more.

    Variances do not fall below a thousandth of the data's own, so that no Gaussian collapses onto a single descriptor.
    """
    means = learn_words(rows, gaussians, seed)
    spread = rows.var(axis=0)
    floor = 1e-3 * spread + 1e-8
    variances = np.tile(np.maximum(spread, floor), (len(means), 1))
    weights = np.full(len(means), 1 / len(means), np.float32)
    squares = rows * rows
    for _ in range(ROUNDS):
        shares = responsibilities(rows, weights, means, variances)
        mass = shares.sum(axis=0) + 1e-6
        means = (shares.T @ rows) / mass[:, None]
        variances = np.maximum((shares.T @ squares) / mass[:, None] - means * means, floor)
        weights = mass / mass.sum()
    return weights.astype(np.float32), means.astype(np.float32), variances.astype(np.float32)


def responsibilities(rows: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """(n, g): the share of each Gaussian in each row; rows sum to 1."""
    precisions = 1 / variances
    constant = np.log(weights) - 0.5 * (means * means * precisions).sum(axis=1) - 0.5 * np.log(variances).sum(axis=1)
    logs = rows @ (means * precisions).T - 0.5 * ((rows * rows) @ precisions.T) + constant
    logs -= logs.max(axis=1, keepdims=True)
    # Below, exp would give denormal numbers, with which processors are a hundred times slower.
    shares: np.ndarray = np.exp(np.maximum(logs, FAINTEST))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Fisher:
    """The gradient by the means, then that by the deviations, (2 * gaussians * d,); power law and length 1."""

    gaussians: int
    power: float = 0.5
    learned: ClassVar[tuple[str, ...]] = ("weights", "means", "variances")

    def fit(self, images: Sequence[np.ndarray], seed: int) -> dict[str, np.ndarray]:
        return dict(zip(self.learned, learn_mixture(np.concatenate(images), self.gaussians, seed), strict=True))

    def encode(self, descriptors: np.ndarray, learned: Learned) -> np.ndarray:
        weights, means, variances = (learned[name] for name in self.learned)
        if not len(descriptors):
            return np.zeros(2 * means.size, np.float32)
        shares = responsibilities(descriptors, weights, means, variances)
        shares[shares < NEGLIGIBLE] = 0
        mass = shares.sum(axis=0)[:, None]
        first, second = shares.T @ descriptors, shares.T @ (descriptors * descriptors)
        by_means = (first - mass * means) / np.sqrt(variances * weights[:, None])
        by_deviations = second - 2 * first * means + mass * (means * means - variances)
        by_deviations /= variances * np.sqrt(2 * weights)[:, None]
        gradient = np.concatenate([by_means.ravel(), by_deviations.ravel()]) / len(descriptors)
        return unit(power_law(gradient, self.power))
