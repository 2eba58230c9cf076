"""An explanation as one PNG: a band for each method, with the query, what was found and what made it near.

Right and wrong differ by colour and by shape (whole border and tick, broken border and cross), heat by brightness as
well as by colour, inliers by the width of their lines: so that all of it survives colour blindness and a
black-and-white printer.
"""

from __future__ import annotations

import functools
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from retrieval_bench import __version__
from retrieval_bench.explaining.clues import (
    Band,
    BitPair,
    Clue,
    Explanation,
    Found,
    Heat,
    HeatPair,
    Layer,
    MatchPair,
    Shown,
)
from retrieval_bench.report.markup import visible

MOST_WIDTH = 2400
CELL, LEAST_CELL = 452, 230
"""Pixels across what is said of one image that was found; narrower where many are shown."""
MOST_FOUND = 8
ASKED = 300
GAP, MARGIN = 22, 28
THUMB = 168
BESIDE = 160
"""Pixels down what is written beside an image takes: mark, three lines of label, distance, id."""
SMOOTH = 3.5
"""Of 96 places along each side: the blur of heat."""
HIGHEST = 0.99
"""What is hotter than so many places of an image is all the same: a few hot places would leave the others dark."""
SMALLEST_RING = 12
"""Pixels of a bit at twice the size; a smaller one is filled where it differs."""
FEW_LINES = 40
"""Matches that do not agree, as many as are drawn: those would hide the others."""

Colour = tuple[int, int, int]
PAPER: Colour = (255, 255, 255)
SHADE: Colour = (243, 244, 246)
INK: Colour = (24, 26, 30)
SOFT: Colour = (92, 98, 108)
RIGHT: Colour = (0, 98, 178)
WRONG: Colour = (196, 72, 0)
LINE: Colour = (255, 214, 10)
FAINT: Colour = (176, 184, 196)

TITLE, HEAD, BODY, SMALL = 30, 24, 18, 16


@functools.cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@functools.cache
def _has_glyph(letter: str) -> bool:
    """The font's answer to what it does not know is one and the same box."""
    return letter.isspace() or bytes(_font(BODY).getmask(letter)) != bytes(_font(BODY).getmask("\uffff"))


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
    font = _font(size)
    if font.getlength(text) <= room:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = kept // 4 if keep_end else kept
        cut = f"{text[:head].rstrip()}...{text[len(text) - (kept - head) :] if keep_end else ''}"
        if font.getlength(cut) <= room:
            return cut
    return "..."


def wrapped(text: str, room: float, size: int, most: int) -> list[str]:
    """At most `most` lines of at most `room` pixels, broken at blanks and behind - _ and /; the last is cut where there
    is more."""
    lines: list[str] = []
    pieces = re.findall(r"[^\s\-_/]*(?:[\-_/]+|\s+|$)", text)
    while any(pieces) and len(lines) < most - 1:
        count = 1
        while count < len(pieces) and _font(size).getlength("".join(pieces[: count + 1]).rstrip()) <= room:
            count += 1
        if _font(size).getlength(pieces[0].rstrip()) > room:
            break
        lines.append("".join(pieces[:count]).strip())
        pieces = pieces[count:]
    rest = "".join(pieces).strip()
    return [*lines, shortened(rest, room, size)] if rest else lines


def png(explanation: Explanation) -> bytes:
    """The picture, at most MOST_WIDTH pixels wide, as the bytes of a PNG that names the record in its metadata."""
    buffer = io.BytesIO()
    about = PngInfo()
    facts = {
        "Title": f"retrieval_bench explain: {explanation.query.id}",
        "Record": explanation.record,
        "Dataset": explanation.dataset,
        "Query": explanation.query.id,
        "Methods": ", ".join(band.method for band in explanation.bands),
        "Software": f"retrieval_bench {__version__}",
    }
    for key, value in facts.items():
        about.add_itxt(key, visible(value))
    draw(explanation).save(buffer, "PNG", pnginfo=about)
    return buffer.getvalue()


