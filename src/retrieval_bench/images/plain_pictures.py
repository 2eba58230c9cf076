"""Plain 8-bit JPEG and WebP, decoded by OpenCV: the pixels that Pillow gives, sooner, without a copy and on all cores.

Two libraries that are built apart give the same pixels as long as they do the same arithmetic. Once a process, for each
format, small pictures of all kinds are decoded by both; where one differs, Pillow decodes that format here. PNG is
always Pillow's: OpenCV took nearly twice as long.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from retrieval_bench.images.jpeg_markers import is_sound


def pixels_of(data: bytes, image: Image.Image) -> np.ndarray | None:
    """The pixels of a plain picture.

    Args:
        data: the encoded bytes.
        image: the same, opened by Pillow and not loaded.

    Returns:
        (h, w, 3) uint8 RGB, not turned; None where Pillow must decode: the picture is not plain, or not sound.
    """
    if not _is_plain(data, image) or not _agree("JPEG" if image.format == "MPO" else str(image.format)):
        return None
    return _decoded(data, image.size)


def pixels_of_bare(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    """The same of a JPEG that `jpeg_markers.bare_size` gave the size of: Pillow need not open it."""
    return _decoded(data, size) if _agree("JPEG") else None


def _decoded(data: bytes, size: tuple[int, int]) -> np.ndarray | None:
    import cv2

    rgb = getattr(cv2, "IMREAD_COLOR_RGB", None)  # since OpenCV 4.11
    flags = (cv2.IMREAD_COLOR if rgb is None else rgb) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint8 or pixels.shape != (size[1], size[0], 3):
        return None
    return pixels if rgb is not None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _is_plain(data: bytes, image: Image.Image) -> bool:
    """Three or one channels of 8 bits, one frame, no alpha, and to the end what its format wants."""
    if image.mode not in ("RGB", "L") or "transparency" in image.info:
        return False
    if image.format in ("JPEG", "MPO"):  # of several pictures in one JPEG, the first
        return is_sound(data)
    if getattr(image, "is_animated", False):
        return False
    return image.format == "WEBP" and image.mode == "RGB" and data[12:16] in (b"VP8 ", b"VP8L")


@functools.cache
def _agree(kind: str) -> bool:
    """Whether OpenCV and Pillow give the same pixels of small pictures of this format."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((45, 35))
    options: dict[str, list[dict[str, object]]] = {
        "JPEG": [
            {"subsampling": s, "progressive": p, "quality": q} for s in (0, 1, 2) for p in (0, 1) for q in (40, 95)
        ],
        "WEBP": [{"quality": 40}, {"quality": 90}, {"lossless": True}],
    }
    for some in options[kind]:
        for image in (picture, picture.convert("L")):
            buffer = io.BytesIO()
            image.save(buffer, kind, **some)
            data = buffer.getvalue()
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            if not np.array_equal(_decoded(data, image.size), expected):  # type: ignore[arg-type]
                return False
    return True
