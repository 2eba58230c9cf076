"""From sprite to picture: place, shadow, light, lens and sensor. Pictures are (3, SIZE, SIZE) float32, 0..255."""

from __future__ import annotations

import math

import numpy as np

from retrieval_bench.datasets.shop.drawing import SIDE, static, turn
from retrieval_bench.datasets.shop.view import SIZE, View

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


def place(view: View) -> Matrix:
    """The homography from sprite coordinates (-1..1) to pixels."""
    c, s = turn(view.rotation_deg)
    tc, ts = turn(view.tilt_deg)
    half = SIZE / 2.0
    k = half * view.scale
    p, q = view.perspective * tc * 0.5, view.perspective * ts * 0.5
    cx, cy = half * (1.0 + 2.0 * view.shift_x), half * (1.0 + 2.0 * view.shift_y)
    a = view.squeeze
    return (
        (k * c * a + cx * p, -k * s + cx * q, cx),
        (k * s * a + cy * p, k * c + cy * q, cy),
        (p, q, 1.0),
    )


def _inverse(m: Matrix) -> Matrix:
    """The adjugate: the inverse up to a factor, which a homography does not feel; its last entry is made 1."""
    (a, b, c), (d, e, f), (g, h, i) = m
    n = 1.0 / (a * e - b * d)
    return (
        ((e * i - f * h) * n, (c * h - b * i) * n, (b * f - c * e) * n),
        ((f * g - d * i) * n, (a * i - c * g) * n, (c * d - a * f) * n),
        ((d * h - e * g) * n, (b * g - a * h) * n, (a * e - b * d) * n),
    )


class Sprite:
    """A drawing with its smaller copies; tight: its bounding box, not its whole square, is what `scale` measures.

    levels: (side, side, 4) float32, each half the side of the one before, each with a transparent border.
    """

    def __init__(self, drawing: np.ndarray, tight: bool = False) -> None:
        self.levels = [drawing]
        while len(self.levels) < 3:
            s = self.levels[-1]
            self.levels.append((s[0::2, 0::2] + s[0::2, 1::2] + s[1::2, 0::2] + s[1::2, 1::2]) * np.float32(0.25))
        for level in self.levels:
            level[0] = level[-1] = 0.0
            level[:, 0] = level[:, -1] = 0.0
        self.x, self.y, self.reach = 0.0, 0.0, 1.0
        if tight:
            solid = drawing[:, :, 3] > 0.5
            columns, rows = np.flatnonzero(solid.any(axis=0)).tolist(), np.flatnonzero(solid.any(axis=1)).tolist()
            self.x = (columns[0] + columns[-1] + 1) / SIDE - 1.0
            self.y = (rows[0] + rows[-1] + 1) / SIDE - 1.0
            self.reach = max(columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]) / SIDE

    def at(self, place: Matrix) -> Matrix:
        """The homography from this sprite's own coordinates, its box mapped to where `place` puts -1..1."""
        k = 1.0 / self.reach
        rows = [(a * k, b * k, c - (a * self.x + b * self.y) * k) for a, b, c in place]
        n = 1.0 / rows[2][2]
        a, b, c = ((p * n, q * n, r * n) for p, q, r in rows)
        return a, b, c


