"""The numbers in the definitions of jpeg, blur and brightness are those of the pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.images.decoding import decode
from retrieval_bench.images.perturbations import SEVERITIES, perturbed
from tests.support.shop import picture


def test_jpeg_halves_the_colour_and_keeps_the_light() -> None:
    """Columns of two colours in turn: half the colours of a row are their mean, so none of the two is left."""
    stripes = np.empty((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 100, 100), (100, 138, 138)  # nearly the same light
    saved = perturbed("jpeg", stripes, 1).astype(int)
    red_over_green = saved[:, :, 0] - saved[:, :, 1]
    assert abs(red_over_green[:, ::2].mean() - red_over_green[:, 1::2].mean()) < 20  # 138 before
    grey = np.repeat(stripes[:, :, :1], 3, axis=2)
    light = perturbed("jpeg", grey, 1).astype(int)[:, :, 0]
    assert light[:, ::2].mean() - light[:, 1::2].mean() > 80  # 100 before


@pytest.mark.parametrize(("severity", "quality"), list(zip(SEVERITIES, (40, 25, 15, 10, 5), strict=True)))
def test_jpeg_is_saved_with_these_qualities(severity: int, quality: int) -> None:
    pixels, buffer = picture(2, 7, 64), io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=2)
    assert np.array_equal(perturbed("jpeg", pixels, severity), decode(buffer.getvalue()))


@pytest.mark.parametrize(("severity", "percent"), list(zip(SEVERITIES, (0.45, 0.9, 1.35, 1.8, 2.7), strict=True)))
def test_blur_spreads_an_edge_by_its_sigma(severity: int, percent: float) -> None:
    """What stands on an edge after it was blurred is the distribution function of the Gaussian."""
    edge = np.zeros((400, 500, 3), np.uint8)
    edge[:, 250:] = 255
    share = np.diff(perturbed("blur", edge, severity)[200, :, 0].astype(float)) / 255
    at = np.arange(len(share)) - 249
    assert (share * at).sum() == pytest.approx(0, abs=0.05)
    assert np.sqrt((share * at**2).sum()) == pytest.approx(percent / 100 * 400, rel=0.04)


@pytest.mark.parametrize(("severity", "factor"), list(zip(SEVERITIES, (1.3, 1.6, 2, 2.6, 3.5), strict=True)))
def test_brightness_multiplies_or_divides_by_these(severity: int, factor: float) -> None:
    seen = {
        int(perturbed("brightness", np.full((4, 4, 3), 60, np.uint8), severity, seed)[0, 0, 0]) for seed in range(20)
    }
    assert seen == {round(60 * factor), round(60 / factor)}
