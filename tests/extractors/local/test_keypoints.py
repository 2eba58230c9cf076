"""Keypoints in rows of fixed width: what goes in comes out, the strongest first, nothing for nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.core import BenchError, Extractor
from retrieval_bench.extractors.local.keypoints import MOST_SIDE, KeypointBlocks, Keypoints, pack, room, unpack, width
from tests.support.scenes import scene


def invented(n: int, seed: int = 0) -> Keypoints:
    rng = np.random.default_rng(seed)
    return Keypoints(
        rng.uniform(0, MOST_SIDE, (n, 2)).astype(np.float32),
        rng.uniform(1, 200, n).astype(np.float32),
        rng.uniform(0, 360, n).astype(np.float32),
        rng.integers(0, 256, (n, 128), dtype=np.uint8),
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 30), st.integers(0, 10), st.integers(0, 2**32 - 1))
def test_what_is_packed_is_unpacked(n: int, spare: int, seed: int) -> None:
    before = invented(n, seed)
    row = pack(before, n + spare)
    assert row.shape == (width(n + spare),)
    after = unpack(row)
    np.testing.assert_allclose(after.points, before.points, rtol=0, atol=0.5 / 64 + 1e-4)
    np.testing.assert_allclose(after.scales, before.scales, rtol=0, atol=0.5 / 64 + 1e-4)
    turned = np.abs(after.angles - before.angles)
    assert np.minimum(turned, 360 - turned).max(initial=0) < 360 / 65536
    np.testing.assert_array_equal(after.descriptors, before.descriptors)
    np.testing.assert_array_equal(pack(after, n + spare), row, "rounded once, not twice")


def test_the_layout_is_the_one_written_down() -> None:
    row = pack(
        Keypoints(
            np.array([[1.0, 2.0], [3.0, 4.0]], np.float32),
            np.array([8.0, 0.0], np.float32),
            np.array([90.0, 359.999], np.float32),
            np.array([[7] * 128, [9] * 128], np.uint8),
        ),
        keypoints=3,
    )
    numbers = np.array([2, 64, 128, 512, 16384, 192, 256, 1, 0, 0, 0, 0, 0], "<u2").view(np.uint8)
    np.testing.assert_array_equal(row, np.concatenate([numbers, np.repeat([7, 9, 0], 128).astype(np.uint8)]))


def test_more_keypoints_than_room_and_rows_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="5 keypoints for a row with room for 4"):
        pack(invented(5), 4)
    row = pack(invented(4), 4)
    with pytest.raises(ValueError, match="545 bytes"):
        unpack(row[:-1])
    row[0] = 5
    with pytest.raises(ValueError, match="say 5 keypoints"):
        unpack(row)
    assert [room(size) for size in (0, 1, 2, 137, 138, 274)] == [None, None, 0, None, 1, 2]


def test_they_are_the_strongest_of_opencv() -> None:
    image = scene(0)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    found, descriptors = cv2.SIFT.create(contrastThreshold=0.02).detectAndCompute(luma, None)
    assert len(found) > 100
    order = np.argsort([-keypoint.response for keypoint in found], kind="stable")[:40]
    ours = KeypointBlocks(side=1000, keypoints=40).find(image)
    assert len(ours.points) == 40
    expected = {(round(found[i].pt[0], 3), round(found[i].pt[1], 3), round(found[i].angle, 2)): i for i in order}
    keys = [
        (round(float(x), 3), round(float(y), 3), round(float(angle), 2))
        for (x, y), angle in zip(ours.points, ours.angles, strict=True)
    ]
    shared = [key for key in keys if key in expected]
    assert len(shared) >= 38, "all but those that are as strong as the last"
    strengths = [found[expected[key]].response for key in shared]
    assert strengths == sorted(strengths, reverse=True)
    for key in shared:
        share = descriptors[expected[key]] / descriptors[expected[key]].sum()
        root = np.minimum(np.rint(np.sqrt(share) * 512), 255)
        np.testing.assert_allclose(ours.descriptors[keys.index(key)], root, atol=1)


def test_places_are_in_pixels_of_the_shrunk_image() -> None:
    image = scene(1, 300, 600)
    found = unpack(KeypointBlocks(side=150, keypoints=300).transform([image])[0])
    assert len(found.points) > 30
    assert 75 < found.points[:, 0].max() < 150, "the longer side"
    assert found.points[:, 1].max() < 75, "the shape of the image is kept"


def test_it_is_an_extractor_and_a_row_depends_on_its_image_alone() -> None:
    blocks = KeypointBlocks(side=120, keypoints=50)
    assert isinstance(blocks, Extractor)
    images = [scene(seed) for seed in range(6)]
    images += [np.zeros((1, 1, 3), np.uint8), np.full((90, 90, 3), 200, np.uint8), scene(7, 3, 400)]
    together = blocks.transform(images)
    assert together.dtype == np.uint8
    assert together.shape == (9, width(50))
    assert together[:6, 0].min() > 5
    assert not together[6:].any(), "nothing to find is a zero row"
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda image: blocks.transform([image])[0], images * 3))
    np.testing.assert_array_equal(np.stack(alone), np.tile(together, (3, 1)))
    assert blocks.transform([]).shape == (0, width(50))


@pytest.mark.parametrize("options", [{"side": 0}, {"side": 1024}, {"keypoints": 0}, {"keypoints": 65536}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(BenchError, match=f"{name}={value} is not between 1 and"):
        KeypointBlocks(**options)


@pytest.mark.parametrize("contrast", [-0.1, 1.0, float("nan")])
def test_a_contrast_out_of_range_is_refused(contrast: float) -> None:
    with pytest.raises(BenchError, match="contrast"):
        KeypointBlocks(contrast=contrast)
