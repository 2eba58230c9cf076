"""What a network wants done to an image before it looks: resize, crop, normalise. The figures are the network's own."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from retrieval_bench.core import BenchError
from retrieval_bench.images.resize import SHARP_BICUBIC, sharp_bicubic, shorter_side

MAX_ASPECT = 8
"""Of a longer image only the middle is used. Networks look at a central square, but resize all of it first."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LEAST_SIDE, LARGEST_SIDE = 16, 2048


@dataclass(frozen=True)
class Preprocess:
    """resize: pixels of the shorter side. crop: side of the central square that is cut out of it.

    whole: no crop, the shorter side becomes `crop`. squash: the whole image becomes a square of `crop`.
    mean, std: of each channel, for values 0 to 1. interpolation: a name of torchvision's InterpolationMode, or
    SHARP_BICUBIC.
    """

    resize: int
    crop: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    whole: bool = False
    squash: bool = False

    def __call__(self, image: Image.Image | np.ndarray) -> Any:
        """A picture, of PIL or (h, w, 3) uint8 -> (3, h, w) float32 tensor."""
        import cv2
        import torch

        # One look at a table for each value: the bits of torchvision's own sums, in a third of their time. What comes
        # out has its channels last in memory, as networks on the CPU want them.
        pixels = cv2.LUT(self._cut(image), _normalised(self.mean, self.std))
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def _cut(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Resized and cropped, (h, w, 3) uint8."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        crop = 0 if self.whole or self.squash else self.crop
        if self.interpolation == SHARP_BICUBIC:
            # Never by way of PIL: each copy to or from it stops all other threads.
            pixels = np.asarray(image)
            before = pixels.shape[1], pixels.shape[0]
            width, height = (self.crop, self.crop) if self.squash else shorter_side(before, self.shorter)
            pixels = sharp_bicubic(pixels, width, height)
            if crop <= min(width, height):
                return central(pixels, crop) if crop else pixels
            image = Image.fromarray(pixels)  # smaller than the crop: torchvision has its own way to fill up
        else:
            image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            size = [self.crop, self.crop] if self.squash else [self.shorter]
            image = F.resize(image, size, interpolation=InterpolationMode(self.interpolation), antialias=True)
        return np.asarray(F.center_crop(image, [crop, crop]) if crop else image)

    @property
    def shorter(self) -> int:
        """Pixels of the shorter side after the resizing."""
        return self.crop if self.squash or self.whole else self.resize

    def of_size(self, name: str, size: int) -> Preprocess:
        """The same, to images of this side; the crop takes the same share of the image."""
        if not LEAST_SIDE <= size <= LARGEST_SIDE:
            raise BenchError(f"{name}: size={size} is not between {LEAST_SIDE} and {LARGEST_SIDE} pixels")
        return replace(self, resize=max(size, round(self.resize * size / self.crop)), crop=size)

    def scaled(self, factor: float) -> Preprocess:
        """The same view of the image, in `factor` times as many pixels a side."""
        return replace(self, resize=round(self.resize * factor), crop=round(self.crop * factor))


@functools.cache
def _normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(1, 256, 3) float32: what torchvision makes of each value of each channel."""
    import torch
    from torchvision.transforms import functional as F

    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    table = F.normalize(F.convert_image_dtype(values), mean=list(mean), std=list(std))
    return np.ascontiguousarray(table.permute(1, 2, 0).numpy())


def of_recipe(recipe: Any) -> Preprocess:
    """From torchvision's preset for classification, whose figures belong to one set of weights."""
    (resize,), (crop,) = recipe.resize_size, recipe.crop_size
    return Preprocess(resize, crop, tuple(recipe.mean), tuple(recipe.std), recipe.interpolation.value)


def central(image: np.ndarray, side: int) -> np.ndarray:
    """The square that torchvision's `center_crop` cuts out of (h, w, 3), both of `side` or more; a view."""
    top, left = (round((length - side) / 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def not_too_long(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8; of an image longer than MAX_ASPECT times its width the middle alone."""
    limit = MAX_ASPECT * min(image.shape[:2])
    top, left = (max(0, length - limit) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + limit, left : left + limit])


def middle(image: np.ndarray) -> Image.Image:
    """The same as a PIL image.

    PIL and not a tensor: torchvision resizes the two a grey level apart, and the networks were trained on this one.
    """
    return Image.fromarray(not_too_long(image))
