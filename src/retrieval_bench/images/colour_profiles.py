"""Pictures with a colour profile (Adobe RGB, Display P3, ProPhoto, those of CMYK inks, ...) in sRGB.

The same shirt has other numbers in ProPhoto than in sRGB; whoever compares numbers takes it for another shirt.
littlecms converts, relative to the white of each, with black to black.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms

CONVERTED = "in another colour space, converted to sRGB"
IGNORED = "with a colour profile that cannot be used, ignored"

ALIKE = 2
"""Of 255: where a profile changes no channel of any colour by more, it is sRGB by another name, and left alone."""


def in_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """Convert by the profile that the file holds.

    Args:
        image: of any mode, loaded.
        profile: the ICC profile.

    Returns:
        The image, with alpha where it had alpha, and CONVERTED, IGNORED, or "" where nothing was to be done.
    """
    if image.mode in ("P", "PA", "LA", "RGBa") or "transparency" in image.info:
        clear = image.mode != "P" or "transparency" in image.info
        grey = image.mode == "LA" and _space(profile) == "GRAY"
        image = image.convert("LA" if grey else "RGBA" if clear else "RGB")
    alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
    mode = {"RGBA": "RGB", "LA": "L", "1": "L"}.get(image.mode, image.mode)
    transform = _transform(profile, mode)
    if transform is None:
        return image, IGNORED
    if transform is _NONE_NEEDED:
        return image, ""
    converted = transform.apply(image.convert(mode))
    if alpha is not None:
        converted.putalpha(alpha)
    return converted, CONVERTED


_NONE_NEEDED = object()


def _space(profile: bytes) -> str:
    """The colour space by the header of a profile: "RGB", "GRAY", "CMYK", ..."""
    return profile[16:20].decode("ascii", "replace").strip()


@functools.lru_cache(maxsize=64)  # a shop's pictures have a handful
def _transform(profile: bytes, mode: str) -> Any:
    """An ImageCmsTransform to sRGB; _NONE_NEEDED where it would change nothing; None where it cannot be used."""
    if _space(profile) != {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}.get(mode):
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _srgb(),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        colours = _colours(mode)
        if colours is not None:
            before = np.asarray(colours.convert("RGB"), np.int16)
            if np.abs(np.asarray(transform.apply(colours), np.int16) - before).max() <= ALIKE:
                return _NONE_NEEDED
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _colours(mode: str) -> Image.Image | None:
    """Colours from all over the space; None where numbers of sRGB mean nothing."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if mode == "RGB":
        return Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3))
    return None
