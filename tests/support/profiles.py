"""ICC profiles, written by the specification (ICC.1:2001), since no file of one is at hand everywhere."""

from __future__ import annotations

import struct

import numpy as np

# Red, green and blue in XYZ relative to D50, as the profiles hold them.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
WHITE = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    tags = {b"wtpt": _xyz(WHITE), **{name: _curve(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")}}
    tags |= {name: _xyz(colour) for name, colour in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(WHITE), b"kTRC": _curve(gamma)})


def cmyk_profile(lightness_of_black: int = 0) -> bytes:
    """Every ink takes its share of the light alone: a table of two steps an ink, each 0 or 255, to Lab."""
    steps = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = np.where(steps.any(axis=1), lightness_of_black, 255)
    lab = np.stack([light, np.full(16, 128), np.full(16, 128)], axis=1).astype(np.uint8)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3, dtype=int) * 65536).ravel())
    table += identity * 4 + lab.tobytes() + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(WHITE), b"A2B0": table})


def srgb_of(pixels: np.ndarray, primaries: tuple[tuple[float, float, float], ...], gamma: float) -> np.ndarray:
    """What pixels of such a profile are in sRGB, from the definitions of both."""
    light = (pixels / 255.0) ** gamma @ np.array(primaries) @ np.linalg.inv(np.array(SRGB))
    light = np.clip(light, 0, 1)
    return np.asarray(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"test"), b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", place + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", place + len(body), bytes(4), 0x02100000, kind, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _numbers(WHITE)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _text(words: bytes) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(words) + 1) + words + b"\0" + bytes(78)


def _numbers(values: tuple[float, float, float]) -> bytes:
    return struct.pack(">3i", *(round(value * 65536) for value in values))


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + _numbers(values)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
