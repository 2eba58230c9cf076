"""Images made different at random: crop, flip, turn, colour, noise, a hole; on whole batches of tensors.

Where and how an image is cut, turned and scaled is one affine map, so that it is sampled once, and all changes of
colour are one 3 x 3 matrix and an offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from retrieval_bench.core import BenchError

GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augment:
    """How far an image may be changed; 0 leaves that out.

    crop: smallest share of the area that a crop keeps, above 0; 1 keeps all ("random resized crop", Szegedy et al.,
        CVPR 2015). flip: probability of the mirror image. rotate: most degrees to either side. colour: most that
        brightness, contrast and saturation change, as a share. hue: most that hue turns, as a share of a whole turn.
    noise: most standard deviation of Gaussian noise, of the range 0..1. erase: probability of a grey hole (Zhong et
        al., AAAI 2020).
    """

    crop: float = 0.35
    flip: float = 0.5
    rotate: float = 10.0
    colour: float = 0.3
    hue: float = 0.02
    noise: float = 0.03
    erase: float = 0.0

    def __post_init__(self) -> None:
        limits = {"flip": 1, "rotate": 180, "colour": 1, "hue": 0.5, "noise": 1, "erase": 1}
        for name, most in limits.items():
            if not 0 <= getattr(self, name) <= most:
                raise BenchError(f"augmentation {name}={getattr(self, name):g} is outside 0..{most:g}")
        if not 0 < self.crop <= 1:
            raise BenchError(f"augmentation crop={self.crop:g} must be above 0 and at most 1, the share that is kept")


NONE = Augment(crop=1, flip=0, rotate=0, colour=0, hue=0, noise=0)


def parse_augment(text: str) -> Augment:
    """Read "crop=0.5,rotate=15": the default with these changed; "none" changes no image."""
    if text.strip() == "none":
        return NONE
    names = [field.name for field in fields(Augment)]
    given: dict[str, float] = {}
    for pair in (part.strip() for part in text.split(",") if part.strip()):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name not in names:
            raise BenchError(f"--augment {pair!r}: unknown; write none, or any of {', '.join(names)} as name=number")
        try:
            given[name] = float(value)
        except ValueError:
            raise BenchError(f"--augment {pair!r}: {value!r} is not a number; write e.g. {name}=0.2") from None
    return replace(Augment(), **given)


def augmented(images: Sequence[Any], side: int, how: Augment, generator: Any) -> Any:
    """n uint8 tensors (3, h, w) of any sizes -> (n, 3, side, side) float32 in 0..1.

    generator: the torch.Generator that all is drawn from; as many numbers for every image, whatever it looks like.
    """
    import torch
    from torch.nn import functional

    n = len(images)
    drawn = torch.rand(n, 16, generator=generator)
    maps = _maps(images, drawn, how)
    out = torch.empty(n, 3, side, side)
    for row, image in enumerate(images):
        grid = functional.affine_grid(maps[row : row + 1], [1, 3, side, side], align_corners=False)
        # Beyond the border the image is mirrored: black corners would tell that an image was turned.
        out[row : row + 1] = functional.grid_sample(
            image[None].float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )
    out /= 255.0
    if how.colour or how.hue:
        matrix, offset = _colours(out, drawn, how)
        out = torch.baddbmm(offset, matrix, out.flatten(2)).view_as(out)
    if how.noise:
        sigma = drawn[:, 10] * how.noise
        out += torch.randn(out.shape, generator=generator) * sigma[:, None, None, None]
    if how.erase:
        _erase(out, drawn, how.erase)
    return out.clamp_(0, 1)


def _maps(images: Sequence[Any], drawn: Any, how: Augment) -> Any:
    """(n, 2, 3): output positions to input positions, both from -1 to 1 (torch's affine_grid)."""
    import torch

    height = torch.tensor([float(image.shape[1]) for image in images])
    width = torch.tensor([float(image.shape[2]) for image in images])
    # A crop of area `kept` of the largest square, and of an aspect ratio from 3/4 to 4/3, as far as it fits.
    kept = how.crop + (1 - how.crop) * drawn[:, 0]
    stretch = torch.exp((drawn[:, 1] * 2 - 1) * math.log(4 / 3) * (1.0 if how.crop < 1 else 0.0))
    short = torch.minimum(height, width)
    across = torch.minimum(short * (kept * stretch).sqrt(), width)
    down = torch.minimum(short * (kept / stretch).sqrt(), height)
    random_place = 1.0 if how.crop < 1 else 0.0
    x = (drawn[:, 2] * 2 - 1) * (1 - across / width) * random_place
    y = (drawn[:, 3] * 2 - 1) * (1 - down / height) * random_place
    mirror = torch.where(drawn[:, 4] < how.flip, -1.0, 1.0)
    angle = torch.deg2rad((drawn[:, 5] * 2 - 1) * how.rotate)
    cos, sin = angle.cos(), angle.sin()
    # Turned in pixels, not in the coordinates from -1 to 1, which are stretched where an image is not square.
    first = torch.stack([across * cos * mirror / width, -down * sin / width, x], dim=1)
    second = torch.stack([across * sin * mirror / height, down * cos / height, y], dim=1)
    return torch.stack([first, second], dim=1)


def _colours(images: Any, drawn: Any, how: Augment) -> tuple[Any, Any]:
    """(n, 3, 3) matrices and (n, 3, 1) offsets: brightness, contrast, saturation and hue in one."""
    import torch

    n = len(images)
    brightness, contrast, saturation = (1 + (drawn[:, column] * 2 - 1) * how.colour for column in (6, 7, 8))
    turn = (drawn[:, 9] * 2 - 1) * how.hue * 2 * math.pi
    grey = torch.tensor(GREY)
    to_grey = grey.expand(3, 3)
    # Hue turns about the axis of greys: Rodrigues' formula.
    axis = torch.ones(3) / math.sqrt(3)
    x, y, z = axis.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    hue = cos * torch.eye(3) + sin * cross + (1 - cos) * torch.outer(axis, axis)
    saturate = saturation[:, None, None] * torch.eye(3) + (1 - saturation)[:, None, None] * to_grey
    matrix = saturate @ hue * (brightness * contrast)[:, None, None]
    mean = torch.einsum("c,nc->n", grey, images.mean(dim=(2, 3))) * brightness
    offset = ((1 - contrast) * mean)[:, None, None].expand(n, 3, 1)
    return matrix, offset


def _erase(images: Any, drawn: Any, probability: float) -> None:
    """A grey rectangle of 5 to 30 % of the area, in place."""
    side = images.shape[2]
    for row, numbers in enumerate(drawn.tolist()):
        chance, size, stretch, down, across = numbers[11:]
        if chance < probability:
            area, ratio = 0.05 + 0.25 * size, math.exp((stretch * 2 - 1) * math.log(2))
            height, width = (min(side, max(1, round(side * math.sqrt(area * r)))) for r in (ratio, 1 / ratio))
            top, left = round(down * (side - height)), round(across * (side - width))
            images[row, :, top : top + height, left : left + width] = 0.5
