from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFilter

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.hashes.crop_resistant import CropResistant, crop_resistant, segment_boxes
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.search.index import topk
from tests.support.pictures import flat_pictures, photos, pictures


def blobs(seed: int, fineness: int, height: int = 240, width: int = 320) -> np.ndarray:
    """(height, width, 3) uint8: hills and valleys, the more the finer."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (fineness, fineness, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def hashes_of(row: np.ndarray, bits: int) -> list[np.ndarray]:
    width = -(-bits // 8)
    codes = row[1 : 1 + int(row[0]) * width].reshape(-1, width)
    assert not row[1 + codes.size :].any()
    return list(np.unpackbits(codes, axis=1, count=bits))


def assert_segments_of_imagehash(extractor: CropResistant, images: list[np.ndarray]) -> None:
    def dhash(image: Image.Image) -> imagehash.ImageHash:
        return imagehash.dhash(image, hash_size=extractor.size)

    for row, image in zip(extractor.transform(images), images, strict=True):
        wanted = imagehash.crop_resistant_hash(Image.fromarray(image), dhash, limit_segments=extractor.segments)
        found = hashes_of(row, extractor.size**2)
        assert len(found) == len(wanted.segment_hashes)
        for one, other in zip(found, wanted.segment_hashes, strict=True):
            np.testing.assert_array_equal(one, other.hash.ravel())


def build(text: str = "crop-resistant") -> CropResistant:
    return parse(EXTRACTORS, text).build(Setup())


PEER = pytest.mark.slow(reason="imagehash, the peer, takes seconds")
OTHER_OPTIONS = pytest.mark.long(reason="imagehash, the peer, takes seconds with each")


@pytest.mark.slow(reason="imagehash's own segments")
@pytest.mark.parametrize(
    "options",
    [
        "",
        *(pytest.param(options, marks=PEER) for options in (":segments=255", ":size=16")),
        *(pytest.param(options, marks=OTHER_OPTIONS) for options in (":segments=3", ":size=3:segments=5")),
    ],
)
def test_the_segments_are_those_of_imagehash(options: str) -> None:
    images = [blobs(seed, fineness) for seed, fineness in enumerate([2, 3, 6, 9, 14, 25])]
    assert_segments_of_imagehash(build(f"crop-resistant{options}"), images)


@PEER
@pytest.mark.long(reason="images of every shape, by imagehash and by us")
def test_so_they_are_for_images_of_every_shape() -> None:
    large = [image for image in [*pictures()[:6], *flat_pictures(), *pictures()[-2:]] if min(image.shape[:2]) > 6]
    assert len(large) > 12
    assert_segments_of_imagehash(build(), [*large, np.full((1, 1, 3), 200, np.uint8), blobs(0, 8, 2000, 60)])


@pytest.mark.long(reason="imagehash's own segments of large photographs")
def test_so_they_are_for_photos() -> None:
    assert_segments_of_imagehash(build("crop-resistant:segments=200"), photos(20))


def test_the_last_valleys_are_missed_as_in_imagehash() -> None:
    """A dark patch of 20 x 40 in the last corner: imagehash counts the frame as seen and stops before it."""
    image = np.full((300, 300, 3), 255, np.uint8)
    image[30:200, 30:200] = 0
    image[280:, 260:] = 0
    grey = Image.fromarray(image).convert("L")
    smooth = grey.filter(ImageFilter.GaussianBlur()).filter(ImageFilter.MedianFilter())
    everything = imagehash._find_all_segments(np.array(smooth, np.float32), 128, 0)
    assert len(everything) == len(segment_boxes(grey, 99)) == 2
    assert_segments_of_imagehash(build(), [image])


def test_equal_segments_keep_their_order() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    for row, column in [(20, 150), (20, 20), (150, 20), (150, 150)]:
        image[row : row + 80, column : column + 80] = 255
    image[60:70, 40:60] = 0
    assert_segments_of_imagehash(build(), [image])
    boxes = segment_boxes(Image.fromarray(image).convert("L"), 16)
    assert boxes[:, :2].tolist()[:4] == [[0, 0], [150, 20], [20, 150], [150, 150]]


def test_images_smaller_than_the_grid() -> None:
    """imagehash cuts segments of no pixel there and fails."""
    narrow = np.zeros((300, 2, 3), np.uint8)
    narrow[:, 1] = 255
    steps = np.zeros((2, 2, 3), np.uint8)
    steps[0, 0] = 255
    rows = build().transform([narrow, steps, steps[:1], steps[:, :1]])
    assert (rows[:, 0] >= 1).all()


def test_an_image_of_one_color_is_one_segment_without_bits() -> None:
    row = build().transform([np.full((50, 70, 3), 90, np.uint8)])[0]
    assert row[0] == 1
    assert not row[1:].any()


def test_no_image_gives_no_row() -> None:
    assert build("crop-resistant:segments=4:size=16").transform([]).shape == (0, 1 + 4 * 32)


def test_a_crop_finds_its_picture_where_one_hash_does_not() -> None:
    scenes = [blobs(seed, 7, 300, 400) for seed in range(30)]
    crops = [scene[:, 130:] for scene in scenes]  # a third is cut off
    by_segments, whole = build(), EXTRACTORS["dhash"].build(Setup())
    found = by_segments.searcher(by_segments.transform(scenes))(by_segments.transform(crops), 1).indices[:, 0]
    assert (found == np.arange(30)).mean() > 0.8
    found = topk(whole.transform(crops), whole.transform(scenes), 1, "hamming").indices[:, 0]
    assert (found == np.arange(30)).mean() < 0.2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"segments": 0}, "segments=0 is not between 1 and 255"),
        ({"segments": 256}, "segments=256 is not between 1 and 255"),
        ({"size": 1}, "size=1 is not between 2 and 64"),
        ({"errors": -0.1}, r"errors=-0\.1 is not a share"),
        ({"errors": 1.0}, r"errors=1\.0 is not a share"),
        ({"errors": float("nan")}, "errors=nan is not a finite number"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(BenchError, match=f"crop-resistant: {says}"):
        crop_resistant(Setup(), **options)  # type: ignore[arg-type]
