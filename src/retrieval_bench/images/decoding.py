"""Bytes to upright RGB pixels. Only this module decodes, so that every method gets the same pixels.

Pillow reads the header and judges: which format, how large, which mode, whole or damaged. EXIF orientation is applied,
colour profiles are converted to sRGB, alpha is laid over white, 16-bit samples are scaled and not clipped, CMYK and
palettes are converted, frame 0 of an animation is taken, and a header that promises too many pixels is refused before
anything is allocated. Plain pictures are decoded by OpenCV, which gives the same pixels on all cores at once; a JPEG
that holds nothing but pixels goes there without Pillow, whose header takes
Python's lock from all other threads.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from retrieval_bench.core import BadImage
from retrieval_bench.images import jpeg_markers, plain_pictures
from retrieval_bench.images.colour_profiles import CONVERTED, IGNORED, in_srgb
from retrieval_bench.images.formats import (
    FORMATS,
    HEAD,
    ONE_BY_ONE,
    OPTIONAL,
    codecs_version,
    format_of,
    frames_told,
    has_frames,
    is_float_map,
    needs,
    opened_as,
    readable,
)

MAX_PIXELS = 100_000_000
DECODER_VERSION = f"2/Pillow-{PIL.__version__}{codecs_version()}"
"""Part of every cache key: raise the first number when decode() changes what it returns."""

REPAIRED = "without end marker, read as whole"
"""A note on a JPEG all of whose pixels are there."""
FIRST_FRAME = "with several frames or pages, of which the first was taken"
"""A note on an animation."""
NOTES = (REPAIRED, CONVERTED, IGNORED, FIRST_FRAME)
"""All that may be told of a picture that is used."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what undoes it."""


@dataclass(frozen=True)
class Decoding:
    """How a picture is decoded.

    max_pixels: pictures of more are refused. wanted: 0, or the side in pixels to which every reader shrinks a picture
    that is not smaller: a JPEG whose shorter side has at least 4 times as many is then decoded at 1/2, 1/4 or 1/8,
    with at least twice as many left.
    """

    max_pixels: int = MAX_PIXELS
    wanted: int = 0

    @property
    def key(self) -> str:
        """What the pixels depend on, beside the bytes."""
        import cv2

        return f"{DECODER_VERSION}/OpenCV-{cv2.__version__}" + (f"/wanted-{self.wanted}" if self.wanted else "")


class Decoded(NamedTuple):
    """pixels: (h, w, 3) uint8 RGB, upright. notes: what was done beyond reading, each a countable phrase."""

    pixels: np.ndarray
    notes: tuple[str, ...]


def decode(data: bytes, how: Decoding = Decoding()) -> np.ndarray:
    """Decode an image. Several threads may call this at once.

    Args:
        data: the encoded bytes, in one of `formats.FORMATS`, or in one of `formats.OPTIONAL` whose codec is installed.
        how: the largest size, and whether details that nobody wants may be left out.

    Returns:
        (h, w, 3) uint8 RGB, upright.

    Raises:
        BadImage: The bytes are no image, damaged, or have more pixels than allowed.
    """
    return decoded(data, how).pixels


def decoded(data: bytes, how: Decoding = Decoding()) -> Decoded:
    """Decode an image, and tell what was done to it. Arguments and errors are those of `decode`.

    Returns:
        The pixels, and what is to be counted: repaired files, colour profiles converted or ignored.
    """
    if not data:
        raise BadImage("empty file", "the file holds no byte")
    if is_float_map(data[:HEAD]):
        raise BadImage(
            "PFM, which cannot be read here",
            "an image of the format PFM, whose numbers do not say what is white; save it as PNG or TIFF",
        )
    try:
        with _strict_pillow():
            return _decoded(data, how)
    except BadImage:
        raise
    except UnidentifiedImageError:
        kind = format_of(data[:HEAD])
        if kind in OPTIONAL and not readable(kind):
            raise BadImage(f"{kind}, which cannot be read here", needs(kind)) from None
        like = _starts_like(data) or kind
        if like:
            raise BadImage("damaged", f"it starts like {like}, but its header cannot be read") from None
        raise BadImage("not an image", f"no {'/'.join(FORMATS)} image, by its first bytes") from None
    except MemoryError:
        raise BadImage("too many pixels", "decoding it takes more memory than there is") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, ... on damage
        raise BadImage("damaged", _without_content(error)) from None


def _without_content(error: Exception) -> str:
    """What a decoder says of damage, up to where it may quote the file: who knows what a file is that is no image."""
    said = re.sub(r"""(?s)\s*(\([^()'"]*)?['":`<].*""", "", str(error))
    plain = re.sub(r"[^ -~]+|\S{25,}", "", said).strip()
    return f"{type(error).__name__}: {plain}" if plain else type(error).__name__


