"""What is searched: Gaussian noise, clusters as real features form them, or near-duplicates.

Queries are drawn as the gallery's rows are. All rows have length 1, in float32; codes are the signs of such rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

Data = Literal["gauss", "clustered", "duplicates"]
DATA: tuple[Data, ...] = get_args(Data)

CENTRES = 1000
SPREAD = 0.5  # of rows around their centre, as a share of its length: a cosine of 0.9 to it and of 0.8 to each other
COPIES = 100  # near-duplicates of each original
APART = 1e-4  # of a near-duplicate and its original, as a share of their length

_ROWS_AT_ONCE = 16_384

Draw = Callable[[int], np.ndarray]
"""(count) -> (count, dim) float32 rows of any length."""


def drawn(
    kind: Data, rng: np.random.Generator, queries: int, rows: int, dim: int, bits: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and gallery: (q, dim) and (n, dim) float32 rows of length 1, or (.., dim // 8) uint8 codes."""
    if kind == "gauss" and bits:
        gallery = rng.integers(0, 256, (rows, dim // 8), dtype=np.uint8)
        return rng.integers(0, 256, (queries, dim // 8), dtype=np.uint8), gallery
    draw = _gauss(rng, dim) if kind == "gauss" else _MAKERS[kind](rng, rows, dim)
    gallery = _filled(draw, rows, dim, bits)
    return _filled(draw, queries, dim, bits), gallery


def _filled(draw: Draw, count: int, dim: int, bits: bool) -> np.ndarray:
    out = np.empty((count, dim // 8), np.uint8) if bits else np.empty((count, dim), np.float32)
    for start in range(0, count, _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, count))
        rows = draw(part.stop - start)
        out[part] = np.packbits(rows > 0, axis=1) if bits else _unit(rows)
    return out


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)  # type: ignore[no-any-return]


def _gauss(rng: np.random.Generator, dim: int) -> Draw:
    return lambda count: rng.standard_normal((count, dim), dtype=np.float32)


def _clustered(rng: np.random.Generator, rows: int, dim: int) -> Draw:
    """Centres share a direction (a cosine of 0.5), since features of a network do; the spread is wide in few dimensions
    and narrow in most."""
    noise = _gauss(rng, dim)
    centres = _unit(_unit(noise(1)) + _unit(noise(min(CENTRES, rows))))
    widths = 1 / np.sqrt(np.arange(1, dim + 1, dtype=np.float32))
    widths *= SPREAD / np.linalg.norm(widths)
    return lambda count: centres[rng.integers(len(centres), size=count)] + noise(count) * widths


def _duplicates(rng: np.random.Generator, rows: int, dim: int) -> Draw:
    noise = _gauss(rng, dim)
    originals = _unit(noise(-(-rows // COPIES)))
    return lambda count: originals[rng.integers(len(originals), size=count)] + _unit(noise(count)) * np.float32(APART)


_MAKERS: dict[str, Callable[[np.random.Generator, int, int], Draw]] = {
    "clustered": _clustered,
    "duplicates": _duplicates,
}