def draw(explanation: Explanation) -> Image.Image:
    most = max((len(band.found) for band in explanation.bands), default=1)
    room = MOST_WIDTH - 2 * MARGIN - ASKED
    cell = max(LEAST_CELL, min(CELL, room // max(most, 1) - GAP))
    # What is said above the bands needs some width, also where one image is shown.
    width = max(2 * MARGIN + ASKED + max(most, 1) * (cell + GAP), 1100)
    head = _head(explanation, width)
    bands = [
        _band(band, explanation.query, width, cell, place % 2 == 1) for place, band in enumerate(explanation.bands)
    ]
    foot = _legend(width, explanation.bands)
    parts = [head, *bands, foot]
    whole = Image.new("RGB", (width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _head(explanation: Explanation, width: int) -> Image.Image:
    room = width - 2 * MARGIN
    query = explanation.query
    lines = [
        (f"{printed(query.label)}: what methods found, and why", TITLE, INK, False),
        (f"query {printed(query.id)}", BODY, INK, True),
        (f"record {printed(explanation.record)} of {printed(explanation.dataset)}", BODY, SOFT, True),
    ]
    if explanation.chosen:
        lines.append((printed(explanation.chosen), BODY, SOFT, False))
    image = Image.new("RGB", (width, MARGIN + sum(size + 10 for _, size, _, _ in lines) + 8), PAPER)
    pen = ImageDraw.Draw(image)
    top = MARGIN
    for text, size, colour, keep_end in lines:
        pen.text((MARGIN, top), shortened(text, room, size, keep_end), colour, _font(size))
        top += size + 10
    return image


def _band(band: Band, query: Shown, width: int, cell: int, shaded: bool) -> Image.Image:
    side = (cell - 8) // 2
    thumb = min(THUMB, side)
    header, above = HEAD + 24, max(thumb, BESIDE) + 22
    heights = [_layer_height(layer, side, width) for layer in band.layers]
    height = header + max(above + sum(heights), ASKED - 20 + 3 * (BODY + 6)) + 18
    image = Image.new("RGB", (width, height), SHADE if shaded else PAPER)
    pen = ImageDraw.Draw(image)
    pen.line((MARGIN, 2, width - MARGIN, 2), FAINT, 2)
    name = shortened(printed(band.method), width - 2 * MARGIN - 260, HEAD)
    pen.text((MARGIN, 14), name, INK, _font(HEAD))
    pen.text((MARGIN + _font(HEAD).getlength(name) + 14, 14 + HEAD - BODY), f"({band.family})", SOFT, _font(BODY))
    side_asked = ASKED - 40
    _paste(image, query.pixels, MARGIN, header, side_asked, side_asked)
    top = header + side_asked + 8
    for line in [*wrapped(f"query: {printed(query.label)}", side_asked, BODY, 2)]:
        pen.text((MARGIN, top), line, INK, _font(BODY))
        top += BODY + 6
    left = MARGIN + ASKED
    for place, found in enumerate(band.found):
        _found(image, found, left + place * (cell + GAP), header, cell, thumb)
    top = header + above
    for layer, layer_height in zip(band.layers, heights, strict=True):
        _layer(image, layer, band.found, query, left, top, cell, side)
        top += layer_height
    return image


def _layer_height(layer: Layer, side: int, width: int) -> int:
    if layer.clues:
        return BODY + 10 + side + 2 * (SMALL + 5) + 16
    return len(_said(layer, width)) * (BODY + 6) + 14


def _said(layer: Layer, width: int) -> list[str]:
    return wrapped(f"{printed(layer.name)}: {printed(layer.about)}", width - 2 * MARGIN - ASKED, BODY, 2)


def _found(image: Image.Image, found: Found, left: int, top: int, cell: int, thumb: int) -> None:
    """The image in its border, and beside it the mark, the label, the distance and the id."""
    pen = ImageDraw.Draw(image)
    colour = RIGHT if found.right else WRONG
    box = _paste(image, found.image.pixels, left + 7, top + 7, thumb - 14, thumb - 14)
    _border(pen, (box[0] - 7, box[1] - 7, box[2] + 6, box[3] + 6), colour, whole=found.right)
    x = left + thumb + 12
    room = left + cell - x
    _mark(pen, x, top + 4, 24, found.right)
    pen.text((x + 34, top + 5), f"{found.rank}", INK, _font(HEAD))
    y = top + 38
    for line in wrapped(printed(found.image.label), room, BODY, 3):
        pen.text((x, y), line, colour, _font(BODY))
        y += BODY + 6
    pen.text((x, y), f"distance {found.distance:.4g}", INK, _font(SMALL))
    pen.text((x, y + SMALL + 7), shortened(printed(found.image.id), room, SMALL, keep_end=True), SOFT, _font(SMALL))


def _border(pen: Any, box: tuple[int, int, int, int], colour: Colour, whole: bool) -> None:
    """Around a box: unbroken for right, broken for wrong."""
    if whole:
        pen.rectangle(box, outline=colour, width=5)
        return
    left, top, right, bottom = box
    for start in range(left, right, 22):
        for y in (top, bottom - 4):
            pen.rectangle((start, y, min(start + 12, right), y + 4), fill=colour)
    for start in range(top, bottom, 22):
        for x in (left, right - 4):
            pen.rectangle((x, start, x + 4, min(start + 12, bottom)), fill=colour)


def _mark(pen: Any, left: int, top: int, side: int, right: bool) -> None:
    """A tick or a cross, drawn, as fonts may lack them."""
    if right:
        points = [(left + 2, top + side * 0.55), (left + side * 0.38, top + side - 3), (left + side - 1, top + 3)]
        pen.line(points, RIGHT, 6, joint="curve")
        return
    inset = 4
    pen.line((left + inset, top + inset, left + side - inset, top + side - inset), WRONG, 6)
    pen.line((left + inset, top + side - inset, left + side - inset, top + inset), WRONG, 6)


def _layer(
    image: Image.Image, layer: Layer, found: Sequence[Found], query: Shown, left: int, top: int, cell: int, side: int
) -> None:
    pen = ImageDraw.Draw(image)
    if not layer.clues:
        for line in _said(layer, image.width):
            pen.text((left, top), line, INK, _font(BODY))
            top += BODY + 6
        return
    said = f"{printed(layer.name)}: {printed(layer.about)}"
    pen.text((left, top), shortened(said, image.width - MARGIN - left, BODY), INK, _font(BODY))
    top += BODY + 10
    for place, (clue, one) in enumerate(zip(layer.clues, found, strict=True)):
        x = left + place * (cell + GAP)
        image.paste(_clue(clue, query, one.image, side), (x, top))
        for row, line in enumerate(wrapped(printed(clue.said), cell, SMALL, 2)):
            pen.text((x, top + side + 5 + row * (SMALL + 5)), line, INK, _font(SMALL))


def _clue(clue: Clue, query: Shown, found: Shown, side: int) -> Image.Image:
    """Query and found image side by side, (side, 2 * side + 8) pixels, with what makes them near."""
    assert query.pixels is not None
    assert found.pixels is not None
    if isinstance(clue, HeatPair):
        return _heat_pair(clue, query.pixels, found.pixels, side)
    if isinstance(clue, MatchPair):
        return _match_pair(clue, query.pixels, found.pixels, side)
    return _bit_pair(clue, side)


def _blank(side: int, times: int = 1) -> Image.Image:
    return Image.new("RGB", (times * (2 * side + 8), times * side), PAPER)


# --- heat -------------------------------------------------------------------------------------------------------------


def _heat_pair(clue: HeatPair, query: np.ndarray, found: np.ndarray, side: int) -> Image.Image:
    canvas = _blank(side)
    for place, (pixels, heat) in enumerate(((query, clue.query), (found, clue.found))):
        values = _density(heat)
        small = _fitted(pixels, side, side)
        most = float(np.quantile(values, HIGHEST))
        shown = _heated(small, values / most if most > 0 else np.zeros_like(values), heat)
        at = place * (side + 8) + (side - small.shape[1]) // 2, (side - small.shape[0]) // 2
        canvas.paste(Image.fromarray(shown), at)
    return canvas


def _density(heat: Heat) -> np.ndarray:
    """What a unit of area adds, nothing where it takes away; smoothed, so that grids of any size look alike."""
    import cv2

    top, left, bottom, right = heat.box
    values = np.maximum(heat.values, 0) * heat.values.size / max((bottom - top) * (right - left), 1e-9)
    big = cv2.resize(values, (96, 96), interpolation=cv2.INTER_AREA if min(values.shape) > 96 else cv2.INTER_CUBIC)
    smooth: np.ndarray = np.maximum(cv2.GaussianBlur(big, (0, 0), SMOOTH), 0)
    return smooth


def _heated(pixels: np.ndarray, strength: np.ndarray, heat: Heat) -> np.ndarray:
    """pixels: (h, w, 3) uint8. strength: (a, a), 0 to 1, over the heat's box. Dark and grey where nothing is, bright
    and coloured where much is."""
    import cv2

    height, width = pixels.shape[:2]
    top, left, bottom, right = (
        round(share * length) for share, length in zip(heat.box, (height, width, height, width), strict=True)
    )
    top, left = min(top, height - 1), min(left, width - 1)
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    mask = np.zeros((height, width))
    mask[top:bottom, left:right] = np.clip(
        cv2.resize(strength, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR), 0, 1
    )
    tint = cv2.applyColorMap(np.rint(mask * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1].astype(np.float64)
    grey = pixels.astype(np.float64) @ (0.299, 0.587, 0.114)
    base = (0.42 + 0.38 * mask[..., None]) * (0.6 * grey[..., None] + 0.4 * pixels)
    shown = np.clip(base + 0.62 * mask[..., None] ** 0.7 * tint, 0, 255).astype(np.uint8)
    if heat.box != (0.0, 0.0, 1.0, 1.0):  # what the network did not see is crossed out
        image = Image.fromarray(shown)
        pen = ImageDraw.Draw(image)
        for start in range(-height, width, 9):
            pen.line((start, height, start + height, 0), (120, 120, 120), 1)
        inside = Image.fromarray(shown[top:bottom, left:right])
        image.paste(inside, (left, top))
        pen.rectangle((left, top, right - 1, bottom - 1), outline=(235, 235, 235))
        return np.asarray(image)
    return shown


# --- matches ----------------------------------------------------------------------------------------------------------


def _match_pair(clue: MatchPair, query: np.ndarray, found: np.ndarray, side: int) -> Image.Image:
    times = 2  # drawn at twice the size, so that lines are smooth
    canvas = _blank(side, times)
    ends = []
    for place, (pixels, points) in enumerate(((query, clue.query), (found, clue.found))):
        small = _fitted(pixels, times * side, times * side)
        pale = 0.55 * small + 0.25 * small.mean(axis=2, keepdims=True)
        x = times * place * (side + 8) + (times * side - small.shape[1]) // 2
        y = (times * side - small.shape[0]) // 2
        canvas.paste(Image.fromarray(np.clip(pale, 0, 255).astype(np.uint8)), (x, y))
        ends.append(points * (small.shape[1], small.shape[0]) + (x, y))
    pen = ImageDraw.Draw(canvas)
    others = np.flatnonzero(~clue.agree)
    for row in others[np.linspace(0, len(others) - 1, min(FEW_LINES, len(others))).astype(int)]:
        (x0, y0), (x1, y1) = ends[0][row], ends[1][row]
        pen.line((x0, y0, x1, y1), FAINT, 1)
    for row in np.flatnonzero(clue.agree):
        (x0, y0), (x1, y1) = ends[0][row], ends[1][row]
        pen.line((x0, y0, x1, y1), INK, 7)
        pen.line((x0, y0, x1, y1), LINE, 4)
        for x, y in ((x0, y0), (x1, y1)):
            pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline=INK, width=7)
            pen.ellipse((x - 7, y - 7, x + 7, y + 7), outline=LINE, width=4)
    return canvas.resize((2 * side + 8, side), Image.Resampling.LANCZOS)


# --- bits -------------------------------------------------------------------------------------------------------------


def _bit_pair(clue: BitPair, side: int) -> Image.Image:
    times = 2
    canvas = _blank(side, times)
    pen = ImageDraw.Draw(canvas)
    differ = clue.query != clue.found
    rows, columns = differ.shape
    cell = times * side // max(rows, columns)
    for place, bits in enumerate((clue.query, clue.found)):
        x0 = times * place * (side + 8) + (times * side - columns * cell) // 2
        y0 = (times * side - rows * cell) // 2
        for row in range(rows):
            for column in range(columns):
                x, y = x0 + column * cell, y0 + row * cell
                fill = (60, 66, 76) if bits[row, column] else (226, 229, 234)
                pen.rectangle((x + 1, y + 1, x + cell - 2, y + cell - 2), fill=fill)
                if differ[row, column]:
                    colour = (255, 150, 60) if bits[row, column] else WRONG
                    inset = cell // 5
                    box = (x + inset, y + inset, x + cell - 1 - inset, y + cell - 1 - inset)
                    if cell < SMALLEST_RING:
                        pen.rectangle(box, fill=colour)
                    else:
                        pen.ellipse(box, outline=colour, width=max(cell // 9, 2))
    return canvas.resize((2 * side + 8, side), Image.Resampling.LANCZOS)


# --- what all need ----------------------------------------------------------------------------------------------------


def _fitted(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image as large as fits, its shape kept; small ones are enlarged."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, way))


def _paste(
    image: Image.Image, pixels: np.ndarray | None, left: int, top: int, width: int, height: int
) -> tuple[int, int, int, int]:
    """The image in the upper left corner of this room; where it is: left, top, right, bottom."""
    if pixels is None:
        pen = ImageDraw.Draw(image)
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=SOFT)
        pen.text((left + 8, top + 8), "unreadable", SOFT, _font(SMALL))
        return left, top, left + width, top + height
    small = _fitted(pixels, width, height)
    image.paste(Image.fromarray(small), (left, top))
    return left, top, left + small.shape[1], top + small.shape[0]


def _legend(width: int, bands: Sequence[Band]) -> Image.Image:
    """What marks, heat, lines and rings mean; only of what is in the picture."""
    kinds = {type(clue) for band in bands for layer in band.layers for clue in layer.clues}
    image = Image.new("RGB", (width, 44 + 34 * (1 + len(kinds))), PAPER)
    pen = ImageDraw.Draw(image)
    pen.line((MARGIN, 2, width - MARGIN, 2), FAINT, 2)
    top = 22
    _mark(pen, MARGIN, top - 2, 24, True)
    text = "unbroken border: the query's label"
    pen.text((MARGIN + 40, top), text, INK, _font(BODY))
    x = MARGIN + 40 + int(_font(BODY).getlength(text)) + 50
    _mark(pen, x, top - 2, 24, False)
    pen.text((x + 40, top), "broken border: another label", INK, _font(BODY))
    words = {
        HeatPair: "Heat: bright places add to the similarity, dark ones add nothing or take away; each image has its "
        "own scale. Hatched: not seen by the network.",
        MatchPair: "Lines: matches. Thick, with rings: those that agree on one affine map between the images; thin: "
        f"the others, at most {FEW_LINES} of them.",
        BitPair: "Bits: dark is 1, light is 0, left of the query, right of the image found. Rings: bits that differ.",
    }
    for kind, sentence in words.items():
        if kind in kinds:
            top += 34
            pen.text((MARGIN, top), shortened(sentence, width - 2 * MARGIN, BODY), SOFT, _font(BODY))
    return image
