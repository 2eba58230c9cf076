"""SIFT keypoints (Lowe, IJCV 2004), ORB keypoints (Rublee et al., ICCV 2011) and dense SIFT, encoded."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.local.area import shrunk
from retrieval_bench.extractors.local.dense_sift import dense_sift
from retrieval_bench.extractors.local.pipeline import Describe, Described, encoded, local_features, nothing
from retrieval_bench.images.resize import OPPONENT, grey
from retrieval_bench.linalg.rows import signs
from retrieval_bench.registry import EXTRACTORS, Range, at_least_one

COLOURS = ("lab", "opponent", "grey")
NEAR = (3, 9, 27)
"""Pixels around a keypoint over which Lab is averaged."""


def sift_keypoints(
    image: np.ndarray, *, side: int, keypoints: int, contrast: float, upright: bool, colour: str, root: bool
) -> Described:
    """(h, w, 3) uint8 RGB -> Described, n <= about `keypoints`.

    side: the longer side is shrunk to it. keypoints: the strongest are kept. contrast: threshold of the detector.
    upright: all keypoints point up, so that the descriptor is not invariant to rotation. colour: keypoints are found in
    grey; "grey" describes them there (d = 128), "opponent" in each opponent colour (384, at three times the cost),
    "lab" in grey and by the mean Lab, over 100, of their surroundings (137). root: RootSIFT (Arandjelovic and
    Zisserman, CVPR 2012), else length 1.
    """
    import cv2

    pixels = shrunk(image, side)
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    # A detector is not safe to share between threads and costs nothing to make.
    detector = cv2.SIFT.create(nfeatures=keypoints, contrastThreshold=contrast)
    if upright or colour == "opponent":
        found = detector.detect(luma)
        if upright:
            for keypoint in found:
                keypoint.angle = 0.0
        layers = _opponent_layers(pixels) if colour == "opponent" else [luma]
        described = [detector.compute(layer, found)[1] for layer in layers] if found else [None]
    else:
        found, descriptors = detector.detectAndCompute(luma, None)
        described = [descriptors]
    parts = [part for part in described if part is not None]
    if len(parts) < len(described):
        return nothing({"lab": 128 + 3 * len(NEAR), "opponent": 384, "grey": 128}[colour])
    joined = np.concatenate(parts, axis=1).astype(np.float32)
    total = joined.sum(axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-12)
    joined = np.sqrt(joined / np.maximum(total, 1)) if root else joined / lengths
    points = np.array([keypoint.pt for keypoint in found], np.float32)
    if colour == "lab":
        joined = np.concatenate([joined, _lab_near(pixels, points)], axis=1)
    seen = total[:, 0] > 0
    return Described(joined[seen], _places(points, luma.shape)[seen])


def _opponent_layers(pixels: np.ndarray) -> list[np.ndarray]:
    """The opponent colours as three uint8 images."""
    scale, shift = np.array([1, 1, 1 / np.sqrt(3)], np.float32), np.array([128, 128, 0], np.float32)
    colours = np.clip(np.rint((pixels.astype(np.float32) @ OPPONENT.T) * scale + shift), 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(colours[..., layer]) for layer in range(3)]


def _lab_near(pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n, 3 * len(NEAR)) float32: mean Lab over 100 around each point."""
    import cv2

    lab = cv2.cvtColor(pixels.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB) / np.float32(100)
    columns, rows = np.rint(points).astype(np.int64).T
    rows, columns = np.clip(rows, 0, lab.shape[0] - 1), np.clip(columns, 0, lab.shape[1] - 1)
    return np.concatenate([cv2.boxFilter(lab, -1, (size, size))[rows, columns] for size in NEAR], axis=1)


LEAST_FOR_ORB = 63
"""Pixels: ORB leaves out a border of 31 all around; on much smaller images OpenCV's stops with an error."""


