"""Text in a picture: what the font can draw of it, and in how much room."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

from PIL import ImageFont

from retrieval_bench.report.markup import visible

TITLE, HEAD, BODY, SMALL = 30, 24, 18, 16


@functools.cache
def font(size: int) -> Any:
    return ImageFont.load_default(size)


@functools.cache
def _has_glyph(letter: str) -> bool:
    """The font's answer to what it does not know is one and the same box."""
    return letter.isspace() or bytes(font(BODY).getmask(letter)) != bytes(font(BODY).getmask("\uffff"))


def printed(text: str) -> str:
    """The text as the font can draw it: accented letters that it lacks without their accents, what else it lacks, what
    shows nothing and what turns the writing direction as [U+XXXX]."""
    return "".join(map(_drawable, visible(text)))


def _drawable(letter: str) -> str:
    if _has_glyph(letter):
        return letter
    base = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return base if base and all(map(_has_glyph, base)) else f"[U+{ord(letter):04X}]"


def shortened(text: str, room: float, size: int, keep_end: bool = False) -> str:
    """The text cut to `room` pixels; keep_end: from its middle, as the end of a path says most."""
    letters = font(size)
    if letters.getlength(text) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = kept // 4 if keep_end else kept
        cut = f"{text[:head].rstrip()}...{text[len(text) - (kept - head) :] if keep_end else ''}"
        if letters.getlength(cut) <= room:
            return cut
    return "..."


def wrapped(text: str, room: float, size: int, most: int) -> list[str]:
    """At most `most` lines of at most `room` pixels, broken at blanks and behind - _ and /; the last is cut where there
    is more."""
    lines: list[str] = []
    pieces = re.findall(r"[^\s\-_/]*(?:[\-_/]+|\s+|$)", text)
    while any(pieces) and len(lines) < most - 1:
        count = 1
        while count < len(pieces) and font(size).getlength("".join(pieces[: count + 1]).rstrip()) <= room:
            count += 1
        if font(size).getlength(pieces[0].rstrip()) > room:
            break
        lines.append("".join(pieces[:count]).strip())
        pieces = pieces[count:]
    rest = "".join(pieces).strip()
    return [*lines, shortened(rest, room, size)] if rest else lines
