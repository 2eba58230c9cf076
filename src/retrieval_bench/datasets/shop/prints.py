"""What is printed on things: patterns, emblems and lettering.

All take the coordinates u, v of a surface (float32 arrays that broadcast, about -1..1) and return coverage in 0..1.
"""

from __future__ import annotations

import unicodedata

import numpy as np

from retrieval_bench.datasets.shop.drawing import turn, unit

PATTERNS = ("stripes", "bars", "checks", "dots", "diagonal", "zigzag", "band", "halves", "grid", "scales")
EMBLEMS = ("star", "heart", "ring", "leaf", "bolt", "peaks", "flower", "moon", "fish", "diamond")


def edge(t: np.ndarray, slope: float) -> np.ndarray:
    """Soft step at t = 0; slope is about one over its width."""
    return unit(t * slope + 0.5)


def triangle_wave(t: np.ndarray) -> np.ndarray:
    """0 at whole numbers, 1 half way between them."""
    t = t - np.floor(t)
    return 1.0 - abs(t * 2.0 - 1.0)


def pattern(kind: str, u: np.ndarray, v: np.ndarray, count: float) -> np.ndarray:
    """Coverage of the second colour; `count` repeats between -1 and 1."""
    p, q = u * (count / 2.0), v * (count / 2.0)
    soft = 24.0 / count
    if kind == "stripes":
        return edge(triangle_wave(q) - 0.5, soft) + 0.0 * p
    if kind == "bars":
        return edge(triangle_wave(p) - 0.5, soft) + 0.0 * q
    if kind == "diagonal":
        return edge(triangle_wave(p + q) - 0.5, soft)
    if kind == "checks":
        a, b = edge(triangle_wave(p) - 0.5, soft), edge(triangle_wave(q) - 0.5, soft)
        return a + b - 2.0 * a * b
    if kind == "grid":
        a, b = edge(triangle_wave(p) - 0.78, soft), edge(triangle_wave(q) - 0.78, soft)
        return np.maximum(a, b)
    if kind == "dots":
        x, y = p - np.floor(p) - 0.5, q - np.floor(q) - 0.5
        return edge(0.09 - (x * x + y * y), 2.0 * soft)
    if kind == "zigzag":
        return edge(triangle_wave(q + triangle_wave(p) * 0.5) - 0.5, soft)
    if kind == "scales":
        row = np.floor(q)
        x, y = p + row * 0.5, q - row
        x = x - np.floor(x) - 0.5
        return edge(triangle_wave(np.sqrt(x * x + y * y) * 1.6) - 0.45, soft)
    if kind == "band":
        return edge(0.16 - abs(v - 0.25), 30.0) + 0.0 * u
    if kind == "halves":
        return edge(v - 0.1, 40.0) + 0.0 * u
    return 0.0 * u + 0.0 * v


