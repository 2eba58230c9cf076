"""SIFT and ORB keypoints, dense SIFT, and what LocalFeatures makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.extractors.local.bow import BagOfWords
from retrieval_bench.extractors.local.dense_sift import dense_sift, direction_maps
from retrieval_bench.extractors.local.pipeline import Described, LocalFeatures
from retrieval_bench.extractors.local.sift import NEAR, orb_keypoints, sift_keypoints
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS, parse

PLAIN = {"side": 512, "keypoints": 0, "contrast": 0.04, "upright": False, "colour": "grey", "root": True}
METHODS = ("sift", "dense-sift", "orb", "hog", "color")


def blobs(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
    """(height, width, 3) uint8: discs on grey, each a keypoint."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128, np.uint8)
    for _ in range(30):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(image, centre, int(rng.integers(3, 12)), rng.integers(0, 256, 3).tolist(), -1)
    return image


def split_of(images: list[np.ndarray]) -> Split:
    n = len(images)
    return Split(tuple(map(str, range(n))), np.zeros(n, np.int64), ImageBytes([encode_png(i) for i in images]))


def pixels(*levels: int) -> np.ndarray:
    return np.repeat(np.array([levels], np.uint8)[:, :, None], 3, axis=2)


def test_root_sift_is_the_square_root_of_the_shares() -> None:
    image = blobs(0)
    _, reference = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    assert len(reference) > 20
    found = sift_keypoints(image, **PLAIN).descriptors
    np.testing.assert_allclose(found, np.sqrt(reference / reference.sum(axis=1, keepdims=True)), atol=1e-6)
    plain = sift_keypoints(image, **PLAIN | {"root": False}).descriptors
    np.testing.assert_allclose(plain, reference / np.linalg.norm(reference, axis=1, keepdims=True), atol=1e-6)


def test_opponent_colours_of_a_grey_image_say_nothing_but_brightness() -> None:
    grey = np.repeat(blobs(0)[..., :1], 3, axis=2)
    one, three = (sift_keypoints(grey, **PLAIN | {"colour": colour}).descriptors for colour in ("grey", "opponent"))
    assert three.shape == (len(one), 384)
    assert not three[:, :256].any()
    assert np.abs(three[:, 256:] - one).mean() < 0.01
    coloured = sift_keypoints(blobs(0), **PLAIN | {"colour": "opponent"}).descriptors
    assert coloured[:, :256].any()


def test_colour_near_a_keypoint_is_its_lab() -> None:
    image = blobs(2)
    found = sift_keypoints(image, **PLAIN | {"colour": "lab"})
    assert found.descriptors.shape[1] == 128 + 3 * len(NEAR)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
    rows, columns = np.rint((found.places + 0.5) * image.shape[:2]).astype(int).T
    for row, column, descriptor in zip(rows, columns, found.descriptors, strict=True):
        if 1 <= row < 119 and 1 <= column < 159:
            window = lab[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1))
            np.testing.assert_allclose(descriptor[128:131], window, atol=1e-4)


def test_upright_keypoints_change_with_rotation_and_others_do_not() -> None:
    image = blobs(3)
    turned = np.ascontiguousarray(np.rot90(image))

    def agreement(upright: bool) -> float:
        a, b = (sift_keypoints(view, **PLAIN | {"upright": upright}).descriptors for view in (image, turned))
        return float((a @ b.T).max(axis=1).mean())

    assert agreement(False) > 0.97
    assert agreement(True) < agreement(False) - 0.02


def test_side_and_keypoints_limit_the_work() -> None:
    image = blobs(1)

    def count(**options: int) -> int:
        return len(sift_keypoints(image, **PLAIN | {"keypoints": 1000} | options).descriptors)

    everything = count()
    assert 0 < count(side=40) < everything
    assert 10 <= count(keypoints=10) < everything
    assert count(side=10_000) == everything, "images are never enlarged"


