"""Bytes to upright RGB pixels. Only this module decodes, so that every method gets the same pixels.

Pillow decodes (cv2 accepts truncated JPEGs silently and crashes on some file names). EXIF orientation is applied, alpha
is laid over white, 16-bit samples are scaled and not clipped, CMYK and palettes are converted, frame 0 of an animation
is taken, colour profiles are ignored, and a header that promises more than MAX_PIXELS is refused before anything is
allocated.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import PIL
from PIL import Image, ImageFile, UnidentifiedImageError

from retrieval_bench.core import BadImage, printable
from retrieval_bench.images.formats import (
    FORMATS,
    HEAD,
    OPTIONAL,
    codecs_version,
    format_of,
    needs,
    opened_as,
    readable,
)

MAX_PIXELS = 100_000_000
MAX_BYTES = 256 * 2**20
DECODER_VERSION = f"1/Pillow-{PIL.__version__}{codecs_version()}"
"""Part of every cache key: raise the first number when decode() changes what it returns."""

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


def decode(data: bytes) -> np.ndarray:
    """Decode an image. Several threads may call this at once.

    Args:
        data: the encoded bytes, in one of `formats.FORMATS`, or in one of `formats.OPTIONAL` whose codec is installed.

    Returns:
        (h, w, 3) uint8 RGB, upright.

    Raises:
        BadImage: The bytes are no image, damaged, or have more than `MAX_PIXELS` pixels.
    """
    if not data:
        raise BadImage("empty file", "the file holds no byte")
    try:
        with _strict_pillow():
            image = Image.open(io.BytesIO(data), formats=opened_as(data))
            image.load()
            return _to_rgb(_upright(image))
    except UnidentifiedImageError:
        kind = format_of(data[:HEAD])
        if kind in OPTIONAL and not readable(kind):
            raise BadImage(f"{kind}, which cannot be read here", needs(kind)) from None
        like = _starts_like(data)
        if like:
            raise BadImage("damaged", f"it starts like {like}, but its header cannot be read") from None
        raise BadImage("not an image", f"no {'/'.join(FORMATS)} image; it starts with {data[:12]!r}") from None
    except Image.DecompressionBombError as error:
        raise BadImage("too many pixels", str(error).partition(", could be")[0]) from None
    except MemoryError:
        raise BadImage("too many pixels", "decoding it takes more memory than there is") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, ... on damage
        raise BadImage("damaged", f"{type(error).__name__}: {error}") from None


_lock = threading.Lock()
_decoding = 0
_before: tuple[bool, int | None]
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)  # as warnings.filterwarnings("ignore", module=...) has it


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow as we need it, whatever the process has set: refuse truncated files, our own pixel limit, no warnings.

    These are globals of the process, so the first thread in sets them and the last one out puts them back. Only our own
    filter is taken out again: `warnings.catch_warnings` puts back a whole list, with threads sometimes the wrong one.
    """
    global _decoding, _before
    with _lock:
        if _decoding == 0:
            _before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
            cast(list, warnings.filters).insert(0, _QUIET)
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this and refuses above twice this
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


def _upright(image: Image.Image) -> Image.Image:
    try:
        method = UPRIGHT.get(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF, by the same many exceptions: the pixels are whole, only their turn is unknown
        method = None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_grey(image)
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
    return np.repeat(np.rint(scaled).astype(np.uint8)[:, :, None], 3, axis=2)


class ImageFiles:
    """Images in files, read when they are needed. Implements `core.Images`.

    Args:
        paths: the files.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = [Path(path) for path in paths]
        self._digests: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray:
        return decode(self.read(row))

    def read(self, row: int) -> bytes:
        """Read the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            The encoded bytes.

        Raises:
            BadImage: The file is missing, no regular file, unreadable, or larger than `MAX_BYTES`.
        """
        path = self.paths[row]
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
                raise BadImage("not a file", f"{kind} has this name")
            if status.st_size > MAX_BYTES:
                raise BadImage("too many bytes", f"{status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
            return path.read_bytes()
        except FileNotFoundError:
            if path.is_symlink():
                raise BadImage("dangling link", f"it points to {printable(os.readlink(path))}") from None
            raise BadImage("missing file", "no file has this name") from None
        except OSError as error:
            raise BadImage("unreadable", f"{error.strerror or error}") from None

    def digest(self, row: int) -> str:
        """Hash the bytes of a file.

        Args:
            row: which image, from 0.

        Returns:
            sha256 (hex) of the bytes; for an unreadable file of the reason, so that fingerprints stay defined.
        """
        if row not in self._digests:
            try:
                content = self.read(row)
            except BadImage as bad:
                content = f"unreadable: {bad.reason}: {bad.detail}".encode()
            self._digests[row] = hashlib.sha256(content).hexdigest()
        return self._digests[row]

    def take(self, rows: Sequence[int]) -> ImageFiles:
        """Select images, in this order."""
        taken = ImageFiles([self.paths[row] for row in rows])
        taken._digests = {new: self._digests[old] for new, old in enumerate(rows) if old in self._digests}
        return taken


class ImageBytes:
    """Encoded images in memory. Implements `core.Images`.

    Args:
        encoded: the bytes of each image.
        digests: what identifies each image for the cache and the fingerprint. None: sha256 (hex) of the bytes. Pass
            digests of the pixels if the bytes of a lossless encoding may differ between library versions.
    """

    def __init__(self, encoded: Sequence[bytes], digests: Sequence[str] | None = None) -> None:
        self.encoded = list(encoded)
        self.digests = list(digests) if digests is not None else [hashlib.sha256(e).hexdigest() for e in self.encoded]

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> np.ndarray:
        return decode(self.encoded[row])

    def read(self, row: int) -> bytes:
        """Return the encoded bytes of one image."""
        return self.encoded[row]

    def digest(self, row: int) -> str:
        """Return the digest of one image."""
        return self.digests[row]

    def take(self, rows: Sequence[int]) -> ImageBytes:
        """Select images, in this order."""
        return ImageBytes([self.encoded[row] for row in rows], [self.digests[row] for row in rows])


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode an image as PNG; `decode` gives the same pixels back.

    Args:
        pixels: (h, w, 3) uint8 RGB.

    Returns:
        The bytes of the PNG file.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
