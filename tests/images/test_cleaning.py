"""What every cleaning keeps to, and what each does by its definition; a new one is found through its registry."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.images.cleaning import CleanedImages, in_turn
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.registry import CLEANINGS, Entry
from retrieval_bench.system.timing import pinned
from tests.support.blocks import blank, scene

WAYS = [(entry.name, {}) for entry in CLEANINGS.fill().own()] + [("denoise", {"by": "nlmeans"})]
EACH = pytest.mark.parametrize(("name", "options"), WAYS, ids=[f"{name}{options or ''}" for name, options in WAYS])


def build(name: str, **options: Any) -> Any:
    return CLEANINGS[name].build(**options)


def framed(content: np.ndarray, colour: int = 255, top: int = 9, bottom: int = 5, left: int = 3, right: int = 7) -> Any:
    return cv2.copyMakeBorder(content, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(colour,) * 3)


def odd() -> list[np.ndarray]:
    grey = np.repeat(scene(3)[:, :, :1], 3, axis=2)
    some = [
        blank(1, 1, 0),
        blank(1, 1, 255),
        blank(40, 30, 90),
        blank(1, 500, 7),
        blank(2, 3, 5),
        grey,
        scene(4)[:, ::-1],
    ]
    return [*some, scene(5, 12, 300)[:3], scene(6, 300, 12)[:, :3], framed(scene(7))]


@EACH
def test_odd_pictures_come_out_as_pictures(name: str, options: dict[str, Any]) -> None:
    clean = build(name, **options)
    for image in odd():
        before = image.copy()
        image.setflags(write=False)
        cleaned = clean(image)
        assert cleaned.dtype == np.uint8
        assert cleaned.ndim == 3
        assert cleaned.shape[2] == 3
        assert min(cleaned.shape) >= 1
        assert name == "trim" or cleaned.shape == image.shape
        np.testing.assert_array_equal(image, before)


@EACH
def test_a_plain_picture_stays_plain(name: str, options: dict[str, Any]) -> None:
    for grey in (0, 90, 255):
        cleaned = build(name, **options)(blank(40, 30, grey))
        assert cleaned.shape == (40, 30, 3)
        assert len(np.unique(cleaned)) == 1


@EACH
def test_the_same_picture_comes_out_whatever_the_threads(name: str, options: dict[str, Any]) -> None:
    image = scene(8, 150, 210)
    found = []
    for threads in (1, 2, 1):
        with pinned(threads):
            found.append(build(name, **options)(image))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("denoise", {"strength": 256.0}, "strength=256 is not between 0 and 255"),
        ("denoise", {"radius": 0}, "radius=0 is not between 1 and 15"),
        ("contrast", {"clip": 0.5}, "clip=0.5 is not between 1 and 40"),
        ("contrast", {"tiles": 0}, "tiles=0 is not between 1 and 64"),
        ("greyworld", {"most": 0.5}, "most=0.5 must be at least 1"),
        ("trim", {"tolerance": 256}, "tolerance=256 is not between 0 and 255"),
        ("trim", {"least": 1.5}, "least=1.5 is no share"),
    ],
)
def test_options_out_of_range_are_one_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        build(name, **options)


@pytest.mark.parametrize(
    ("entry", "option"),
    [
        (entry, name)
        for entry in CLEANINGS.own()
        for name, one in entry.options.items()
        if not isinstance(one.default, str)
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_every_number_has_limits(entry: Entry, option: str) -> None:
    with pytest.raises(BenchError, match=rf"{entry.name}: {option}=-1"):
        entry.build(**{option: -1})


# --- denoise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "share"), [({"strength": 40.0}, 0.6), ({"by": "nlmeans", "strength": 12.0}, 0.6)], ids=str
)
def test_noise_goes_and_edges_stay(options: dict[str, Any], share: float) -> None:
    true = np.repeat(np.where(np.arange(80) < 40, 60, 200)[None, :, None], 60, axis=0).repeat(3, axis=2)
    noisy = np.clip(true + np.random.default_rng(0).normal(0, 10, true.shape), 0, 255).astype(np.uint8)
    cleaned = build("denoise", **options)(noisy).astype(float)
    assert np.abs(cleaned - true).mean() < share * np.abs(noisy.astype(float) - true).mean()
    assert cleaned[:, :39].max() < 130 < cleaned[:, 41:].min()


def test_the_bilateral_filter_is_its_definition() -> None:
    image = scene(9, 30, 25)
    strength, radius = 30.0, 2
    padded = np.pad(image.astype(float), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    total, weights = np.zeros(image.shape), np.zeros(image.shape[:2])
    for down in range(-radius, radius + 1):
        for across in range(-radius, radius + 1):
            if down * down + across * across > radius * radius:  # neighbours lie in a circle
                continue
            near = padded[radius + down : radius + down + 30, radius + across : radius + across + 25]
            apart = np.abs(near - image).sum(axis=2)
            weight = np.exp(-(down**2 + across**2) / (2 * (radius / 2) ** 2) - apart**2 / (2 * strength**2))
            total += weight[..., None] * near
            weights += weight
    cleaned = build("denoise", strength=strength, radius=radius)(image)
    assert np.abs(cleaned - total / weights[..., None]).max() <= 1


# --- contrast ---------------------------------------------------------------------------------------------------------


def test_contrast_grows_where_there_is_little_and_colours_stay() -> None:
    dim = (100 + scene(10).astype(float) * 0.1).astype(np.uint8)
    cleaned = build("contrast")(dim)
    before, after = (cv2.cvtColor(one, cv2.COLOR_RGB2LAB).astype(float) for one in (dim, cleaned))
    assert after[..., 0].std() > 1.5 * before[..., 0].std()
    assert np.abs(after[..., 1:] - before[..., 1:]).mean() < 3
    assert build("contrast", clip=8.0)(dim).std() > cleaned.std()


# --- greyworld --------------------------------------------------------------------------------------------------------


def test_a_grey_picture_is_balanced_already() -> None:
    grey = np.repeat(scene(11)[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(build("greyworld")(grey), grey)


def test_means_of_channels_become_one_and_twice_is_once() -> None:
    image = (scene(12).astype(float) * [0.5, 0.4, 0.3]).astype(np.uint8)
    assert np.ptp(image.mean(axis=(0, 1))) > 10
    cleaned = build("greyworld")(image)
    assert np.ptp(cleaned.mean(axis=(0, 1))) < 1
    assert np.abs(build("greyworld")(cleaned).astype(int) - cleaned).max() <= 1


def test_tinted_light_is_taken_out_of_a_grey_scene() -> None:
    grey = np.repeat(scene(13)[:, :, :1], 3, axis=2) // 2
    tinted = np.rint(grey * [1.3, 1.0, 0.8]).astype(np.uint8)
    cleaned = build("greyworld")(tinted).astype(int)
    assert np.abs(cleaned - cleaned.mean(axis=2, keepdims=True)).max() <= 2


def test_no_factor_is_beyond_the_limit_and_darkness_stays() -> None:
    red = np.zeros((10, 10, 3), np.uint8)
    red[..., 0] = 200
    red[..., 1] = 5
    np.testing.assert_array_equal(build("greyworld", most=2.0)(red)[0, 0], [100, 10, 0])


# --- trim -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colour", [255, 0, 128])
def test_a_frame_is_cut_off_to_the_content_and_twice_is_once(colour: int) -> None:
    content = scene(14)
    content[[0, -1]], content[:, [0, -1]] = [40, 90, 200], [40, 90, 200]
    once = build("trim")(framed(content, colour))
    np.testing.assert_array_equal(once, content)


def test_a_frame_saved_as_jpeg_is_cut_off() -> None:
    content = np.random.default_rng(1).integers(0, 100, (40, 56, 3), dtype=np.uint8)
    white = framed(content, 255, 24, 24, 16, 16)
    saved = cv2.imdecode(cv2.imencode(".jpg", white, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)
    assert build("trim")(saved).shape == content.shape


def test_black_bars_within_white_bars_are_cut_off_in_any_order() -> None:
    content = np.random.default_rng(2).integers(30, 200, (30, 40, 3), dtype=np.uint8)
    bars = framed(framed(content, 0, 8, 8, 0, 0), 255, 0, 0, 6, 6)
    for picture in (bars, bars.transpose(1, 0, 2)):
        assert sorted(build("trim")(picture).shape) == [3, 30, 40]


def test_a_gradient_is_not_followed_beyond_the_tolerance() -> None:
    gradient = np.repeat(np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 50, axis=1), 3, axis=2)
    cleaned = build("trim", tolerance=12)(gradient)
    np.testing.assert_array_equal(cleaned, gradient[13:-13])


@pytest.mark.parametrize("least", [0.5, 1.0])
def test_what_would_leave_too_little_stays_whole(least: float) -> None:
    speck = blank(100, 100, 255).copy()
    speck[45:55, 45:55] = 0
    assert build("trim", least=0.0)(speck).shape == (10, 10, 3)
    assert build("trim", least=least)(speck).shape == (100, 100, 3)
    assert build("trim")(blank(100, 100, 255)).shape == (100, 100, 3)


# --- images -----------------------------------------------------------------------------------------------------------


def test_cleaned_images_are_cleaned_when_read_and_have_names_of_their_own() -> None:
    images = ImageBytes([encode_png(framed(scene(seed))) for seed in range(3)])
    clean = in_turn([build("trim"), build("greyworld")])
    cleaned = CleanedImages(images, "trim@greyworld", clean)
    assert len(cleaned) == 3
    np.testing.assert_array_equal(cleaned[1], build("greyworld")(build("trim")(images[1])))
    np.testing.assert_array_equal(ImageBytes([cleaned.read(1)])[0], cleaned[1])
    names = {some.digest(1) for some in (images, cleaned, CleanedImages(images, "trim", clean))}
    assert len(names) == 3
    assert cleaned.take([2, 1]).digest(1) == cleaned.digest(1)
