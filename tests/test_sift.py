"""The `sift` method, and the bag of words that it shares with `hog`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.extractors import aggregate
from retrieval_bench.extractors.aggregate import SCALE, BagOfWords, learn_words, nearest_word, whole
from retrieval_bench.extractors.sift import root_sift
from retrieval_bench.images import ImageBytes, encode_png
from retrieval_bench.registry import EXTRACTORS


def descriptors(n: int, seed: int = 0, dimensions: int = 16) -> np.ndarray:
    """(n, dimensions) int16 whole descriptors; every fifth is a copy of the first."""
    unit = np.abs(np.random.default_rng(seed).normal(size=(n, dimensions)))
    unit[::5] = unit[:1]
    return whole(unit / np.linalg.norm(unit, axis=1, keepdims=True))


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


def numbers(image: np.ndarray) -> np.ndarray:
    """A stand-in for keypoints: each grey level g is a descriptor that points along axis g; level 3 is none at all."""
    levels = image[:, :, 0].ravel()
    return np.eye(4, dtype=np.float32)[levels[levels != 3]].astype(np.int16) * SCALE


def pixels(*levels: int) -> np.ndarray:
    return np.repeat(np.array([levels], np.uint8)[:, :, None], 3, axis=2)


def test_nearest_word_is_the_nearest_by_integer_arithmetic() -> None:
    found, words = descriptors(500), learn_words(descriptors(300, seed=1), 32, seed=0)
    distances = ((found[:, None].astype(np.int64) - words[None].astype(np.int64)) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest_word(found, words), distances.argmin(axis=1))


def test_equally_near_words_go_to_the_lower_one() -> None:
    words = np.array([[0, 4], [4, 0], [4, 0]], np.float32)
    assert nearest_word(np.array([[2, 2], [3, 1]], np.int16), words).tolist() == [0, 1]


def test_no_sum_can_leave_the_whole_numbers_of_float32() -> None:
    # |x| and |w| are at most SCALE plus the rounding of each of d coordinates by half.
    longest = SCALE + np.sqrt(4096) / 2
    assert 2 * 1.5 * longest**2 < 2**24


def test_words_are_whole_and_the_same_for_any_number_of_threads() -> None:
    found = descriptors(3000, dimensions=64)
    with threadpool_limits(1):
        one = learn_words(found, 50, seed=0)
    with threadpool_limits(2):
        two = learn_words(found, 50, seed=0)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, np.rint(one))
    assert one.shape == (50, 64)
    assert one.dtype == np.float32
    assert not np.array_equal(one, learn_words(found, 50, seed=1))


def test_fewer_descriptors_than_words_become_the_words() -> None:
    found = descriptors(10)  # of which two are equal
    words = learn_words(found, 64, seed=0)
    assert len(words) == 9
    assert {tuple(word) for word in words} == {tuple(map(float, row)) for row in found}


def test_whole_leaves_zero_rows_out_and_rounds() -> None:
    unit = np.array([[0.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    np.testing.assert_array_equal(whole(unit), [[614, 819], [1024, 0]])
    assert whole(np.empty((0, 5))).shape == (0, 5)


def test_bag_of_words_by_hand() -> None:
    train = split_of([pixels(0, 0, 1), pixels(0, 2), pixels(3), pixels(1, 0)])
    bags = BagOfWords("toy", numbers, words=10, fit_images=10, seed=0).fit(train)
    # Words in the order of np.unique: axis 2, axis 1, axis 0. They are in 1, 2 and 3 of the 4 images.
    np.testing.assert_array_equal(bags.words_ / SCALE, np.eye(4)[[2, 1, 0]])
    idf = np.log(1 + 4 / np.array([1, 2, 3]))
    np.testing.assert_allclose(bags.idf_, idf, rtol=1e-6)
    features = bags.transform([pixels(0, 1, 0, 0, 0), pixels(3), pixels(2)])
    wanted = np.array([0, 1, 2]) * idf
    np.testing.assert_allclose(features[0], wanted / np.linalg.norm(wanted), rtol=1e-6)
    np.testing.assert_array_equal(features[1:], [[0, 0, 0], [1, 0, 0]])


def test_fit_reads_no_more_images_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def describe(image: np.ndarray) -> np.ndarray:
        seen.append(int(image[0, 0, 0]))
        return descriptors(20, seed=seen[-1])

    train = split_of([pixels(level) for level in range(30)])
    monkeypatch.setattr(aggregate, "MAX_DESCRIPTORS", 60)
    bags = BagOfWords("toy", describe, words=64, fit_images=8, seed=5).fit(train)
    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen)
    assert len(bags.words_) < 60, "k-means must see the capped sample, which is smaller than the vocabulary"
    drawn = list(seen)
    BagOfWords("toy", describe, words=64, fit_images=8, seed=6).fit(train)
    assert seen[8:] != drawn


def test_training_images_without_keypoints_are_refused() -> None:
    blank = split_of([np.full((60, 60, 3), 200, np.uint8)] * 3)
    with pytest.raises(BenchError, match="sift: none of the 3 training images"):
        EXTRACTORS["sift"].build(Setup()).fit(blank)


def test_root_sift_is_the_square_root_of_the_shares() -> None:
    image = blobs(0)
    _, reference = cv2.SIFT.create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    found = root_sift(image, side=512, keypoints=0)
    assert len(reference) > 20
    wanted = np.sqrt(reference / reference.sum(axis=1, keepdims=True))
    assert np.abs(found / SCALE - wanted).max() <= 0.5 / SCALE + 1e-6
    assert np.linalg.norm(found, axis=1) == pytest.approx(SCALE, rel=0.01)


def test_side_and_keypoints_limit_the_work() -> None:
    image = blobs(1)
    everything = len(root_sift(image, side=512, keypoints=1000))
    assert 0 < len(root_sift(image, side=40, keypoints=1000)) < everything
    assert 10 <= len(root_sift(image, side=512, keypoints=10)) < everything
    enlarged = root_sift(image, side=10_000, keypoints=1000)
    assert len(enlarged) == everything


def test_a_view_is_nearer_to_its_own_scene_than_to_others() -> None:
    scenes = [blobs(seed) for seed in range(8)]
    method = EXTRACTORS["sift"].build(Setup(), words=64).fit(split_of(scenes))
    views = [np.ascontiguousarray(np.rot90(scene)) for scene in scenes]
    similar = method.transform(views) @ method.transform(scenes).T
    np.testing.assert_array_equal(similar.argmax(axis=1), np.arange(8))


@pytest.mark.parametrize("option", ["words", "side", "keypoints", "fit_images"])
def test_options_below_one_are_refused(option: str) -> None:
    with pytest.raises(BenchError, match=f"sift: {option}=-1"):
        EXTRACTORS["sift"].build(Setup(), **{option: -1})
