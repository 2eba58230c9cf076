"""Fisher vectors (Perronnin, Sanchez and Mensink, ECCV 2010): how an image's descriptors would move a mixture of
Gaussians."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from retrieval_bench.extractors.local.codebook import learn_words
from retrieval_bench.extractors.local.encoders import Learned, power_law
from retrieval_bench.linalg.rows import unit
from retrieval_bench.system.by_identity import by_identity

ROUNDS = 30
"""Of expectation-maximisation; the likelihood of local descriptors hardly rises after twenty."""

BEGIN_WITH = 40_000
"""Descriptors from which k-means finds where to begin."""

NEGLIGIBLE = 1e-4
"""Gaussians that have less of a descriptor than this, against the one that has most, have none of it."""

ROWS_AT_ONCE = 4096
"""Of descriptors that are learned from: as many as the caches hold. Sums go by these pieces, whatever the threads."""


def learn_mixture(
    rows: np.ndarray, gaussians: int, seed: int, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, d) float32 -> weights (g,), means (g, d), variances (g, d), float32: a diagonal mixture, by
    expectation-maximisation from k-means. g = gaussians, or the number of distinct rows where there are no more.

    Variances do not fall below a thousandth of the data's own, so that no Gaussian collapses onto a single descriptor.
    The result does not depend on the threads.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    means = learn_words(rows[:: max(len(rows) // BEGIN_WITH, 1)], gaussians, seed)
    spread = rows.var(axis=0)
    floor = 1e-3 * spread + 1e-8
    variances = np.tile(np.maximum(spread, floor), (len(means), 1))
    weights = np.full(len(means), 1 / len(means), np.float32)
    pieces = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    with ThreadPoolExecutor(threads, thread_name_prefix="learn") as pool:
        for _ in range(ROUNDS):
            summed = functools.partial(gathered, weights=weights, means=means, variances=variances)
            parts = list(pool.map(summed, pieces))
            mass, first, second = (
                np.array([part[place] for part in parts], np.float64).sum(axis=0) for place in range(3)
            )
            mass += 1e-6
            means = (first / mass[:, None]).astype(np.float32)
            variances = np.maximum(second / mass[:, None] - np.square(first / mass[:, None]), floor).astype(np.float32)
            weights = (mass / mass.sum()).astype(np.float32)
    return weights, means, variances


def gathered(
    rows: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What n descriptors, (n, d) float32, give to each Gaussian: mass (g,), the sum of its shares; first and second
    (g, d), the sums of share * x and of share * x^2; float32.

    The shares of a descriptor in the Gaussians that have not NEGLIGIBLE little of it sum to 1.
    """
    mass, first, second = (np.zeros(shape, np.float32) for shape in (len(means), means.shape, means.shape))
    factors, constant = _factors(weights, means, variances)
    least, gather, both = math.log(NEGLIGIBLE), _kernels().gather, _with_squares(rows)
    for start in range(0, len(rows), _ROWS_IN_CACHE):
        some = slice(start, start + _ROWS_IN_CACHE)
        gather(both[some] @ factors, constant, rows[some], least, mass, first, second)
    return mass, first, second


