"""A small drawing board: shapes, patterns, lettering and dice that give the same pixels on every machine.

How the same pixels are made sure:
- Arrays meet only + - * / sqrt, floor, rint, abs, minimum, maximum, comparisons, indexing and casts. IEEE 754 fixes
  each result to the last bit, in float32 as in float64, whatever SIMD unit computes it. No numpy call that does two
  float operations inside (interp, arange of floats, mean, sum, dot) is used, since a compiler may fuse them.
- Sine and cosine come from `turn`, a Taylor series of Python floats, never from the platform's libm.
- Chance comes from `random.Random.random` and `numpy.random.PCG64.random_raw`, the two whose streams are guaranteed.
- Lettering is the bitmap font in `prints.py`; no font library. JPEG is the integer arithmetic in `jpeg.py`; no codec.

Coordinates: a sprite is SIDE x SIDE pixels; x (right) and y (down) run from -1 to 1. A mask is (SIDE, SIDE) float32
coverage in 0..1. A colour is three floats, 0..255.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
Point = tuple[float, float]
T = TypeVar("T")

SIDE = 256
PIXEL = 2.0 / SIDE
X = ((np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) * np.float32(PIXEL) - np.float32(1.0))[None, :]
Y = X.reshape(SIDE, 1)


class Dice:
    """Random numbers that depend on the key alone, so that one thing's chance never shifts another's."""

    def __init__(self, *key: object) -> None:
        self._random = random.Random(_number(key))

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """An integer in low..high, both included."""
        return low + int((high - low + 1) * self._random.random())

    def pick(self, items: Sequence[T]) -> T:
        return items[int(len(items) * self._random.random())]

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def shuffled(self, items: Sequence[T]) -> list[T]:
        rest, out = list(items), []
        while rest:
            out.append(rest.pop(int(len(rest) * self._random.random())))
        return out


def _number(key: tuple[object, ...]) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, key)).encode()).digest()[:16], "little")


def static(shape: tuple[int, ...], *key: object) -> np.ndarray:
    """Uniform random bytes, `shape` uint8."""
    count = math.prod(shape)
    raw = np.random.PCG64(_number(key)).random_raw((count + 7) // 8)
    return raw.astype("<u8").view(np.uint8)[:count].reshape(shape)


def clouds(height: int, width: int, cell: tuple[int, int], *key: object) -> np.ndarray:
    """Smooth value noise, (height, width) float32 in 0..1; a lattice point every cell[0] rows and cell[1] columns."""
    down, right = cell
    lattice = static((height // down + 2, width // right + 2), *key).astype(np.float32) / np.float32(255)
    rows, columns = np.arange(height), np.arange(width)
    fy = smooth((rows % down).astype(np.float32) / np.float32(down))[:, None]
    fx = smooth((columns % right).astype(np.float32) / np.float32(right))[None, :]
    rows, columns = rows // down, columns // right
    left = lattice[:, columns]
    lines = left + (lattice[:, columns + 1] - left) * fx
    top = lines[rows]
    return top + (lines[rows + 1] - top) * fy


def turn(degrees: float) -> tuple[float, float]:
    """(cosine, sine) of an angle, from + - * / alone."""
    x = (degrees - 360.0 * math.floor(degrees / 360.0 + 0.5)) * (3.141592653589793 / 180.0)
    cosine, sine, term = 1.0, 0.0, 1.0
    for n in range(1, 29):
        term = term * x / n
        if n % 2:
            sine += term if n % 4 == 1 else -term
        else:
            cosine += term if n % 4 == 0 else -term
    return cosine, sine


def unit(values: np.ndarray) -> np.ndarray:
    """Clipped to 0..1."""
    return np.minimum(np.maximum(values, np.float32(0)), np.float32(1))


def smooth(t: np.ndarray) -> np.ndarray:
    """Smoothstep of t in 0..1."""
    return t * t * (3.0 - 2.0 * t)


def cover(distance: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside) -> coverage with an antialiased edge."""
    return unit(0.5 - distance * (1.0 / PIXEL))


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour in the first."""
    a, b, c = (p + (q - p) * share for p, q in zip(one, other, strict=True))
    return a, b, c


def luminance(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


# --- shapes ----------------------------------------------------------------------------------------------------------


def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
    x, y = (X - cx) * (1.0 / rx), (Y - cy) * (1.0 / ry)
    k = np.sqrt(x * x + y * y)
    gx, gy = x * (1.0 / rx), y * (1.0 / ry)
    slope = np.maximum(np.sqrt(gx * gx + gy * gy), np.float32(1e-3))
    return cover(k * (k - 1.0) / slope)


def box(cx: float, cy: float, hx: float, hy: float, radius: float = 0.0) -> np.ndarray:
    """A rectangle of half-sizes hx, hy with rounded corners."""
    x, y = abs(X - cx) - (hx - radius), abs(Y - cy) - (hy - radius)
    zero = np.float32(0)
    ox, oy = np.maximum(x, zero), np.maximum(y, zero)
    return cover(np.sqrt(ox * ox + oy * oy) + np.minimum(np.maximum(x, y), zero) - radius)


def stroke(points: Sequence[Point], width: float) -> np.ndarray:
    """A round pen of this full width along a polyline."""
    nearest = np.full((SIDE, SIDE), 9.0, np.float32)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        x, y = X - ax, Y - ay
        t = unit((x * dx + y * dy) * (1.0 / max(dx * dx + dy * dy, 1e-9)))
        x, y = x - t * dx, y - t * dy
        nearest = np.minimum(nearest, x * x + y * y)
    return cover(np.sqrt(nearest) - width * 0.5)


def polygon(points: Sequence[Point]) -> np.ndarray:
    """Any closed polygon, even-odd; exact coverage along x, four lines per pixel along y."""
    lines = 4
    xs, ys = np.array(points, np.float64).T
    left, right, top, low = (
        min(max(math.floor((end + 1.0) / PIXEL) + more, 0), SIDE)
        for end, more in ((xs.min(), -1), (xs.max(), 2), (ys.min(), -1), (ys.max(), 2))
    )
    out = np.zeros((SIDE, SIDE), np.float32)
    nx, ny = np.roll(xs, -1), np.roll(ys, -1)
    y = ((np.arange(top * lines, low * lines) + 0.5) * (PIXEL / lines) - 1.0)[:, None]
    crosses = (ys <= y) != (ny <= y)
    rise = np.where(ny == ys, 1.0, ny - ys)
    at = np.where(crosses, xs + (y - ys) / rise * (nx - xs), 9.0)
    at = np.sort(at, axis=1)[:, : int(crosses.sum(axis=1).max(initial=0))].astype(np.float32)
    x = X[:, left:right]
    total = np.zeros((len(at), right - left), np.float32)
    for start in range(0, at.shape[1] - 1, 2):
        total += unit((x - at[:, start, None]) * (1.0 / PIXEL) + 0.5)
        total -= unit((x - at[:, start + 1, None]) * (1.0 / PIXEL) + 0.5)
    out[top:low, left:right] = (total[0::4] + total[1::4] + total[2::4] + total[3::4]) * np.float32(0.25)
    return out


def curve(points: Sequence[Point], steps: int = 6, closed: bool = True) -> list[Point]:
    """A Catmull-Rom curve through the points, as a polyline."""
    n, out = len(points), []
    for i in range(n if closed else n - 1):
        near = [(i + o) % n if closed else min(max(i + o, 0), n - 1) for o in (-1, 0, 1, 2)]
        p = [points[j] for j in near]
        for s in range(steps):
            t = s / steps
            weights = (
                ((2 - t) * t - 1) * t / 2,
                ((3 * t - 5) * t * t + 2) / 2,
                ((4 - 3 * t) * t + 1) * t / 2,
                (t - 1) * t * t / 2,
            )
            x, y = 0.0, 0.0
            for w, (px, py) in zip(weights, p, strict=True):
                x, y = x + w * px, y + w * py
            out.append((x, y))
    return out if closed else [*out, points[-1]]


def revolve(profile: Sequence[Point], cx: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A turned body. profile: (y, half-width) from top to bottom. Returns its mask and u, the place across in -1..1."""
    widths, j = [], 0
    for i in range(SIDE):
        y = (i + 0.5) * PIXEL - 1.0
        while j < len(profile) - 2 and y > profile[j + 1][0]:
            j += 1
        (y0, w0), (y1, w1) = profile[j], profile[j + 1]
        t = min(max((y - y0) / (y1 - y0), 0.0), 1.0)
        widths.append(w0 + (w1 - w0) * t)
    w = np.array(widths, np.float32)[:, None]
    top, bottom = profile[0][0], profile[-1][0]
    ends = unit((Y - top) * (1.0 / PIXEL) + 0.5) * unit((bottom - Y) * (1.0 / PIXEL) + 0.5)
    return cover(abs(X - cx) - w) * ends, (X - cx) / np.maximum(w, np.float32(PIXEL))


