"""The images of a training, decoded once: as small as the network wants them, and kept while they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from retrieval_bench.core import Images
from retrieval_bench.images.resize import SHARP_BICUBIC, sharp_bicubic, shorter_side
from retrieval_bench.system.threads import mapped

MOST_BYTES = 4 << 30
"""Of pixels that are kept in memory. Images beyond it are decoded whenever they are wanted."""
MAX_ASPECT = 4
"""Of a longer image only the middle is used."""


class Frames:
    """images as uint8 tensors (3, h, w), their short side `short` pixels (antialiased, as the networks were taught).

    `frames[row]` may be called from several threads.
    """

    def __init__(
        self,
        images: Images,
        short: int,
        interpolation: str = "bilinear",
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._images, self._short, self._interpolation, self._left = images, short, interpolation, most_bytes
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Any:
        import torch

        kept = self._kept.get(row)
        if kept is not None:
            return kept
        frame = torch.from_numpy(resized(self._images[row], self._short, self._interpolation).transpose(2, 0, 1).copy())
        if frame.numel() <= self._left:
            self._left -= frame.numel()
            self._kept[row] = frame
        return frame

    def read(self, rows: Sequence[int], threads: int, progress: Callable[[int, int], None]) -> None:
        """Decode these now, on all threads. Images decode in the calling order as far as progress shows."""
        for done, _ in enumerate(mapped(self.__getitem__, rows, threads)):
            progress(done + 1, len(rows))


def resized(image: np.ndarray, short: int, interpolation: str = "bilinear") -> np.ndarray:
    """(h, w, 3) uint8 -> the same, its short side `short`; of one longer than MAX_ASPECT times its width the middle.

    interpolation: "sharp-bicubic" (see `images.resize.sharp_bicubic`) or the name of one of Pillow's.
    """
    limit = MAX_ASPECT * min(image.shape[:2])
    top, left = (max(0, length - limit) // 2 for length in image.shape[:2])
    image = image[top : top + limit, left : left + limit]
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    size = shorter_side((width, height), short)
    if size == (width, height):
        return image
    if interpolation == SHARP_BICUBIC:
        return sharp_bicubic(image, *size)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling[interpolation.upper()]))


def centre(frame: Any, side: int) -> Any:
    """(3, h, w) -> (3, side, side), the middle; mirrored beyond the border where it is smaller."""
    import torch

    height, width = frame.shape[1:]
    if min(height, width) < side:
        down, across = (max(0, side - length) for length in (height, width))
        frame = torch.nn.functional.pad(
            frame[None].float(), (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate"
        )[0].to(torch.uint8)
        height, width = frame.shape[1:]
    # torchvision's CenterCrop rounds so.
    top, left = round((height - side) / 2), round((width - side) / 2)
    return frame[:, top : top + side, left : left + side]
