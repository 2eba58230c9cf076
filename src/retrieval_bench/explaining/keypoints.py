"""Keypoints of two images that match, and which of the matches agree on one affine map between the images.

`verification` counts those who agree, for many images and fast; here the same steps are done for one pair, slowly, so
that it can be said which they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from retrieval_bench.explaining.clues import MatchPair, Unexplained
from retrieval_bench.extractors.local.keypoints import TURN, KeypointBlocks, Keypoints, pack, unpack
from retrieval_bench.extractors.local.pipeline import Describe
from retrieval_bench.extractors.local.sift import LEAST_FOR_ORB
from retrieval_bench.images.resize import grey
from retrieval_bench.methods.reranking.geometric_verification import (
    LOOSE,
    MOST_SCALE,
    MOST_SHEAR,
    OWN_SCALE,
    OWN_TURN,
    RATIO,
    ROUNDS,
    TOLERANCE,
)
from retrieval_bench.methods.reranking.spatial import FEWEST

OWN_DEGREES = 360 * OWN_TURN / TURN


class Points(NamedTuple):
    """n places of one image: x, y, scale in pixels of the shrunk image, angles in degrees; descriptors (n, d).

    size: width and height of the shrunk image. power: 2 where distances are Euclidean, 1 where they are Hamming and the
    descriptors bits: to what the squared difference of two descriptors is their distance.
    """

    points: np.ndarray
    scales: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray
    size: tuple[int, int]
    power: int = 2


Detect = Callable[[np.ndarray], Points]
"""(h, w, 3) uint8 -> its points."""


def sift_points(image: np.ndarray, *, blocks: KeypointBlocks) -> Points:
    """The keypoints of verification, RootSIFT, rounded as it keeps them."""
    found: Keypoints = unpack(pack(blocks.find(image), blocks.keypoints))
    height, width = grey(image, blocks.side).shape
    return Points(
        found.points.astype(np.float64),
        found.scales.astype(np.float64),
        found.angles.astype(np.float64),
        found.descriptors.astype(np.int64),
        (width, height),
    )


def orb_points(image: np.ndarray, *, side: int, keypoints: int) -> Points:
    """The keypoints of the method `orb`; descriptors are bits."""
    luma = grey(image, side)
    size = luma.shape[1], luma.shape[0]
    found: Any = ()
    bits = None
    if min(size) >= LEAST_FOR_ORB:
        found, bits = cv2.ORB.create(nfeatures=keypoints, fastThreshold=5).detectAndCompute(luma, None)
    if bits is None:
        return Points(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty((0, 256), np.int64), size, 1)
    facts = np.array([(*point.pt, point.size, point.angle) for point in found], np.float64)
    rows = np.unpackbits(bits, axis=1).astype(np.int64)
    return Points(facts[:, :2], facts[:, 2], facts[:, 3], rows, size, 1)


def grid_points(image: np.ndarray, *, describe: Describe, side: int) -> Points:
    """Patches on a grid, which have no direction and, here, one scale: their maps are found from shifts."""
    found = describe(image)
    height, width = grey(image, side).shape
    points = (found.places[:, ::-1].astype(np.float64) + 0.5) * (width, height)
    n = len(points)
    return Points(points, np.ones(n), np.zeros(n), found.descriptors.astype(np.float64), (width, height))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) squared Euclidean distances; of bits, their Hamming distances. Whole numbers stay exact."""
    squares = (first * first).sum(axis=1)[:, None] + (second * second).sum(axis=1)[None]
    found: np.ndarray = squares - 2 * (first @ second.T)
    return np.maximum(found, 0)


def mutual(first: Points, second: Points, ratio: float = RATIO) -> np.ndarray:
    """(m, 2) int64, places of first and second that are each other's nearest, where the second nearest is farther by
    more than `ratio` (Lowe, IJCV 2004), by rising place of second; nothing where second has no two points."""
    if not len(first.points) or len(second.points) < 2:
        return np.empty((0, 2), np.int64)
    apart = distances(first.descriptors, second.descriptors)
    nearest, back = apart.argmin(axis=1), apart.argmin(axis=0)
    two = np.partition(apart, 1, axis=1)[:, :2]
    rows = np.arange(len(apart))
    kept = (two[:, 0] < ratio**first.power * two[:, 1]) & (back[nearest] == rows)
    pairs = np.stack([rows[kept], nearest[kept]], axis=1)
    return pairs[np.argsort(pairs[:, 1], kind="stable")]


