"""What extractors take for a picture: pixels as `decode` gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from retrieval_bench.core import BenchError


def pictures(images: Iterable[np.ndarray], first: int = 0) -> Iterator[np.ndarray]:
    """Give pictures one by one, each as it is.

    An array of another kind may well be described, wrongly: red taken for a fourth channel, rows for channels.

    Args:
        images: each (height, width, 3) uint8, RGB.
        first: the number of the first of them, for the sentence.

    Yields:
        Each of them.

    Raises:
        BenchError: One is no such array, or has no pixel.
    """
    for number, image in enumerate(images, first):
        if not (
            isinstance(image, np.ndarray)
            and image.dtype == np.uint8
            and image.ndim == 3
            and image.shape[2] == 3
            and image.size
        ):
            raise BenchError(
                f"picture {number} is {_said(image)}; a picture is a (height, width, 3) array of uint8, in RGB, "
                "and transform takes a list of them; images.decoding.decode makes one of the bytes of a file"
            )
        yield image


def _said(image: object) -> str:
    if isinstance(image, np.ndarray):
        return f"an array of {image.dtype} of the shape {image.shape}"
    return f"of the type {type(image).__name__}"