def _decoded(data: bytes, how: Decoding) -> Decoded:
    size = jpeg_markers.bare_size(data)
    if size and size[0] * size[1] <= how.max_pixels and not _reducible(size, how.wanted):
        bare = plain_pictures.pixels_of_bare(data, size)
        if bare is not None:
            return Decoded(bare, ())
    image: Image.Image = Image.open(io.BytesIO(data), formats=opened_as(data))
    one_by_one = image.format in ONE_BY_ONE
    several = not one_by_one and frames_told(image)
    width, height = image.size
    if width * height > how.max_pixels:
        raise BadImage(
            "too many pixels",
            f"{width:,} x {height:,} are {width * height:,} pixels; at most {how.max_pixels:,} are decoded, "
            "--max-pixels allows more",
        )
    notes: list[str] = []
    reduced = _reduce(image, how.wanted)
    profile = image.info.get("icc_profile")
    pixels = None if reduced else plain_pictures.pixels_of(data, image)
    if pixels is None:
        image = _loaded(image, data, notes)
    turn = _turn(image)  # after loading: of a TIFF, Pillow has turned the pixels by then, and forgotten the turn
    if several or (one_by_one and has_frames(data)):
        notes.append(FIRST_FRAME)
    if pixels is not None:
        if not profile:
            return Decoded(pixels if turn is None else _turned(pixels, turn), tuple(notes))
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if image.mode == "L" else pixels)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_scaled_grey(image))
    if profile:
        image, note = in_srgb(image, profile)
        notes += [note] if note else []
    return Decoded(_to_rgb(image if turn is None else image.transpose(turn)), tuple(notes))


_lock = threading.Lock()
_decoding = 0
_before: tuple[bool, int | None]
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)  # as warnings.filterwarnings("ignore", module=...) has it


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow as we need it, whatever the process has set: refuse truncated files, no pixel limit but ours, no warnings.

    These are globals of the process, so the first thread in sets them and the last one out puts them back. Only our own
    filter is taken out again: `warnings.catch_warnings` puts back a whole list, with threads sometimes the wrong one.
    """
    global _decoding, _before
    with _lock:
        if _decoding == 0:
            _before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
            cast(list, warnings.filters).insert(0, _QUIET)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            Image.MAX_IMAGE_PIXELS = None
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if _decoding == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _before
                if _QUIET in warnings.filters:
                    cast(list, warnings.filters).remove(_QUIET)


def _starts_like(data: bytes) -> str:
    """The format whose signature the data bears, "" if none."""
    for name in FORMATS:
        accept = Image.OPEN.get(name, (None, None))[1]
        if accept is not None and accept(data[:16]) is True:
            return name
    return ""


def _reducible(size: tuple[int, int], wanted: int) -> bool:
    return bool(wanted) and min(size) >= 4 * wanted


def _reduce(image: Image.Image, wanted: int) -> bool:
    """Have a JPEG decoded at a part of its size, if `wanted` pixels along a side are so few -> whether it is."""
    full = image.size
    if not _reducible(full, wanted):
        return False
    image.draft(None, (2 * wanted * full[0] // min(full), 2 * wanted * full[1] // min(full)))  # type: ignore[arg-type]
    return image.size != full


def _loaded(image: Image.Image, data: bytes, notes: list[str]) -> Image.Image:
    """The image with its pixels; notes that it was repaired are added."""
    try:
        image.load()
        return image
    except Exception:  # by the same many exceptions; raised again unless the file can be repaired
        if image.format not in ("JPEG", "MPO") or not jpeg_markers.lacks_only_its_end(data):
            raise
    notes.append(REPAIRED)
    whole = Image.open(io.BytesIO(jpeg_markers.with_end(data)), formats=("JPEG",))
    if whole.size != image.size:  # it is decoded at a part of its size
        whole.draft(None, image.size)  # type: ignore[arg-type]
    whole.load()
    return whole


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF, by the same many exceptions: the pixels are whole, only their turn is unknown
        return None


def _turned(pixels: np.ndarray, turn: Image.Transpose) -> np.ndarray:
    """As `Image.transpose` turns, without a copy for Pillow."""
    how = {
        Image.Transpose.FLIP_LEFT_RIGHT: pixels[:, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: pixels[::-1],
        Image.Transpose.ROTATE_180: pixels[::-1, ::-1],
        Image.Transpose.ROTATE_90: pixels.transpose(1, 0, 2)[::-1],
        Image.Transpose.ROTATE_270: pixels.transpose(1, 0, 2)[:, ::-1],
        Image.Transpose.TRANSPOSE: pixels.transpose(1, 0, 2),
        Image.Transpose.TRANSVERSE: pixels[::-1, ::-1].transpose(1, 0, 2),
    }
    return np.ascontiguousarray(how[turn])


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _scaled_grey(image: Image.Image) -> np.ndarray:
    """16-bit, 32-bit and float greys to 8 bits: 16-bit over its full range, the others over the range they use."""
    grey = np.nan_to_num(np.array(image).astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = grey.min(), grey.max()
    if image.mode != "F" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    scaled = (grey - low) * (255.0 / (high - low)) if high > low else np.zeros_like(grey)
    return np.rint(scaled).astype(np.uint8)