def test_orb_distance_is_the_hamming_distance() -> None:
    found = orb_keypoints(blobs(4), side=512, keypoints=100).descriptors
    luma = cv2.cvtColor(blobs(4), cv2.COLOR_RGB2GRAY)
    _, bits = cv2.ORB.create(nfeatures=100, fastThreshold=5).detectAndCompute(luma, None)
    hamming = (np.unpackbits(bits, axis=1)[:, None] != np.unpackbits(bits, axis=1)[None]).sum(axis=2)
    squares = ((found[:, None] - found[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(squares * 64, hamming, atol=1e-3)


def test_direction_maps_of_a_ramp() -> None:
    ramp = np.tile(np.arange(20, dtype=np.float32)[None, :, None], (20, 1, 1))
    maps = direction_maps(ramp)[5, 5]  # the gradient is 2, to the right
    np.testing.assert_allclose(maps, 2 * np.maximum(np.cos(np.arange(8) * np.pi / 4), 0) ** 2, atol=1e-5)


def test_dense_sift_describes_textured_places_only() -> None:
    image = np.full((128, 128, 3), 90, np.uint8)
    image[:, 64:] = blobs(5, 128, 64)
    options = {"side": 128, "cells": (4,), "step": 8, "opponent": True, "root": True}
    found = dense_sift(image, **options)
    assert found.descriptors.shape == (len(found.places), 384)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    assert found.places[:, 1].min() > -0.15
    assert dense_sift(np.full((128, 128, 3), 90, np.uint8), **options).descriptors.shape == (0, 384)
    assert dense_sift(image[:10], **options).descriptors.shape == (0, 384)


GRID = pytest.mark.slow(reason="15 fits; sift and color show each encoder, with and without a place")


@pytest.mark.slow(reason="learns a vocabulary of each kind")
@pytest.mark.parametrize(
    "name", [name if name in ("sift", "color") else pytest.param(name, marks=GRID) for name in METHODS]
)
@pytest.mark.parametrize("encode", ["bow", "vlad", "fisher"])
def test_every_method_composes_with_every_encoder(name: str, encode: str) -> None:
    options = f"{name}:encode={encode}:words=4:whiten=3:fit_images=6"
    scenes = [blobs(seed) for seed in range(8)]
    method = parse(EXTRACTORS, options).build(Setup(threads=2)).fit(split_of(scenes))
    assert all(isinstance(getattr(method, attribute), np.ndarray) for attribute in method.learned)
    odd = [np.zeros((1, 1, 3), np.uint8), np.full((90, 90, 3), 200, np.uint8)]
    found = method.transform([*scenes, *odd])
    assert found.shape == (10, 3)
    lengths = np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(lengths[:8], 1, atol=1e-5)
    # A single pixel and a uniform image have nothing but their colour.
    np.testing.assert_allclose(lengths[8:], 1 if name == "color" else 0, atol=1e-5)
    alone = np.concatenate([method.transform([scene]) for scene in scenes])
    np.testing.assert_array_equal(alone, found[:8])


@pytest.mark.slow(reason="learns vocabularies several times")
@pytest.mark.parametrize("name", METHODS)
def test_what_is_learned_does_not_depend_on_threads(name: str) -> None:
    train = split_of([blobs(seed) for seed in range(6)])
    one, two = (parse(EXTRACTORS, f"{name}:words=4").build(Setup(threads=n)).fit(train) for n in (1, 3))
    for attribute in one.learned:
        np.testing.assert_array_equal(getattr(one, attribute), getattr(two, attribute))


def test_fit_reads_no_more_images_than_asked_and_samples_each() -> None:
    seen: list[int] = []

    def describe(image: np.ndarray) -> Described:
        seen.append(int(image[0, 0, 0]))
        rng = np.random.default_rng(seen[-1])
        return Described(rng.normal(size=(20, 4)).astype(np.float32), np.zeros((20, 2), np.float32))

    def method(seed: int) -> LocalFeatures:
        return LocalFeatures("toy", describe, BagOfWords(64), 0, 0.0, 0, fit_images=8, seed=seed, sample=40)

    train = split_of([pixels(level) for level in range(30)])
    fitted = method(5).fit(train)
    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen)
    assert len(fitted.words_) == 40, "five of each image, fewer than words: they become the words"
    drawn = list(seen)
    method(6).fit(train)
    assert seen[8:] != drawn


@pytest.mark.parametrize("name", ["sift", "dense-sift", "orb", "hog"])
def test_training_images_with_nothing_to_describe_are_refused(name: str) -> None:
    blank = split_of([np.full((60, 60, 3), 200, np.uint8)] * 3)
    with pytest.raises(BenchError, match=f"{name}: none of the 3 training images"):
        EXTRACTORS[name].build(Setup()).fit(blank)


@pytest.mark.parametrize("name", ["sift", "dense-sift"])
def test_unknown_colours_are_refused(name: str) -> None:
    with pytest.raises(BenchError, match=f"{name}: colour=pink is not one of .*grey"):
        parse(EXTRACTORS, f"{name}:colour=pink").build(Setup())


def test_a_view_is_nearer_to_its_own_scene_than_to_others() -> None:
    scenes = [blobs(seed) for seed in range(8)]
    method = EXTRACTORS["sift"].build(Setup(), words=8).fit(split_of(scenes))
    views = [np.ascontiguousarray(np.rot90(scene)) for scene in scenes]
    similar = method.transform(views) @ method.transform(scenes).T
    np.testing.assert_array_equal(similar.argmax(axis=1), np.arange(8))


@pytest.mark.slow(reason="learns vocabularies several times")
@pytest.mark.parametrize("encode", ["bow", "vlad", "fisher"])
def test_power_damps_bursts(encode: str) -> None:
    """At 1 the vector is the counts or gradients themselves, at 0.5 their roots: one follows from the other."""
    scenes = [blobs(seed) for seed in range(6)]
    rooted, plain = (
        parse(EXTRACTORS, f"sift:encode={encode}:words=8:power={power}").build(Setup()).fit(split_of(scenes))
        for power in (0.5, 1)
    )
    weight = plain.idf_ if encode == "bow" else 1
    undone = rooted.transform(scenes) / weight
    undone = np.sign(undone) * undone**2 * weight
    undone /= np.linalg.norm(undone, axis=1, keepdims=True)
    np.testing.assert_allclose(undone, plain.transform(scenes), atol=1e-5)


def test_the_sample_bounds_what_is_learned_from() -> None:
    scenes = [blobs(seed) for seed in range(6)]
    learned_from: list[int] = []

    class Counting(BagOfWords):
        def fit(self, images: Sequence[np.ndarray], seed: int, threads: int = 1) -> dict[str, np.ndarray]:
            learned_from.append(sum(map(len, images)))
            return super().fit(images, seed, threads)

    describe = EXTRACTORS["sift"].build(Setup()).describe
    for sample in (60, 600):
        LocalFeatures("toy", describe, Counting(8), 0, 0.0, 0, fit_images=6, seed=0, sample=sample).fit(
            split_of(scenes)
        )
    assert learned_from[0] == 60
    assert 60 < learned_from[1] <= 600


@pytest.mark.parametrize("power", [0, -1, 1.5])
def test_a_power_that_is_none_is_refused(power: float) -> None:
    with pytest.raises(BenchError, match=r"must be above 0 and at most 1"):
        EXTRACTORS["sift"].build(Setup(), power=power)


@pytest.mark.parametrize("option", ["words", "side", "keypoints", "fit_images", "sample", "reduce", "whiten"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"sift: {option}=-1"):
        EXTRACTORS["sift"].build(Setup(), **{option: -1})