def nearest(first: Points, second: Points, ratio: float = RATIO) -> np.ndarray:
    """The same by the rule of verification: of several with the same nearest the closest keeps it, and matches between
    the same two places are one."""
    if not len(first.points) or len(second.points) < 2:
        return np.empty((0, 2), np.int64)
    apart = distances(first.descriptors, second.descriptors)
    two = np.partition(apart, 1, axis=1)[:, :2]
    which = apart.argmin(axis=1)
    pairs: dict[tuple[float, ...], tuple[int, int]] = {}
    passed = np.flatnonzero(two[:, 0] < ratio**first.power * two[:, 1])
    for other in np.unique(which[passed]):
        mine = passed[which[passed] == other]
        holder = mine[apart[mine, other].argmin()]
        pairs.setdefault((*first.points[holder], *second.points[other]), (int(holder), int(other)))
    return np.array(list(pairs.values()), np.int64).reshape(-1, 2)


def agreeing(first: Points, second: Points, pairs: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """(m,) bool: the matches that agree on one map, as many as `verification` counts; see there for the steps."""
    here, there = first.points[pairs[:, 0]], second.points[pairs[:, 1]]
    turns = second.angles[pairs[:, 1]] - first.angles[pairs[:, 0]]
    octaves = np.log2(second.scales[pairs[:, 1]] / first.scales[pairs[:, 0]])

    def agree(linear: np.ndarray, shift: np.ndarray, turn: float, octave: float, room: float) -> np.ndarray:
        missed = here @ linear.T + shift - there
        turned = np.abs((turns - turn + 180) % 360 - 180)
        near = (missed**2).sum(axis=1) <= room**2 * 2.0**octave
        kept: np.ndarray = near & (np.abs(octaves - octave) <= OWN_SCALE) & (turned <= OWN_DEGREES)
        return kept

    def guess(k: int) -> tuple[np.ndarray, np.ndarray]:
        cosine, sine = math.cos(math.radians(turns[k])), math.sin(math.radians(turns[k]))
        linear = 2.0 ** octaves[k] * np.array([[cosine, -sine], [sine, cosine]])
        return linear, there[k] - linear @ here[k]

    most, best = 0, np.zeros(len(pairs), bool)
    fitted, turn, octave = best, 0.0, 0.0
    for k in range(len(pairs)):
        if abs(octaves[k]) > math.log2(MOST_SCALE):
            continue
        loose = agree(*guess(k), turns[k], octaves[k], LOOSE * tolerance)
        if loose.sum() > most:
            most, fitted, turn, octave = int(loose.sum()), loose, float(turns[k]), float(octaves[k])
            best = agree(*guess(k), turn, octave, tolerance)
    for _ in range(ROUNDS):
        found = _affine(here[fitted], there[fitted])
        if found is None:
            break
        linear, shift = found
        octave = math.log2(np.linalg.det(linear)) / 2
        turn = math.degrees(math.atan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
        fitted = agree(linear, shift, turn, octave, tolerance)
        if fitted.sum() <= best.sum():
            break
        best = fitted
    return best


def _affine(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The map that fits best; None where points lie on a line, or the map is out of bounds."""
    if len(here) < 3:
        return None
    x, y = here - here.mean(axis=0), there - there.mean(axis=0)
    spread = x.T @ x
    if not np.linalg.det(spread) > 1e-3 * (np.trace(spread) / 2) ** 2:
        return None
    linear = np.linalg.solve(spread, x.T @ y).T
    determinant = float(np.linalg.det(linear))
    if not MOST_SCALE**-2 <= determinant <= MOST_SCALE**2 or (linear**2).sum() > 2 * MOST_SHEAR * determinant:
        return None
    return linear, there.mean(axis=0) - linear @ here.mean(axis=0)


def match_pairs(
    detect: Detect,
    query: np.ndarray,
    found: list[np.ndarray],
    ratio: float = RATIO,
    match: Callable[[Points, Points, float], np.ndarray] = mutual,
) -> list[MatchPair]:
    """query, found: images (h, w, 3) uint8. Raises Unexplained where the query has no keypoint."""
    first = detect(query)
    if not len(first.points):
        raise Unexplained("no keypoint is found in the query: it is blank or tiny")
    pairs = []
    for image in found:
        second = detect(image)
        chosen = match(first, second, ratio)
        agree = agreeing(first, second, chosen)
        count = int(agree.sum())
        said = f"{count} of {len(chosen)} matches agree on one map"
        said += f" (fewer than {FEWEST} may be chance)" if count < FEWEST else ""
        here, there = first.points[chosen[:, 0]] / first.size, second.points[chosen[:, 1]] / second.size
        pairs.append(MatchPair(here, there, agree, said))
    return pairs
