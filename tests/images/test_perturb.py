from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Images
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.perturbations import (
    SEVERITIES,
    Perturbed,
    parse_severities,
    perturbed,
)
from retrieval_bench.registry import PERTURBATIONS
from retrieval_bench.texts.perturbations import levels, parse_perturbations
from tests.support.pictures import flat_pictures, pictures
from tests.support.shop import picture, shop

IMAGES = frozenset(("image",))
NAMES = ("rotate", "crop", "jpeg", "blur", "noise", "brightness", "occlude", "flip", "background")


def test_the_nine_are_there() -> None:
    assert tuple(entry.name for entry in PERTURBATIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_any_picture_stays_a_picture(name: str) -> None:
    for pixels in [*pictures(), *flat_pictures()]:
        before = pixels.copy()
        for severity in (1, 5):
            after = perturbed(name, pixels, severity)
            assert after.dtype == np.uint8
            assert after.flags.c_contiguous
            assert after.shape == pixels.shape or (name == "crop" and min(after.shape) >= 1)
        assert (pixels == before).all()


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_pure_function_of_pixels_severity_and_seed(name: str) -> None:
    pixels = picture(2, 7, 64)
    again = perturbed(name, pixels.copy(), 4, 3)
    assert np.array_equal(perturbed(name, pixels, 4, 3), again)
    np.random.default_rng(0).random()
    assert np.array_equal(perturbed(name, np.asfortranarray(pixels), 4, 3), again)
    assert not np.array_equal(again, pixels)


@pytest.mark.parametrize("name", ["rotate", "crop", "noise", "brightness", "occlude", "background"])
def test_other_pictures_and_other_seeds_draw_anew(name: str) -> None:
    pixels = picture(2, 7, 64)
    drawn = {perturbed(name, pixels, 3, seed).tobytes() for seed in range(12)}
    assert len(drawn) > 1
    sides = set()
    for number in range(12):  # the same picture but for one sample
        other = pixels.copy()
        other[0, 0, 0] = number
        sides.add(perturbed(name, other, 3)[4:, 4:].tobytes())
    assert len(sides) > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("flip", "crop", "rotate")])
def test_a_higher_severity_changes_more(name: str) -> None:
    changes = []
    for severity in SEVERITIES:
        all_changes = []
        for label in range(4):
            pixels = picture(label, 1, 96)
            all_changes.append(np.abs(perturbed(name, pixels, severity).astype(int) - pixels).mean())
        changes.append(np.mean(all_changes))
    assert changes == sorted(changes)
    assert changes[0] > 0
    assert changes[-1] > 1.3 * changes[0]


def test_the_severities_are_what_their_names_say() -> None:
    pixels = picture(1, 1, 100)
    areas = [perturbed("crop", pixels, severity).shape[:2] for severity in SEVERITIES]
    assert [round(h * w / 10_000, 2) for h, w in areas] == pytest.approx([0.85, 0.70, 0.55, 0.40, 0.25], abs=0.02)
    grey = [(perturbed("occlude", np.zeros((100, 100, 3), np.uint8), s) == 128).mean() for s in SEVERITIES]
    assert grey == pytest.approx([0.05, 0.10, 0.20, 0.30, 0.40], abs=0.01)
    middle = np.full((200, 200, 3), 100, np.uint8)
    noisy = perturbed("noise", middle, 2).astype(float) - 100
    assert noisy.std() == pytest.approx(0.12 * 255, rel=0.02)
    black = np.zeros((200, 200, 3), np.uint8)
    for severity, share in zip(SEVERITIES, (0.10, 0.20, 0.35, 0.50, 0.65), strict=True):
        changed = (perturbed("background", black, severity) > 0).any(axis=2)
        assert changed.mean() == pytest.approx(share, abs=0.06)
        assert not changed[90:110, 90:110].any()


def test_what_is_drawn_does_not_depend_on_the_severity() -> None:
    """A darker picture grows darker, not brighter, along its curve."""
    pixels = np.full((20, 20, 3), 100, np.uint8)
    for seed in range(6):
        means = [perturbed("brightness", pixels, severity, seed).mean() for severity in SEVERITIES]
        assert means == sorted(means) or means == sorted(means, reverse=True)


def test_flip_is_the_mirror_image_and_its_own_inverse() -> None:
    pixels = picture(3, 1)
    assert np.array_equal(perturbed("flip", pixels, 1), pixels[:, ::-1])
    assert np.array_equal(perturbed("flip", perturbed("flip", pixels, 2), 5), pixels)
    assert levels("flip", (2, 3, 5)) == (1,)
    assert levels("blur", (2, 3, 5)) == (2, 3, 5)


def test_rotate_turns_about_the_middle() -> None:
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[48:53, 48:53] = 255
    for severity in SEVERITIES:
        turned = perturbed("rotate", dot, severity)[:, :, 0].astype(float)
        centre = [(turned.sum(axis=axis) * np.arange(101)).sum() / turned.sum() for axis in (0, 1)]
        assert centre == pytest.approx([50, 50], abs=0.3)
    bar = np.zeros((101, 101, 3), np.uint8)
    bar[49:52, 20:81] = 255
    for severity, degrees in zip(SEVERITIES, (5, 10, 20, 40, 80), strict=True):
        y, x = np.nonzero(perturbed("rotate", bar, severity)[:, :, 0] > 128)
        slope = np.degrees(np.arctan2(*np.linalg.svd(np.stack([y - y.mean(), x - x.mean()]))[0][:, 0]))
        assert min(abs(slope) % 180, 180 - abs(slope) % 180) == pytest.approx(degrees, abs=1)


def test_perturbed_images_have_digests_of_their_own() -> None:
    images: Images = shop().query.images
    wrapped = Perturbed(images, "blur", 2, 0)
    others = [Perturbed(images, "blur", 3, 0), Perturbed(images, "noise", 2, 0), Perturbed(images, "blur", 2, 1)]
    digests = {each.digest(0) for each in (images, wrapped, *others)}
    assert len(digests) == 5
    assert len(wrapped) == len(images)
    assert np.array_equal(wrapped[1], perturbed("blur", images[1], 2))
    assert np.array_equal(decode(wrapped.read(1)), wrapped[1])
    assert wrapped.take([2, 1]).digest(1) == wrapped.digest(1)


def test_mistakes_are_one_sentence() -> None:
    assert parse_perturbations("all", IMAGES) == NAMES
    assert parse_perturbations(" blur,rotate,blur", IMAGES) == ("blur", "rotate")
    assert parse_severities("5,1,3,1") == (1, 3, 5)
    with pytest.raises(BenchError, match="did you mean 'rotate'"):
        parse_perturbations("rotat", IMAGES)
    with pytest.raises(BenchError, match="names nothing"):
        parse_perturbations(" , ", IMAGES)
    for text in ("0", "1,6", "", "a"):
        with pytest.raises(BenchError, match="from 1"):
            parse_severities(text)
    with pytest.raises(BenchError, match="severity 6 of blur"):
        perturbed("blur", np.zeros((4, 4, 3), np.uint8), 6)
