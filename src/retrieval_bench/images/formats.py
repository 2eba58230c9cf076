"""Which files are images: suffixes, what the first bytes say, and which codecs are installed here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import re
import warnings
from importlib import metadata
from typing import NamedTuple

import PIL.features
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Pillow's names of what is read without an extra."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".jif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Suffixes of these, in lower case."""

HEAD = 64
"""So many first bytes tell the format."""


class Optional(NamedTuple):
    """A format that is read only where its codec is installed.

    pillow: Pillow's name of it. plugin: the module that brings it, "" where Pillow itself does; distribution: what
    installs that module. needs: how to get it, for the sentence that says that it is not there.
    """

    pillow: str
    suffixes: tuple[str, ...]
    plugin: str
    distribution: str
    needs: str


OPTIONAL = {
    "HEIF": Optional(
        "HEIF",
        (".heic", ".heif", ".hif", ".heics", ".heifs"),
        "pillow_heif",
        "pillow-heif",
        "pip install 'retrieval-bench[heif]'",
    ),
    "JPEG XL": Optional("JXL", (".jxl",), "pillow_jxl", "pillow-jxl-plugin", "pip install 'retrieval-bench[jxl]'"),
    "JPEG 2000": Optional(
        "JPEG2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"), "", "", "a Pillow that is built with OpenJPEG"
    ),
    "AVIF": Optional("AVIF", (".avif", ".avifs"), "", "", "a Pillow that is built with libavif"),
}
"""Name for people -> the format."""

_MEANT = {
    **dict.fromkeys((".jpg", ".jpeg", ".jfif", ".jpe", ".jif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    ".png": "PNG",
    ".webp": "WEBP",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
"""Suffix -> the format that it promises."""
_SUFFIX_OF = {suffix: name for name, optional in OPTIONAL.items() for suffix in optional.suffixes}
_PILLOW_FEATURE = {"JPEG 2000": "jpg_2000", "AVIF": "avif"}
ONE_BY_ONE = ("GIF", "TIFF")
"""Formats whose pictures Pillow counts by walking through all of them; there may be a million."""
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}


def format_of(head: bytes) -> str:
    """The image format whose signature these first bytes bear: a name of FORMATS or of OPTIONAL; "" for none."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature) and (name != "BMP" or _is_bitmap(head)):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
        if head[8:12] in _AVIF_BRANDS or (brands & _AVIF_BRANDS and head[8:12] in (b"mif1", b"msf1")):
            return "AVIF"
        return "HEIF" if brands & _HEIF_BRANDS else ""
    if re.match(rb"P[1-6]\s+[#\d]", head):  # a width, or a remark before it
        return "PPM"
    return ""


def is_float_map(head: bytes) -> bool:
    """Whether these first bytes are those of a PFM file, which Pillow takes for a PPM of one grey channel."""
    return re.match(rb"P[fF]\s+[#\d]", head) is not None


def _is_bitmap(head: bytes) -> bool:
    """Two letters are little evidence: the size of the header behind them must be one that bitmaps have."""
    return int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)


@functools.cache
def readable(name: str) -> bool:
    """Whether a format of FORMATS or OPTIONAL can be read here. Loads no codec."""
    if name in _PILLOW_FEATURE:
        return bool(PIL.features.check(_PILLOW_FEATURE[name]))
    return name not in OPTIONAL or importlib.util.find_spec(OPTIONAL[name].plugin) is not None


def optional_suffix(suffix: str) -> str:
    """The name in OPTIONAL of the format that files of this suffix (lower case) have; "" for none."""
    return _SUFFIX_OF.get(suffix, "")


def misnamed(suffix: str, head: bytes) -> bool:
    """Whether a file of this suffix (lower case) is an image of another format, by its first bytes."""
    meant = _MEANT.get(suffix) or optional_suffix(suffix)
    found = format_of(head)
    return bool(meant and found) and found != meant


def needs(name: str) -> str:
    """What to do so that a format of OPTIONAL can be read, in one sentence."""
    return f"an image of the format {name}; it needs {OPTIONAL[name].needs}"


def opened_as(data: bytes) -> tuple[str, ...]:
    """Pillow's names of the formats to try on these bytes; a codec that they need is loaded now."""
    name = format_of(data[:HEAD])
    if name not in OPTIONAL or name == "AVIF" or not readable(name):
        return FORMATS
    _load(name)
    return (OPTIONAL[name].pillow,)


def has_frames(data: bytes) -> bool:
    """Whether an image has more pictures than the one that is decoded: an animation, or pages."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=opened_as(data)) as image:
                if image.format not in ONE_BY_ONE:
                    return frames_told(image)
                image.seek(1)
                return True
    except Exception:  # by the same many exceptions as in decoding: nothing is known of frames
        return False


def frames_told(image: Image.Image) -> bool:
    """Whether the header tells of several pictures; for what Pillow has opened, of a format that is not ONE_BY_ONE."""
    # MPO is what phones write: a JPEG with a preview or a depth map behind it.
    return image.format != "MPO" and getattr(image, "n_frames", 1) > 1


@functools.cache
def _load(name: str) -> None:
    plugin = OPTIONAL[name].plugin
    if plugin == "pillow_heif":
        importlib.import_module("pillow_heif").register_heif_opener()
    elif plugin:
        importlib.import_module("pillow_jxl")  # registers itself


@functools.cache
def codecs_version() -> str:
    """Version of each installed codec that is no part of Pillow, as "/pillow-heif-1.1"; "" where there is none."""
    there = (one.distribution for name, one in OPTIONAL.items() if one.distribution and readable(name))
    return "".join(f"/{name}-{metadata.version(name)}" for name in there)
