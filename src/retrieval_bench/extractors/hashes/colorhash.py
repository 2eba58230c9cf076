"""The colour hash, with the bits of imagehash's `colorhash`: how much of a picture is black, grey, or of a colour."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import numpy as np
from PIL import Image, ImageChops

from retrieval_bench.core import BenchError, Extractor, Setup
from retrieval_bench.extractors.hashes.imagehash import UPRIGHT_RGB, ImageHash
from retrieval_bench.registry import EXTRACTORS, Range

MAX_BINBITS = 16
HUES = 6
FRACTIONS = 2 + 2 * HUES

_WHERE = np.arange(256)
_NOT_BLACK = (_WHERE >= 32).tolist()
_GREY = (_WHERE < 85).tolist()
_FAINT = ((_WHERE >= 85) & (_WHERE < 170)).tolist()
_BRIGHT = (_WHERE > 170).tolist()
# numpy.histogram closes the last bin, so hue 255 belongs to the sixth.
_HUE = np.minimum(_WHERE * HUES // 255, HUES - 1)


def color_counts(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> (14,) int64 pixels: black (grey value below 32 of 256); else grey (saturation below 85); else
    faint (saturation below 170) in six hues, from red on; bright (above 170) in the same hues. What has a saturation of
    170 is in none, but coloured."""
    picture = Image.fromarray(image)
    grey = picture.convert("L")
    hue, saturation, _ = picture.convert("HSV").split()
    lit = grey.point([255 * keep for keep in _NOT_BLACK])
    counts = [sum(grey.histogram()[:32]), _count(lit, saturation, _GREY)]
    for kind in (_FAINT, _BRIGHT):
        chosen = ImageChops.darker(lit, saturation.point([255 * keep for keep in kind]))
        counts += np.bincount(_HUE, hue.histogram(chosen), HUES).astype(np.int64).tolist()
    return np.array(counts, np.int64)


def _count(lit: Image.Image, channel: Image.Image, kept: list[bool]) -> int:
    """Lit pixels whose value in the channel is one of those kept."""
    values = channel.histogram(lit)
    return sum(value for value, keep in zip(values, kept, strict=True) if keep)


def color_bits(image: np.ndarray, binbits: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (14, binbits) bool: each fraction in steps of 2 ** -binbits, as imagehash writes them.

    Black and grey are fractions of the picture, the hues of what is neither. Bit i of a step is set where a leading
    part of it is not 0, which is not the binary number; it is what imagehash does.
    """
    counts = color_counts(image)
    whole = image.shape[0] * image.shape[1]
    colored = max(1, whole - int(counts[0]) - int(counts[1]))
    steps = 2**binbits
    of_all = (counts[:2] / whole * steps).astype(np.int64)
    of_colored = (counts[2:] * steps * 1.0 / colored).astype(np.int64)
    values = np.minimum(np.concatenate([of_all, of_colored]), steps - 1)[:, None]
    place = np.arange(binbits)
    return values // 2 ** (binbits - place - 1) % 2 ** (binbits - place) > 0


@EXTRACTORS(
    "colorhash",
    family="hash",
    about="42 bits of the upright RGB picture: fractions of black, grey, and faint and bright hues",
    note=UPRIGHT_RGB,
)
def colorhash(setup: Setup, *, binbits: Annotated[int, Range(1, MAX_BINBITS)] = 3) -> Extractor:
    """imagehash's colorhash.

    Args:
        setup: what the run fixes for every method.
        binbits: bits for each of the 14 fractions, 1 to 16; the hash has 14 x binbits bits
    """
    if not 1 <= binbits <= MAX_BINBITS:
        raise BenchError(
            f"colorhash: binbits={binbits} is not between 1 and {MAX_BINBITS}; a hash has {FRACTIONS} * binbits bits"
        )
    return ImageHash(partial(color_bits, binbits=binbits), FRACTIONS * binbits)