class PlacedSprite:
    """A sprite laid into the picture: its box of pixels and the colours in it."""

    def __init__(self, sprite: Sprite, place: Matrix) -> None:
        place = sprite.at(place)
        corners = []
        for x, y in ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)):
            (a, b, c), (d, e, f), (g, h, i) = place
            w = g * x + h * y + i
            corners.append(((a * x + b * y + c) / w, (d * x + e * y + f) / w))
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        whole = (math.floor(min(xs)), math.ceil(max(xs)), math.floor(min(ys)), math.ceil(max(ys)))
        self.left, self.right = max(whole[0], 0), max(min(whole[1], SIZE), 0)
        self.top, self.low = max(whole[2], 0), max(min(whole[3], SIZE), 0)
        self.empty = self.right <= self.left or self.low <= self.top
        # Half the size on screen asks for the half-size sprite: two texels a pixel at most, else it glitters.
        span = max(abs(corners[0][0] - corners[2][0]), abs(corners[0][1] - corners[2][1]), 1.0)
        texels = SIDE * 1.1 / span
        level = sprite.levels[0 if texels < 1.5 else 1 if texels < 3.0 else 2]
        self._level, self._place = level, place
        self.pixels = np.zeros((0, 0, 4), np.float32) if self.empty else self._sample(level, _inverse(place))

    def _sample(self, level: np.ndarray, back: Matrix) -> np.ndarray:
        (a, b, c), (d, e, f), (g, h, i) = back
        x = np.arange(self.left, self.right).astype(np.float32)[None, :] + np.float32(0.5)
        y = np.arange(self.top, self.low).astype(np.float32)[:, None] + np.float32(0.5)
        w = 1.0 / (x * g + (y * h + i))
        side = len(level)
        half = side / 2.0
        u = (x * a + (y * b + c)) * w * half + (half - 0.5)
        v = (x * d + (y * e + f)) * w * half + (half - 0.5)
        top = np.float32(side - 1.001)
        u, v = np.minimum(np.maximum(u, np.float32(0)), top), np.minimum(np.maximum(v, np.float32(0)), top)
        iu, iv = u.astype(np.int32), v.astype(np.int32)
        fu, fv = (u - iu.astype(np.float32))[:, :, None], (v - iv.astype(np.float32))[:, :, None]
        at = iv * side + iu
        flat = level.reshape(-1, 4)
        upper, lower = flat.take(at, axis=0), flat.take(at + side, axis=0)
        upper += (flat.take(at + 1, axis=0) - upper) * fu
        lower += (flat.take(at + (side + 1), axis=0) - lower) * fu
        upper += (lower - upper) * fv
        return upper

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.low), slice(self.left, self.right)

    @property
    def cropped(self) -> float:
        """The fraction of the sprite's solid pixels that lie outside the picture."""
        (a, b, c), (d, e, f), (g, h, i) = self._place
        side = len(self._level)
        x = ((np.arange(side).astype(np.float64) + 0.5) * (2.0 / side) - 1.0)[None, :]
        y = x.reshape(side, 1)
        w = x * g + (y * h + i)
        px, py = (x * a + (y * b + c)) / w, (x * d + (y * e + f)) / w
        solid = self._level[:, :, 3] > 0.5
        inside = solid & (px >= 0) & (px < SIZE) & (py >= 0) & (py < SIZE)
        return 1.0 - int(np.count_nonzero(inside)) / max(int(np.count_nonzero(solid)), 1)

    def over(self, picture: np.ndarray) -> None:
        if not self.empty:
            keep = np.float32(1) - self.pixels[:, :, 3]
            for channel, plane in enumerate(picture):
                under = plane[self.window]
                under *= keep
                under += self.pixels[:, :, channel]

    def mask(self) -> np.ndarray:
        """(SIZE, SIZE) float32 coverage."""
        out = np.zeros((SIZE, SIZE), np.float32)
        if not self.empty:
            out[self.window] = self.pixels[:, :, 3]
        return out


