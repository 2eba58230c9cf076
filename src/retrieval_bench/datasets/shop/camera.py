"""Takes the pictures: one catalogue shot and any number of phone shots of each product, every view parameter known.

A phone shot depends on (seed, product, view) alone: backgrounds, distractors and light know nothing of the product and
nothing of the split.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from retrieval_bench.datasets.shop.drawing import Dice, turn
from retrieval_bench.datasets.shop.goods import draw
from retrieval_bench.datasets.shop.jpeg import jpeg
from retrieval_bench.datasets.shop.look import looks
from retrieval_bench.datasets.shop.optics import (
    PlacedSprite,
    Sprite,
    blur,
    cast_shadow,
    grain,
    kernel,
    light,
    place,
    spread,
    to_bytes,
)
from retrieval_bench.datasets.shop.props import ROOM, cards, hands, props, strips, surface
from retrieval_bench.datasets.shop.view import SCENES, SIZE, View, phone_view

PER_SCENE = 6
"""Surfaces of each kind: few enough that different products meet on the same table."""

Parameters = dict[str, str | int | float]


class Camera:
    """Holds what all pictures share: the goods' sprites, props, hands and surfaces. `photo` may run in any thread."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.looks = looks(seed)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            self.sprites = list(pool.map(lambda look: Sprite(draw(look), tight=True), self.looks))
        self.props = [Sprite(prop, tight=True) for prop in props(seed)]
        self.hands = [Sprite(hand) for hand in hands()]
        self.cards = [Sprite(card) for card in cards(seed)]
        self.strips = [Sprite(strip) for strip in strips(seed)]
        self.surfaces = {s: [surface(s, seed, n) for n in range(PER_SCENE)] for s in SCENES}
        self.grain = grain(seed)

    def photo(self, product: int, number: int) -> tuple[np.ndarray, Parameters]:
        """View `number` of a product: (SIZE, SIZE, 3) uint8 RGB and its parameters; number 0 is the catalogue shot."""
        if number == 0:
            return self._catalogue(product)
        name = self.looks[product].name
        view = phone_view(Dice("view", self.seed, name, number))
        return self._phone(product, view, Dice("scene", self.seed, name, number))

    def _catalogue(self, product: int) -> tuple[np.ndarray, Parameters]:
        view = View()
        picture = np.full((3, SIZE, SIZE), 250.0, np.float32)
        layer = PlacedSprite(self.sprites[product], place(view))
        cast_shadow(picture, layer, 0.0, 7.0, 0.3)
        layer.over(picture)
        return self._developed(picture, view, 0.0, layer.cropped)

    def _phone(self, product: int, view: View, dice: Dice) -> tuple[np.ndarray, Parameters]:
        picture = self._background(view, dice)
        sx, sy = turn(dice.between(0.0, 360.0))
        for _ in range(view.clutter):
            self._distractor(picture, product, view, dice, (sx, sy))
        layer = PlacedSprite(self.sprites[product], place(view))
        cast_shadow(picture, layer, 7.0 * sx, 7.0 * sy, 0.5)
        layer.over(picture)
        occlusion = self._occlude(picture, layer, view, dice)
        picture *= light(view)
        weights = kernel(view.blur_px)
        picture = blur(picture, weights)
        y, x = dice.whole(0, 63), dice.whole(0, 63)
        noise = self.grain[:, y : y + SIZE, x : x + SIZE]
        picture += noise * np.float32(view.noise)
        as_rendered = replace(view, blur_px=round(spread(weights), 3))
        return self._developed(picture, as_rendered, occlusion, layer.cropped)

    def _developed(
        self, picture: np.ndarray, view: View, occlusion: float, cropped: float
    ) -> tuple[np.ndarray, Parameters]:
        pixels = jpeg(to_bytes(picture), view.jpeg_quality)
        return pixels, {**vars(view), "occlusion": round(occlusion, 4), "cropped": round(cropped, 4)}

    def _background(self, view: View, dice: Dice) -> np.ndarray:
        whole = dice.pick(self.surfaces[view.background])
        y, x = dice.whole(0, ROOM - SIZE), dice.whole(0, ROOM - SIZE)
        part = whole[:, y : y + SIZE, x : x + SIZE]
        if dice.chance(0.5):
            part = part[:, :, ::-1]
        if view.background != "shelf" and dice.chance(0.5):
            part = part.transpose(0, 2, 1)
        gain = dice.between(0.88, 1.08)
        tint = np.array([gain * dice.between(0.96, 1.04) for _ in range(3)], np.float32)
        return part.astype(np.float32, order="C") * tint[:, None, None]

    def _distractor(self, picture: np.ndarray, product: int, view: View, dice: Dice, sun: tuple[float, float]) -> None:
        """Something beside the product: a prop or, one time in two, another product, often cut by the frame."""
        other = dice.whole(0, len(self.sprites) - 2)
        sprite = self.sprites[other + (other >= product)] if dice.chance(0.5) else dice.pick(self.props)
        c, s = turn(dice.between(0.0, 360.0))
        far = dice.between(0.4, 0.58)
        reach = max(abs(c), abs(s))
        turned = 12.0 if view.background == "shelf" else 180.0
        stands = View(
            rotation_deg=dice.between(-turned, turned),
            scale=dice.between(0.22, 0.42),
            shift_x=far * c / reach,
            shift_y=far * s / reach,
            squeeze=dice.between(0.8, 1.0),
        )
        layer = PlacedSprite(sprite, place(stands))
        cast_shadow(picture, layer, 5.0 * sun[0], 5.0 * sun[1], 0.4)
        layer.over(picture)

    def _occlude(self, picture: np.ndarray, layer: PlacedSprite, view: View, dice: Dice) -> float:
        """Lay a hand, a card or a strip over the product; the fraction of its visible pixels that are hidden."""
        if view.occluder == "none":
            return 0.0
        degrees = dice.between(0.0, 360.0)
        c, s = turn(degrees)
        depth = dice.between(0.0, 0.7)
        reach = 0.5 * view.scale * depth
        scale = dice.between(0.7, 0.9)
        sprite = dice.pick({"hand": self.hands, "card": self.cards, "strip": self.strips}[view.occluder])
        shift = reach + (0.5 * scale * 0.75 if view.occluder != "strip" else 0.0)
        # A hand's fingers point to the left of its sprite, so that it comes in from the direction (c, s).
        reaches = View(
            rotation_deg=degrees + dice.between(-15.0, 15.0),
            scale=scale,
            shift_x=view.shift_x + shift * c,
            shift_y=view.shift_y + shift * s,
        )
        front = PlacedSprite(sprite, place(reaches))
        cast_shadow(picture, front, 3.0, 4.0, 0.35)
        front.over(picture)
        solid = layer.mask() > 0.5
        visible = int(np.count_nonzero(solid))
        return int(np.count_nonzero(solid & (front.mask() > 0.5))) / visible if visible else 0.0
