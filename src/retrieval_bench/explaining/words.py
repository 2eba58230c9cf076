"""Where in two images the similarity of bags of words, VLAD, Fisher vectors and histograms comes from.

All of these are sums over the places of an image, before a power law. So their cosine can be shared out to the places,
exactly: component j of the vector, e_j, is a factor times the sum of what the places give to it, and each place gets
its part of e_j d_j, d being the direction of the other image. Whitening is linear and only turns d; its mean gives a
constant that belongs to no place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from retrieval_bench.explaining.clues import Heat, HeatPair, Unexplained
from retrieval_bench.extractors.histograms.color import ColorHistogram
from retrieval_bench.extractors.histograms.lbp import PATTERNS, LbpHistogram, binary_patterns, uniform
from retrieval_bench.extractors.histograms.regions import pyramid
from retrieval_bench.extractors.local.bow import BagOfWords
from retrieval_bench.extractors.local.codebook import Vocabulary
from retrieval_bench.extractors.local.encoders import Encoder, Learned
from retrieval_bench.extractors.local.fisher import NEGLIGIBLE, Fisher, log_shares
from retrieval_bench.extractors.local.hog import ORIENTATIONS, WholeImageHog
from retrieval_bench.extractors.local.pipeline import LocalFeatures
from retrieval_bench.extractors.local.vlad import Vlad
from retrieval_bench.images.resize import grey
from retrieval_bench.linalg.pca import projected

CELLS = 24
"""Along each side of the map to which what scattered places give is added up."""


class Summed(NamedTuple):
    """total: (D,) float64, what n descriptors add up to before any power law. shared: (D,) weights -> (n,) float64,
    what each descriptor adds to weights . total."""

    total: np.ndarray
    shared: Callable[[np.ndarray], np.ndarray]


def summed(encoder: Encoder, descriptors: np.ndarray, learned: Learned) -> Summed:
    """descriptors: (n, d) float32, n > 0, as the encoder gets them. Raises Unexplained for any other encoder."""
    rows = descriptors.astype(np.float64)
    if isinstance(encoder, BagOfWords):
        return _words(encoder, descriptors, learned)
    if isinstance(encoder, Vlad):
        return _residuals(rows, descriptors, learned["words"])
    if isinstance(encoder, Fisher):
        return _gradients(rows, descriptors, *(learned[name] for name in encoder.learned))
    raise Unexplained("its encoding cannot be divided among image positions")


def _words(encoder: BagOfWords, descriptors: np.ndarray, learned: Learned) -> Summed:
    words = learned["words"]
    found = Vocabulary(words).nearest(descriptors, encoder.soft)
    weights = np.ones(found.indices.shape)
    if encoder.soft > 1:
        squares = np.square(found.distances.astype(np.float64)) / float(learned["spread"][0]) ** 2
        weights = np.exp((squares[:, :1] - squares) / 2)
        weights /= weights.sum(axis=1, keepdims=True)
    total = np.bincount(found.indices.ravel(), weights.ravel(), minlength=len(words))
    return Summed(total, lambda by: (by[found.indices] * weights).sum(axis=1))


def _residuals(rows: np.ndarray, descriptors: np.ndarray, words: np.ndarray) -> Summed:
    nearest = np.argmax(descriptors @ words.T - (words * words).sum(axis=1) / 2, axis=1)
    differences = rows - words[nearest]
    total = np.zeros(words.shape)
    np.add.at(total, nearest, differences)
    return Summed(total.ravel(), lambda by: (by.reshape(words.shape)[nearest] * differences).sum(axis=1))


def _gradients(
    rows: np.ndarray, descriptors: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray
) -> Summed:
    logs = log_shares(descriptors, weights, means, variances).astype(np.float64)
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares[shares <= NEGLIGIBLE] = 0
    shares /= shares.sum(axis=1, keepdims=True)
    n = len(rows)
    m, v, w = (array.astype(np.float64) for array in (means, variances, weights[:, None]))
    # Of the sums of share, share x and share x^2 the two gradients are linear functions: Fisher.encode has them.
    to_means, to_deviations = 1 / (np.sqrt(v * w) * n), 1 / (v * np.sqrt(2 * w) * n)
    mass, first, second = shares.sum(axis=0)[:, None], shares.T @ rows, shares.T @ (rows * rows)
    total = np.stack([(first - mass * m) * to_means, (second - 2 * first * m + mass * (m * m - v)) * to_deviations])

    def shared(by: np.ndarray) -> np.ndarray:
        one, two = by.reshape(2, *m.shape)
        one, two = one * to_means, two * to_deviations
        linear = rows @ (one - 2 * m * two).T + (rows * rows) @ two.T
        each: np.ndarray = (shares * (linear + (two * (m * m - v) - one * m).sum(axis=1))).sum(axis=1)
        return each

    return Summed(total.ravel(), shared)


class Contributions(NamedTuple):
    """each: (n,) what the descriptors add to the similarity; constant: what none of them does."""

    each: np.ndarray
    constant: float


class LocalLook:
    """One image as LocalFeatures sees it. vector: (D,) as `transform` gives it, all zeros without a descriptor.

    places: (n, 2) row and column, -0.5 to 0.5.
    """

    def __init__(self, extractor: LocalFeatures, image: np.ndarray) -> None:
        self._extractor = extractor
        found = extractor.describe(image)
        self.places = found.places
        self._descriptors = extractor.reduced(found)
        learned = extractor.learned_arrays()
        self._encoded = extractor.encoder.encode(self._descriptors, learned).astype(np.float64)
        self._summed = summed(extractor.encoder, self._descriptors, learned) if len(found.places) else None
        self.vector = extractor.transform([image])[0].astype(np.float64)

    def towards(self, other: np.ndarray) -> Contributions:
        """What each descriptor adds to the inner product of this image's vector with another's."""
        if self._summed is None or not self.vector.any():
            return Contributions(np.zeros(len(self.places)), 0.0)
        direction, constant = other, 0.0
        if self._extractor.whiten:
            mean, axes = self._extractor.whiten_mean_, self._extractor.whiten_axes_
            length = float(np.linalg.norm(projected(self._encoded[None], mean, axes).astype(np.float64)))
            direction = axes.astype(np.float64) @ other / max(length, 1e-300)
            constant = -float(mean.astype(np.float64) @ direction)
        total = self._summed.total
        factors = np.divide(self._encoded, total, out=np.zeros_like(total), where=total != 0)
        return Contributions(self._summed.shared(factors * direction), constant)


def local_pairs(extractor: LocalFeatures, query: np.ndarray, found: list[np.ndarray]) -> list[HeatPair]:
    """query, found: images (h, w, 3) uint8. Raises Unexplained where the query has nothing to describe."""
    first = LocalLook(extractor, query)
    if not len(first.places):
        raise Unexplained("nothing can be described in the query: it is blank or tiny")
    pairs = []
    for image in found:
        other = LocalLook(extractor, image)
        cosine = float(first.vector @ other.vector)
        here, there = first.towards(other.vector), other.towards(first.vector)
        said = f"cosine {cosine:.3f}, divided among {len(first.places):,} and {len(other.places):,} image positions"
        pairs.append(
            HeatPair(_gathered(first.places, here.each), _gathered(other.places, there.each), said, 1 - cosine)
        )
    return pairs


def _gathered(places: np.ndarray, each: np.ndarray) -> Heat:
    """What scattered places give, added up in CELLS x CELLS cells."""
    rows, columns = np.clip(((places + 0.5) * CELLS).astype(np.int64), 0, CELLS - 1).T
    values = np.zeros((CELLS, CELLS))
    np.add.at(values, (rows, columns), each)
    return Heat(values)


# --- histograms, whose places are pixels ------------------------------------------------------------------------------


def histogram_heat(bins: np.ndarray, levels: int, size: int, products: np.ndarray) -> np.ndarray:
    """(h, w) float64: each bin of each region shares what it adds to the cosine equally among its pixels.

    bins: (h, w) the bin of each pixel, below size. products: (regions * size,), component by component.
    """
    heat = np.zeros(bins.shape)
    of_region = products.reshape(-1, size)
    for one, region, part in zip(of_region, pyramid(bins, levels), pyramid(heat, levels), strict=True):
        counts = np.bincount(region.ravel(), minlength=size)
        part += (one / np.maximum(counts, 1))[region]
    return heat


def histogram_pairs(
    extractor: ColorHistogram | LbpHistogram, query: np.ndarray, found: list[np.ndarray]
) -> list[HeatPair]:
    """query, found: images (h, w, 3) uint8."""
    vectors = extractor.transform([query, *found]).astype(np.float64)

    def heat(image: np.ndarray, products: np.ndarray) -> Heat:
        if isinstance(extractor, ColorHistogram):
            size = int(np.prod(extractor.bins))
            return Heat(histogram_heat(extractor.bins_of(image), extractor.levels, size, products))
        luma = grey(image, extractor.side)
        total = np.zeros(luma.shape)
        for radius, part in enumerate(np.split(products, extractor.radii), 1):
            bins = uniform()[binary_patterns(luma, radius)].astype(np.int64)
            total += histogram_heat(bins, extractor.levels, PATTERNS, part)
        return Heat(total)

    pairs = []
    for image, vector in zip(found, vectors[1:], strict=True):
        products = vectors[0] * vector
        cosine = float(products.sum())
        said = f"cosine {cosine:.3f}, divided among the pixels of each bin"
        pairs.append(HeatPair(heat(query, products), heat(image, products), said, 1 - cosine))
    return pairs


def block_pairs(extractor: WholeImageHog, query: np.ndarray, found: list[np.ndarray]) -> list[HeatPair]:
    """The same of HOG of the whole image, by its blocks. Raises Unexplained for a query without a gradient."""
    vectors = extractor.transform([query, *found]).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths[0]:
        raise Unexplained("the query has no gradient: it has only one colour")
    vectors = vectors / np.where(lengths > 0, lengths, 1)
    depth = extractor.block**2 * ORIENTATIONS
    side = round((vectors.shape[1] / depth) ** 0.5)
    pairs = []
    for vector in vectors[1:]:
        heat = Heat((vectors[0] * vector).reshape(side, side, depth).sum(axis=2))
        cosine = float(heat.values.sum())
        pairs.append(HeatPair(heat, heat, f"cosine {cosine:.3f}, the sum over {side} x {side} blocks", 1 - cosine))
    return pairs
