"""The process that decodes what strangers send: with little memory, for a moment each, and with nothing to steal.

It gets encoded bytes and answers with pixels, or with a picture that is encoded anew and holds nothing but pixels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.serving.decoding.channel import Channel, Closed
from retrieval_bench.system.child_process import own_streams

_JPEG_FROM = 4_000_000
"""Pixels from which a picture is kept as JPEG, whatever it was: a PNG of a large photo takes tens of megabytes."""
_LOSSLESS = ("PNG", "GIF", "BMP", "TIFF", "PPM")
_QUALITY = 95
_SHOWN_QUALITY = 85


def main() -> None:
    """Answer until nobody asks any more. argv: the descriptor of shared memory or -1, and bytes of memory to use."""
    reader, writer = own_streams()
    shared, most_bytes = int(sys.argv[1]), int(sys.argv[2])
    channel = Channel(reader, writer, None if shared < 0 else shared)
    from retrieval_bench.system.timing import steady_allocator

    steady_allocator()  # else the system takes the memory of each picture back, and fetching it again takes longer
    _warm_up()
    _limit_memory(most_bytes)
    work: dict[str, Callable[..., tuple[dict[str, Any], list[bytes | np.ndarray]]]] = {
        "decode": _decode,
        "keep": _keep,
        "show": _show,
    }
    channel.send({"ready": True})
    while True:
        try:
            header, payloads = channel.receive()
            channel.send(*_answer(work[header["do"]], header, payloads[0].tobytes()))
        except Closed:
            return


def _answer(
    do: Callable[..., tuple[dict[str, Any], list[bytes | np.ndarray]]], header: dict[str, Any], data: bytes
) -> tuple[dict[str, Any], list[bytes | np.ndarray]]:
    from retrieval_bench.core import BadImage

    try:
        return do(data, **header["how"])
    except BadImage as bad:
        return {"reason": bad.reason, "detail": bad.detail}, []
    except MemoryError:
        return {"reason": "too many pixels", "detail": "decoding it takes more memory than it may"}, []


def _decode(data: bytes, *, max_pixels: int, wanted: int) -> tuple[dict[str, Any], list[bytes | np.ndarray]]:
    """The pixels that every method gets."""
    from retrieval_bench.images.decoding import Decoding, decoded

    pixels, notes = decoded(data, Decoding(max_pixels, wanted))
    return {"shape": pixels.shape, "notes": notes}, [np.ascontiguousarray(pixels)]


def _keep(data: bytes, *, max_pixels: int) -> tuple[dict[str, Any], list[bytes | np.ndarray]]:
    """The picture encoded anew, and the pixels of that. What was beside the pixels (EXIF, places, remarks) is gone."""
    from retrieval_bench.images.decoding import Decoding, decode
    from retrieval_bench.images.formats import HEAD, format_of

    how = Decoding(max_pixels=max_pixels)
    pixels = decode(data, how)
    lossless = format_of(data[:HEAD]) in _LOSSLESS and pixels.shape[0] * pixels.shape[1] < _JPEG_FROM
    encoded = _png(pixels) if lossless else _jpeg(pixels, _QUALITY)
    kept = pixels if lossless else decode(encoded, how)
    return {"shape": kept.shape, "suffix": ".png" if lossless else ".jpg"}, [np.ascontiguousarray(kept), encoded]


def _show(data: bytes, *, max_pixels: int, side: int) -> tuple[dict[str, Any], list[bytes | np.ndarray]]:
    """A JPEG of at most `side` pixels along its longer side."""
    from PIL import Image

    from retrieval_bench.images.decoding import Decoding, decode

    pixels = decode(data, Decoding(max_pixels=max_pixels, wanted=side // 2))
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return {}, [_jpeg(np.asarray(image), _SHOWN_QUALITY)]


def _png(pixels: np.ndarray) -> bytes:
    from retrieval_bench.images.reading import encode_png

    return encode_png(pixels)


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _warm_up() -> None:
    """Load what decoding needs, before memory is limited and somebody waits."""
    import cv2

    from retrieval_bench.images.decoding import decode

    cv2.setNumThreads(1)
    blank = np.zeros((8, 8, 3), np.uint8)
    for encoded in (_png(blank), _jpeg(blank, _QUALITY)):
        decode(encoded)


def _limit_memory(most_bytes: int) -> None:
    """Allow so much more than the libraries have taken by now. Elsewhere than on Linux the parent looks after it."""
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + most_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what was being decoded is nobody's business
