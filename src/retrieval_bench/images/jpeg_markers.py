"""The markers of a JPEG file: is its structure sound, and where the last one is missing, is every pixel there?

Some cameras, downloads and tools leave the end marker out. The scans, by their headers, must then cover all
coefficients, and the last of them must be complete: whatever bytes follow, the pixels stay the same. Where a part of
the pixels is missing, the bytes that follow are read as those pixels.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

END = b"\xff\xd9"

_FILLINGS = [hashlib.sha512(bytes([each])).digest().replace(b"\xff", b"\xfe") for each in range(8)]  # without order
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # neither a 255 of the pixels nor a restart
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_OF_FRAMES = (*_HUFFMAN_FRAMES, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # each with a length behind it
_FRAME_END, _SCAN, _TABLES = 0xD9, 0xDA, 0xDB
_SILENT = (0xC4, 0xDD, 0xE0, 0xFE)  # Huffman tables, restarts, JFIF and remarks say nothing that pixels depend on


def segments(data: bytes, place: int = 2) -> Iterator[tuple[int, bytes]]:
    """(marker, what belongs to it) of each marker with a length, up to the end marker; it is the last, with b"".

    It ends before where a marker, or its length, is none that a Huffman-coded picture has. place: where it begins.
    """
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == _FRAME_END:
            yield marker, b""
            return
        length = int.from_bytes(data[place : place + 2], "big")
        if marker not in _OF_FRAMES or length < 2 or place + length > len(data):
            return
        yield marker, data[place + 2 : place + length]
        place += length


def is_sound(data: bytes, place: int = 2) -> bool:
    """Whether every marker, from the first at or behind this place to that of the end, is one that belongs there."""
    last = 0
    for marker, _ in segments(data, place):
        last = marker
    return last == _FRAME_END


def bare_size(data: bytes) -> tuple[int, int] | None:
    """The size of a JPEG that says nothing beside its pixels: no EXIF, no colour profile, no further picture.

    Pillow opens such a file without a complaint, and has nothing to tell of it but its size.

    Args:
        data: the bytes of any file.

    Returns:
        Width and height; None also where something in the header is unusual, or the structure is not sound.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    place, size = 2, None
    while data[place : place + 1] == b"\xff":  # one segment right behind the other
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if length < 2 or place + 2 + length > len(data):
            return None
        if marker == _SCAN:
            return size if is_sound(data, place) else None
        if marker in _HUFFMAN_FRAMES:
            frame = data[place + 4 : place + 2 + length]
            if size or len(frame) < 6 or frame[0] != 8 or frame[5] not in (1, 3) or len(frame) != 6 + 3 * frame[5]:
                return None
            size = int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
        elif marker == _TABLES:
            if (length - 2) % 65 or max(data[place + 4 : place + 2 + length : 65], default=0) > 15:
                return None
        elif marker not in _SILENT or (marker == 0xE0 and length < 16):
            return None
        place += 2 + length
    return None


def with_end(data: bytes, filling: bytes = b"") -> bytes:
    """The bytes of a file, and an end marker."""
    return data.rstrip(b"\xff") + filling + END  # half of the marker may be there


def lacks_only_its_end(data: bytes) -> bool:
    """Whether a JPEG that cannot be decoded as it is lacks its end marker and nothing else.

    Args:
        data: the bytes of the file.

    Returns:
        False also where a JPEG of a rare kind cannot be judged.
    """
    if is_sound(data) or not _all_scans_are_there(data):
        return False
    pixels = []
    last = 0xD7  # the restart before the first
    for restart in _RESTART.finditer(data, data.rfind(b"\xff\xda")):
        last = restart[1][0]
    following = bytes([0xFF, 0xD0 + (last + 1) % 8])  # what is behind the last restart is read only after the next
    for filling in (b"", *_FILLINGS, *(following + each for each in _FILLINGS)):
        try:
            pixels.append(np.asarray(Image.open(io.BytesIO(with_end(data, filling)), formats=("JPEG",))))
        except Exception:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError, ... on damage
            return False
    return all(np.array_equal(pixels[0], other) for other in pixels[1:])


def _all_scans_are_there(data: bytes) -> bool:
    """Whether the headers of the scans announce every bit of every coefficient of every component."""
    lowest: dict[tuple[int, int], int] = {}  # (component, coefficient) -> the lowest bit that came; 0 is the last
    for marker, segment in segments(with_end(data)):
        if marker in _HUFFMAN_FRAMES and len(segment) >= 6:
            components = segment[6 : 6 + 3 * segment[5] : 3]
            lowest = {(component, place): 1 for component in components for place in range(64)}
        elif marker == _SCAN and segment and len(segment) >= 4 + 2 * segment[0]:
            count = segment[0]
            first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
            for component in segment[1 : 1 + 2 * count : 2]:
                for place in range(first, min(last, 63) + 1):
                    lowest[component, place] = bits & 15
    return bool(lowest) and not any(lowest.values())
