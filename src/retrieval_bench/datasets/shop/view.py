"""The parameters of a picture, and how those of a phone shot are drawn."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_bench.datasets.shop.drawing import Dice

SIZE = 224
"""Pictures are SIZE x SIZE pixels: a whole number of 16 x 16 JPEG units."""

SCENES = ("wood", "tiles", "cloth", "stone", "carpet", "shelf", "table", "planks")


@dataclass(frozen=True)
class View:
    """The parameters of one picture, as rendered.

    view: "catalogue" or "phone".
    rotation_deg: in the image plane, clockwise, -180..180.
    scale: the longer side of the product's bounding box over the picture's side, before perspective.
    perspective: depth of the far edge less that of the near edge, over their mean, 0..0.5; tilt_deg is the direction
    of the far edge in the product's own axes, clockwise from its right.
    squeeze: foreshortening of the width, 0..1 (1: seen from the front).
    shift_x, shift_y: offset of the centre over the picture's side.
    brightness: gain; warmth: red over blue, 1 is neutral; gradient: gain across the picture, falling in gradient_deg.
    vignette: darkening in the corners, 0..1.
    blur_px: standard deviation of the blur in pixels. noise: standard deviation of the sensor's noise, grey levels.
    jpeg_quality: 1..100, as in libjpeg.
    background: the surface's name. clutter: number of distractors around the product. occluder: what reaches over it.

    Two more are measured on the rendered picture: occlusion, the fraction of the product's pixels in the picture that
    the occluder hides, and cropped, the fraction of the product outside the picture.
    """

    view: str = "catalogue"
    rotation_deg: float = 0.0
    scale: float = 0.9
    perspective: float = 0.0
    tilt_deg: float = 0.0
    squeeze: float = 1.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    brightness: float = 1.0
    warmth: float = 1.0
    gradient: float = 0.0
    gradient_deg: float = 0.0
    vignette: float = 0.0
    blur_px: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 95
    background: str = "white"
    clutter: int = 0
    occluder: str = "none"


def phone_view(dice: Dice) -> View:
    """One draw of all phone parameters, each on its own: mostly mild, now and then strong."""

    def mild(most: float) -> float:
        u = dice.between(0.0, 1.0)
        return most * u * u

    def either(most: float) -> float:
        return mild(most) if dice.chance(0.5) else -mild(most)

    return View(
        view="phone",
        rotation_deg=round(dice.between(-180.0, 180.0) if dice.chance(0.15) else either(25.0), 1),
        scale=round(dice.between(0.8, 1.1), 3),
        perspective=round(mild(0.45), 3),
        tilt_deg=round(dice.between(-180.0, 180.0), 1),
        squeeze=round(1.0 - mild(0.3), 3),
        shift_x=round(either(0.14), 3),
        shift_y=round(either(0.14), 3),
        brightness=round(1.0 + either(0.28), 3),
        warmth=round(1.0 + mild(0.22) if dice.chance(0.6) else 1.0 - mild(0.17), 3),
        gradient=round(mild(0.45), 3),
        gradient_deg=round(dice.between(-180.0, 180.0), 1),
        vignette=round(mild(0.3), 3),
        blur_px=round(0.35 + mild(2.4), 2),
        noise=round(1.0 + mild(8.0), 2),
        jpeg_quality=dice.whole(30, 92),
        background=dice.pick(SCENES),
        clutter=dice.pick((0, 0, 1, 1, 2, 2, 3, 4, 5)),
        occluder=dice.pick(("none", "none", "none", "hand", "hand", "card", "strip")),
    )
