"""phash's bits are imagehash's also where frequencies lie at their median, which rounding decides on."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from PIL import Image

from retrieval_bench.extractors.hashes.imagehash import frequency_bits


def pictures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 200
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    return {
        "noise": noise,
        "plain": np.full((50, 50, 3), 90, np.uint8),
        "black": np.zeros((50, 50, 3), np.uint8),
        "half": half,  # most frequencies are 0, and so is their median
        "ramp": ramp,
        "mirrored": np.concatenate([noise, noise[:, ::-1]], axis=1),  # every other frequency is 0
        "mirrored twice": np.concatenate([noise, noise[::-1]], axis=0)[:, :64],
    }


@pytest.mark.parametrize("size", [2, 3, 8, 11, 64])
def test_every_bit_is_imagehashs(size: int) -> None:
    for name, image in pictures().items():
        expected = imagehash.phash(Image.fromarray(image), hash_size=size).hash
        np.testing.assert_array_equal(frequency_bits(image, size), expected, err_msg=name)


def test_imagehash_is_asked_only_where_rounding_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = imagehash.phash
    monkeypatch.setattr(imagehash, "phash", lambda *words, **named: asked.append(1) or real(*words, **named))
    found = {}
    for name, image in pictures().items():
        asked.clear()
        frequency_bits(image, 8)
        found[name] = bool(asked)
    assert not found["noise"]
    assert all(found[name] for name in ("plain", "half", "ramp"))
