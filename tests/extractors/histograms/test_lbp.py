from __future__ import annotations

import numpy as np
import pytest
from skimage.feature import local_binary_pattern

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.histograms.lbp import PATTERNS, binary_patterns, uniform
from retrieval_bench.registry import EXTRACTORS


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (3, 2), (40, 57)])
@pytest.mark.parametrize("radius", [1, 1.5, 2, 3, 5])
@pytest.mark.parametrize("levels", [1, 3, 256])
def test_patterns_equal_scikit_image(shape: tuple[int, int], radius: float, levels: int) -> None:
    luma = (np.random.default_rng(levels).integers(0, levels, shape) * (255 // levels) + 7 // levels).astype(np.uint8)
    theirs = local_binary_pattern(luma, 8, radius)
    np.testing.assert_array_equal(binary_patterns(luma, radius), theirs)


def test_patterns_equal_a_slow_twin() -> None:
    luma = np.random.default_rng(1).integers(0, 256, (9, 11), dtype=np.uint8)
    # At radius 1 the even points lie on pixels: right, up, left, down.
    expected = np.zeros((9, 11, 4), bool)
    for y in range(9):
        for x in range(11):
            for bit, (down, across) in enumerate([(0, 1), (-1, 0), (0, -1), (1, 0)]):
                inside = 0 <= y + down < 9 and 0 <= x + across < 11
                expected[y, x, bit] = (luma[y + down, x + across] if inside else 0) >= luma[y, x]
    codes = binary_patterns(luma, 1)
    np.testing.assert_array_equal((codes[..., None] >> np.array([0, 2, 4, 6]) & 1).astype(bool), expected)


def test_uniform_bins_part_the_patterns_as_scikit_image_does() -> None:
    luma = np.random.default_rng(2).integers(0, 256, (200, 200), dtype=np.uint8)
    ours = uniform()[binary_patterns(luma, 1)].ravel().astype(int)
    theirs = local_binary_pattern(luma, 8, 1, "nri_uniform").ravel().astype(int)
    pairs = set(zip(ours, theirs, strict=True))
    assert len(pairs) == len(set(ours)) == len(set(theirs)) == PATTERNS == 59


def test_rows_have_norm_one_and_tell_textures_apart() -> None:
    extractor = EXTRACTORS["lbp"].build(Setup())
    saw = np.tile((np.arange(64) % 8 * 20).astype(np.uint8)[:, None, None], (1, 64, 3))
    shifted, turned = np.roll(saw, 2, axis=0), saw.transpose(1, 0, 2)
    rows = extractor.transform([saw, shifted, turned, np.full((1, 1, 3), 9, np.uint8)])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.05


@pytest.mark.parametrize("option", ["side=0", "radii=17", "levels=0"])
def test_options_out_of_range_are_refused(option: str) -> None:
    name, value = option.split("=")
    with pytest.raises(BenchError, match=f"lbp: {option} is not between 1 and"):
        EXTRACTORS["lbp"].build(Setup(), **{name: int(value)})
