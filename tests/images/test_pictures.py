"""What is a picture, and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BenchError
from retrieval_bench.images.pictures import pictures

PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("view", [PICTURE, PICTURE[::-1], np.asfortranarray(PICTURE), PICTURE[:1, :1]])
def test_a_picture_comes_back_as_it_is(view: np.ndarray) -> None:
    assert [one is view for one in pictures([view, view])] == [True, True]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (PICTURE[:, :, 0], r"an array of uint8 of the shape \(4, 5\)"),
        (PICTURE[:0], r"an array of uint8 of the shape \(0, 5, 3\)"),
        (PICTURE[:, :, :2], r"an array of uint8 of the shape \(4, 5, 2\)"),
        (PICTURE.astype(np.float32), r"an array of float32 of the shape \(4, 5, 3\)"),
        (PICTURE.tolist(), "of the type list"),
        (Image.fromarray(PICTURE), "of the type Image"),
        ("a.jpg", "of the type str"),
        (None, "of the type NoneType"),
    ],
)
def test_anything_else_is_named_and_refused(wrong: object, said: str) -> None:
    with pytest.raises(BenchError, match=f"picture 1 is {said}; a picture is a "):
        list(pictures([PICTURE, wrong]))  # type: ignore[list-item]