def log_shares(rows: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """(n, g) float32: logarithms of weight times density, up to a constant for each row."""
    factors, constant = _factors(weights, means, variances)
    logs: np.ndarray = _with_squares(np.ascontiguousarray(rows, np.float32)) @ factors
    logs += constant
    return logs


def _with_squares(rows: np.ndarray) -> np.ndarray:
    """(n, d) float32 -> (n, 2 d) float32: each row, and behind it its squares."""
    both = np.empty((len(rows), 2 * rows.shape[1]), np.float32)
    _kernels().square(rows, both)
    return both


@by_identity
def _factors(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(2 d, g) and (g,) float32: a row with its squares times the first, plus the second, are its logarithms."""
    precisions = 1 / variances
    constant = np.log(np.maximum(weights, 1e-30)) - 0.5 * (
        (means * means * precisions).sum(axis=1) + np.log(variances).sum(axis=1)
    )
    factors = np.concatenate([means * precisions, -0.5 * precisions], axis=1)
    return np.ascontiguousarray(factors.T, np.float32), np.asarray(constant, np.float32)


class _Scales(NamedTuple):
    """What turns the sums of an image into a gradient, beside the means; (g, d) float32 each.

    excess: squares of the means, less the variances. by_means, by_deviations: what the two halves are divided by.
    """

    excess: np.ndarray
    by_means: np.ndarray
    by_deviations: np.ndarray


@by_identity
def _scales(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> _Scales:
    by_means = np.sqrt(variances * weights[:, None])
    return _Scales(means * means - variances, by_means, variances * np.sqrt(2 * weights)[:, None])


class _FisherKernels(NamedTuple):
    gather: Callable[..., None]
    square: Callable[..., None]
    differentiate: Callable[..., None]


@functools.cache
def _kernels() -> _FisherKernels:
    """Compiled; from the second time on a machine they come from the cache on disk."""
    from numba import types

    from retrieval_bench.search import jit

    def array(ndim: int, readonly: bool = False) -> Any:
        return types.Array(types.float32, ndim, "C", readonly=readonly)

    rows, vector, matrix = array(2, readonly=True), array(1), array(2)
    return _FisherKernels(
        jit.compiled(_gather, types.void(matrix, vector, rows, types.float32, vector, matrix, matrix)),
        jit.compiled(_square, types.void(rows, matrix)),
        jit.compiled(
            _differentiate,
            types.void(*(vector, matrix, matrix), *[rows] * 4, types.float32, types.boolean, vector),
        ),
    )


def _square(rows: np.ndarray, both: np.ndarray) -> None:
    """(n, d) -> (n, 2 d)."""
    n, dims = rows.shape
    for i in range(n):
        row, values, squares = rows[i], both[i, :dims], both[i, dims:]
        for c in range(dims):
            values[c] = row[c]
            squares[c] = row[c] * row[c]


def _differentiate(
    mass: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    means: np.ndarray,
    excess: np.ndarray,
    by_means: np.ndarray,
    by_deviations: np.ndarray,
    count: float,
    root: bool,
    gradient: np.ndarray,
) -> None:
    """The sums of `count` descriptors and `_Scales` -> (2 * g * d,); root: with the power law of 0.5."""
    gaussians, dims = first.shape
    size = gaussians * dims
    for g in range(gaussians):
        share = mass[g]
        mean, deviation = gradient[g * dims : (g + 1) * dims], gradient[size + g * dims : size + (g + 1) * dims]
        for c in range(dims):
            mean[c] = (first[g, c] - share * means[g, c]) / by_means[g, c]
            moved = second[g, c] - np.float32(2) * first[g, c] * means[g, c] + share * excess[g, c]
            deviation[c] = moved / by_deviations[g, c]
    for place in range(2 * size):
        gradient[place] /= count
    if root:
        for place in range(2 * size):
            value = gradient[place]
            gradient[place] = math.copysign(np.sqrt(abs(value)), value) + np.float32(0)


_ROWS_IN_CACHE = 1024  # whose logarithms stay near; with fewer, threads wait for each other between the calls
_LANES = 16  # logarithms that are compared at a time


def _gather(
    products: np.ndarray,
    constant: np.ndarray,
    rows: np.ndarray,
    least: float,
    mass: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Few of the Gaussians have anything of a descriptor: only for these is there an exponential and a sum.

    Which ones, nobody can foresee: they are listed without a branch, which would be taken wrongly for each of them.
    """
    n, gaussians = products.shape
    dims = rows.shape[1]
    logs = np.full(-(-gaussians // _LANES) * _LANES, np.float32(-np.inf), np.float32)
    largest = np.empty(_LANES, np.float32)
    having = np.empty(gaussians + 1, np.int64)
    shares = np.empty(gaussians, np.float32)
    for i in range(n):
        for g in range(gaussians):
            logs[g] = products[i, g] + constant[g]
        largest[:] = logs[:_LANES]
        for start in range(_LANES, len(logs), _LANES):
            for lane in range(_LANES):
                value = logs[start + lane]
                largest[lane] = value if value > largest[lane] else largest[lane]
        most = largest[0]
        for lane in range(1, _LANES):
            if largest[lane] > most:
                most = largest[lane]
        bound = most + least
        count = 0
        for g in range(gaussians):
            having[count] = g
            count += logs[g] > bound
        total = np.float32(0)
        for place in range(count):
            share = math.exp(logs[having[place]] - most)
            shares[place] = share
            total += share
        for place in range(count):
            g = having[place]
            share = shares[place] / total
            mass[g] += share
            for c in range(dims):
                value = share * rows[i, c]
                first[g, c] += value
                second[g, c] += value * rows[i, c]


@dataclass(frozen=True)
class Fisher:
    """The gradient by the means, then that by the deviations, (2 * gaussians * d,); power law and length 1."""

    gaussians: int
    power: float = 0.5
    learned: ClassVar[tuple[str, ...]] = ("weights", "means", "variances")

    def fit(self, images: Sequence[np.ndarray], seed: int, threads: int = 1) -> dict[str, np.ndarray]:
        mixture = learn_mixture(np.concatenate(images), self.gaussians, seed, threads)
        return dict(zip(self.learned, mixture, strict=True))

    def encode(self, descriptors: np.ndarray, learned: Learned) -> np.ndarray:
        weights, means, variances = (learned[name] for name in self.learned)
        if not len(descriptors):
            return np.zeros(2 * means.size, np.float32)
        mass, first, second = gathered(np.ascontiguousarray(descriptors, np.float32), weights, means, variances)
        gradient, root = np.empty(2 * means.size, np.float32), self.power == 0.5
        scales = _scales(weights, means, variances)
        _kernels().differentiate(mass, first, second, means, *scales, len(descriptors), root, gradient)
        return unit(gradient if root else power_law(gradient, self.power))