def emblem(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Coverage of a figure that fills about -1..1."""
    r2 = u * u + v * v
    if kind == "star":
        inside = np.zeros_like(r2)
        for k in range(5):
            c, s = turn(72.0 * k - 90.0)
            inside = inside + edge(0.36 - (u * c + v * s), 14.0)
        return unit(inside - 3.0)
    if kind == "heart":
        x, y = abs(u) - 0.375, v + 0.275
        lobes = edge(0.53 - np.sqrt(x * x + y * y), 14.0)
        return np.maximum(lobes, edge(0.75 - abs(u) - abs(v - 0.1), 10.0))
    if kind == "ring":
        return edge(0.05 - (np.sqrt(r2) - 0.72) * (np.sqrt(r2) - 0.72), 60.0)
    if kind == "leaf":
        x, y = (u + v) * 0.70710678, (v - u) * 0.70710678
        a = np.sqrt(x * x + (y - 0.75) * (y - 0.75))
        b = np.sqrt(x * x + (y + 0.75) * (y + 0.75))
        return edge(1.25 - np.maximum(a, b), 14.0) * edge(abs(y) - 0.05, 20.0)
    if kind == "bolt":
        upper = edge(0.05 + v * 0.0 + 0.28 - abs(u + 0.55 * v - 0.1), 14.0) * edge(v + 1.0, 14.0) * edge(0.12 - v, 14.0)
        lower = edge(0.28 * (1.0 - v) - abs(u + 0.55 * v - 0.12), 14.0) * edge(v + 0.15, 14.0) * edge(1.0 - v, 14.0)
        return np.maximum(upper, lower)
    if kind == "peaks":
        left = edge(0.6 - v, 14.0) * edge(v + 0.35 - 1.3 * abs(u + 0.35), 10.0)
        right = edge(0.6 - v, 14.0) * edge(v + 0.85 - 1.5 * abs(u - 0.3), 10.0)
        return np.maximum(left * edge(abs(u + 0.02 - v * 0.4) - 0.0, 20.0), right)
    if kind == "flower":
        out = np.zeros_like(r2)
        for k in range(6):
            c, s = turn(60.0 * k)
            x, y = u - 0.58 * c, v - 0.58 * s
            out = np.maximum(out, edge(0.1 - (x * x + y * y), 24.0))
        return np.maximum(out, edge(0.06 - r2, 40.0))
    if kind == "moon":
        x = u - 0.42
        return edge(0.8 - r2, 10.0) * edge(x * x + v * v - 0.6, 10.0)
    if kind == "fish":
        body = edge(0.3 - ((u + 0.15) * (u + 0.15) * 0.55 + v * v * 1.6), 14.0)
        tail = edge(u - 0.4, 14.0) * edge(0.95 - u, 14.0) * edge((u - 0.3) * 0.9 - abs(v), 12.0)
        x, y = u + 0.55, v + 0.1
        return np.maximum(body, tail) * edge(x * x + y * y - 0.008, 90.0)
    inner = abs(u) * 1.2 + abs(v)
    return edge(0.95 - inner, 12.0) * (1.0 - edge(0.55 - inner, 12.0) + edge(0.3 - inner, 12.0))


_GLYPHS = """
A0E11111F111111 B1E11111E11111E C0E11101010110E D1E11111111111E E1F10101E10101F F1F10101E101010 G0E11101713110F
H1111111F111111 I0E04040404040E J0702020202120C K11121418141211 L1010101010101F M111B1515111111 N11191513111111
O0E11111111110E P1E11111E101010 Q0E11111115120D R1E11111E141211 S0F10100E01011E T1F040404040404 U1111111111110E
V11111111110A04 W1111111515150A X11110A040A1111 Y11110A04040404 Z1F01020408101F 00E11131519110E 1040C040404040E
20E11010204081F 31F02040201110E 402060A121F0202 51F101E0101110E 60608101E11110E 71F010204080808 80E11110E11110E
90E11110F01020C -0000001F000000 .00000000000C0C &0C12140815120D _0000000000001F %18190204081303 /00010204081000
!04040404040004 (02040808080402 )08040202020408 ,0000000C040800 :000C0C000C0C00 '04040800000000 ?0E110102040004
"""


def _font() -> dict[str, np.ndarray]:
    """Each glyph is its character and seven rows of five bits, two hexadecimal digits a row."""
    font = {" ": np.zeros((7, 5), np.float32)}
    for entry in _GLYPHS.split():
        rows = bytes.fromhex(entry[1:])
        font[entry[0]] = np.array([[(row >> (4 - bit)) & 1 for bit in range(5)] for row in rows], np.float32)
    return font


FONT = _font()


def lettering(text: str) -> np.ndarray:
    """One line in the 5 x 7 font, (7, 6 n - 1) float32 of 0 and 1; accents go, what the font lacks becomes a dot."""
    columns = []
    plain = (character for character in unicodedata.normalize("NFKD", text) if not unicodedata.combining(character))
    for character in "".join(plain).upper():
        columns += [FONT.get(character, FONT["."]), np.zeros((7, 1), np.float32)]
    return np.concatenate(columns[:-1], axis=1) if columns else np.zeros((7, 0), np.float32)


def printed(text: str, u: np.ndarray, v: np.ndarray, width: float, height: float) -> np.ndarray:
    """Coverage of one line of text, centred at 0, at most `width` and `height` (half-sizes) of the surface."""
    bitmap = np.pad(lettering(text), 2)
    h, w = bitmap.shape
    dot = min(2.0 * width / (w - 4), 2.0 * height / (h - 4))
    x = u * (1.0 / dot) + (w / 2.0 - 0.5)
    y = v * (1.0 / dot) + (h / 2.0 - 0.5)
    x, y = np.broadcast_arrays(
        np.minimum(np.maximum(x, np.float32(0)), np.float32(w - 1.001)),
        np.minimum(np.maximum(y, np.float32(0)), np.float32(h - 1.001)),
    )
    ix, iy = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    fx, fy = x - ix.astype(np.float32), y - iy.astype(np.float32)
    flat, at = bitmap.ravel(), iy * w + ix
    top = flat[at] + (flat[at + 1] - flat[at]) * fx
    low = flat[at + w] + (flat[at + w + 1] - flat[at + w]) * fx
    return edge(top + (low - top) * fy - 0.5, max(1.5, 60.0 * dot))