def around(u: np.ndarray) -> np.ndarray:
    """The way around a cylinder (radians) at the place u across it: arcsine by its series, good enough for print."""
    u = np.minimum(np.maximum(u, np.float32(-1)), np.float32(1))
    s = u * u
    return u * (1.0 + s * (0.16667 + s * (0.075 + s * (0.045 + s * 0.12))))


class Board:
    """A sprite being painted: premultiplied colour (3, SIDE, SIDE) in 0..255 and alpha (SIDE, SIDE) in 0..1."""

    def __init__(self) -> None:
        self.colour = np.zeros((3, SIDE, SIDE), np.float32)
        self.alpha = np.zeros((SIDE, SIDE), np.float32)

    def paint(self, mask: np.ndarray, colour: Colour) -> None:
        """Lay a colour over the board."""
        keep = np.float32(1) - mask
        for plane, ink in zip(self.colour, colour, strict=True):
            plane *= keep
            plane += mask * ink
        self.alpha *= keep
        self.alpha += mask

    def print_on(self, mask: np.ndarray, colour: Colour) -> None:
        """Colour only what is painted already."""
        keep, mask = np.float32(1) - mask, mask * self.alpha
        for plane, ink in zip(self.colour, colour, strict=True):
            plane *= keep
            plane += mask * ink

    def cut(self, mask: np.ndarray) -> None:
        """Make a hole."""
        keep = np.float32(1) - mask
        self.colour *= keep
        self.alpha *= keep

    def light(self, factor: np.ndarray) -> None:
        """Multiply the brightness; highlights stop at white."""
        white = self.alpha * np.float32(255)
        for plane in self.colour:
            plane *= factor
            np.minimum(plane, white, out=plane)

    def sprite(self) -> np.ndarray:
        """(SIDE, SIDE, 4) float32: premultiplied red, green, blue in 0..255 and alpha in 0..1."""
        return np.ascontiguousarray(np.concatenate([self.colour, self.alpha[None]]).transpose(1, 2, 0))