def cast_shadow(picture: np.ndarray, layer: PlacedSprite, dx: float, dy: float, strength: float) -> None:
    """Darken the picture under the layer's soft outline, moved by (dx, dy) pixels, |dx| and |dy| at most 12.

    Computed at a quarter of the size.
    """
    small = SIZE // 4
    m = layer.mask()
    m = (m[0::4] + m[1::4] + m[2::4] + m[3::4]) * np.float32(0.25)
    m = (m[:, 0::4] + m[:, 1::4] + m[:, 2::4] + m[:, 3::4]) * np.float32(0.25)
    pad = 5
    wide = np.zeros((small + 2 * pad, small + 2 * pad), np.float32)
    ox, oy = math.floor(dx / 4.0 + 0.5), math.floor(dy / 4.0 + 0.5)
    wide[pad + oy : pad + oy + small, pad + ox : pad + ox + small] = m
    for _ in range(2):
        wide = (wide[:-2] + wide[1:-1] + wide[2:]) * np.float32(1 / 3)
        wide = (wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]) * np.float32(1 / 3)
    soft = wide[2 : small + 4, 2 : small + 4]
    # Bilinear to full size: pixel p lies at (p + 0.5) / 4 - 0.5 of the small grid, one border texel in.
    rows = np.arange(SIZE) * 2 + 1 + 4
    whole, rest = rows // 8, ((rows % 8).astype(np.float32) / np.float32(8))
    lines = soft[whole] + (soft[whole + 1] - soft[whole]) * rest[:, None]
    full = lines[:, whole] + (lines[:, whole + 1] - lines[:, whole]) * rest[None, :]
    picture *= np.float32(1) - full * np.float32(strength)


def light(view: View) -> np.ndarray:
    """(3, SIZE, SIZE) float32 gain."""
    c, s = turn(view.gradient_deg)
    x = (np.arange(SIZE).astype(np.float32) + np.float32(0.5)) * np.float32(2.0 / SIZE) - np.float32(1)
    y = x[:, None]
    x = x[None, :]
    field = (1.0 - (x * (c * view.gradient * 0.5) + y * (s * view.gradient * 0.5))) * view.brightness
    field = field * (1.0 - (x * x + y * y) * (view.vignette * 0.5))
    # Red times root(warmth), blue over root(warmth), green kept: a cast without a change of brightness.
    root = math.sqrt(view.warmth)
    return field * np.array([root, 1.0, 1.0 / root], np.float32)[:, None, None]


def kernel(sigma: float) -> list[float]:
    """Half a blur kernel, centre first, whole sum 1: biweight (1 - (t / r)^2)^2, whose variance is r^2 / 7.

    Rational, unlike a Gaussian, and so the same everywhere. Below about 0.4 pixels nothing is left but the centre.
    """
    reach = sigma * math.sqrt(7.0)
    shares = [1.0 - (t / reach) * (t / reach) for t in range(math.ceil(reach))] or [1.0]
    total = 2.0 * math.fsum(share * share for share in shares) - 1.0
    return [share * share / total for share in shares]


def spread(weights: list[float]) -> float:
    """The standard deviation of a half kernel, in pixels."""
    return math.sqrt(2.0 * math.fsum(weight * (t * t) for t, weight in enumerate(weights)))


def blur(picture: np.ndarray, weights: list[float]) -> np.ndarray:
    """Both axes with one half kernel; the border is mirrored."""
    n = len(weights) - 1
    if n == 0:
        return picture
    wide = np.pad(picture, ((0, 0), (n, n), (0, 0)), mode="symmetric")
    picture = wide[:, n : n + SIZE] * weights[0]
    for t in range(1, n + 1):
        picture += (wide[:, n - t : n - t + SIZE] + wide[:, n + t : n + t + SIZE]) * weights[t]
    wide = np.pad(picture, ((0, 0), (0, 0), (n, n)), mode="symmetric")
    picture = wide[:, :, n : n + SIZE] * weights[0]
    for t in range(1, n + 1):
        picture += (wide[:, :, n - t : n - t + SIZE] + wide[:, :, n + t : n + t + SIZE]) * weights[t]
    return picture


def grain(seed: int) -> np.ndarray:
    """Noise of mean 0 and standard deviation 1: the sum of four uniform bytes; part of it common to the channels."""
    raw = static((4, 4, SIZE + 64, SIZE + 64), "grain", seed).astype(np.int32)
    summed = raw[0] + raw[1] + raw[2] + raw[3] - 510
    own = summed.astype(np.float32) / np.float32(147.8)
    return own[:3] * np.float32(0.7) + own[3] * np.float32(0.714)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    """(3, h, w) float32 -> (3, h, w) uint8, rounded and clipped."""
    return np.rint(np.minimum(np.maximum(picture, np.float32(0)), np.float32(255))).astype(np.uint8)