def orb_keypoints(image: np.ndarray, *, side: int, keypoints: int) -> Described:
    """(h, w, 3) uint8 RGB -> Described, d = 256: the bits of the descriptor as -1/16 and 1/16, length 1, so that half
    the squared distance of two is their Hamming distance over 128."""
    import cv2

    luma = grey(image, side)
    if min(luma.shape) < LEAST_FOR_ORB:
        return nothing(256)
    found, bits = cv2.ORB.create(nfeatures=keypoints, fastThreshold=5).detectAndCompute(luma, None)
    if bits is None:
        return nothing(256)
    return Described(
        signs(bits) / np.float32(16), _places(np.array([keypoint.pt for keypoint in found], np.float32), luma.shape)
    )


def _places(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return points[:, ::-1] / np.array(shape, np.float32) - np.float32(0.5)


@EXTRACTORS("sift", family="local", about="RootSIFT keypoints with their colour, Fisher vector", shares=local_features)
@encoded("sift")
def sift(
    setup: Setup,
    *,
    side: Annotated[int, Range(1, 10_000)] = 320,
    keypoints: Annotated[int, Range(1, 65_535)] = 500,
    contrast: Annotated[float, Range(0, 1, below=True)] = 0.02,
    colour: str = "lab",
    upright: bool = False,
    root: bool = True,
) -> Describe:
    """SIFT keypoints (Lowe, IJCV 2004), encoded.

    Args:
        setup: what the run fixes for every method.
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        keypoints: keypoints that are kept, the strongest first
        contrast: threshold of OpenCV's detector; lower finds weaker keypoints, too
        colour: what a keypoint is described by: `lab` (grey SIFT and the mean Lab colour around it),
            `opponent` (SIFT in each of three opponent colours, at three times the cost) or `grey`
        upright: all keypoints point up; then the method is not invariant to rotation
        root: RootSIFT (Arandjelovic and Zisserman, CVPR 2012); `no` takes SIFT at length 1
    """
    _load_opencv()
    at_least_one("sift", side=side, keypoints=keypoints)
    return partial(
        sift_keypoints,
        side=side,
        keypoints=keypoints,
        contrast=contrast,
        upright=upright,
        root=root,
        colour=_one_of("sift", colour, COLOURS),
    )


@EXTRACTORS(
    "dense-sift", family="local", about="SIFT on a grid in opponent colours, Fisher vector", shares=local_features
)
@encoded("dense-sift", reduce=96, place=0.5)
def dense(
    setup: Setup,
    *,
    side: Annotated[int, Range(1, 10_000)] = 224,
    step: Annotated[int, Range(1, 10_000)] = 8,
    colour: str = "opponent",
    root: bool = True,
) -> Describe:
    """SIFT on a grid of patches in three sizes, encoded.

    Args:
        setup: what the run fixes for every method.
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        step: pixels from patch to patch
        colour: `opponent` (SIFT in each of three opponent colours) or `grey`
        root: RootSIFT (Arandjelovic and Zisserman, CVPR 2012); `no` takes SIFT at length 1
    """
    _load_opencv()
    at_least_one("dense-sift", side=side, step=step)
    opponent = _one_of("dense-sift", colour, ("opponent", "grey")) == "opponent"
    return partial(dense_sift, side=side, cells=(4, 6, 9), step=step, opponent=opponent, root=root)


@EXTRACTORS("orb", family="local", about="ORB keypoints, Fisher vector", shares=local_features)
@encoded("orb")
def orb(
    setup: Setup,
    *,
    side: Annotated[int, Range(1, 10_000)] = 384,
    keypoints: Annotated[int, Range(1, 65_535)] = 800,
) -> Describe:
    """ORB keypoints (Rublee et al., ICCV 2011), encoded.

    Args:
        setup: what the run fixes for every method.
        side: the longer side of the image in pixels; larger images are shrunk to it, smaller ones stay as
            they are
        keypoints: keypoints that are kept, the strongest first
    """
    _load_opencv()
    at_least_one("orb", side=side, keypoints=keypoints)
    return partial(orb_keypoints, side=side, keypoints=keypoints)


def _one_of(name: str, colour: str, allowed: tuple[str, ...]) -> str:
    if colour not in allowed:
        raise BenchError(f"{name}: colour={colour} is not one of {', '.join(allowed)}")
    return colour


def _load_opencv() -> None:
    """Loaded while a method is built, so that the runner finds it and sets its threads."""
    import cv2  # noqa: F401
