"""An explanation as one PNG: a band for each method, with the query, what was found and what made it near.

Right and wrong differ by colour and by shape (whole border and tick, broken border and cross), heat by brightness as
well as by colour, inliers by the width of their lines: so that all of it survives colour blindness and a
black-and-white printer.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from retrieval_bench import __version__
from retrieval_bench.explaining.clues import (
    Band,
    BitPair,
    Explanation,
    HeatPair,
    MatchPair,
    Neighbour,
    PartClues,
    Shown,
    WordPair,
)
from retrieval_bench.explaining.lettering import BODY, HEAD, SMALL, TITLE, font, printed, shortened, wrapped
from retrieval_bench.explaining.pairs import FEW_LINES, fitted, pair_of
from retrieval_bench.explaining.palette import FAINT, INK, PAPER, RIGHT, SHADE, SOFT, WRONG, Colour
from retrieval_bench.report.markup import visible

MOST_WIDTH = 2400
CELL, LEAST_CELL = 452, 230
"""Pixels across what is said of one image that was found; narrower where many are shown."""
ASKED = 300
GAP, MARGIN = 22, 28
THUMB = 168
BESIDE = 160
"""Pixels down what is written beside an image takes: mark, three lines of label, distance, id."""


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
        (f"{printed(query.label)}: what the methods found, and why", TITLE, INK, False),
        (f"query {printed(query.id)}", BODY, INK, True),
        *([(f"text: {printed(query.text)}", BODY, INK, False)] if query.text else []),
        (f"record {printed(explanation.record)} of {printed(explanation.dataset)}", BODY, SOFT, True),
    ]
    if explanation.chosen:
        lines.append((printed(explanation.chosen), BODY, SOFT, False))
    image = Image.new("RGB", (width, MARGIN + sum(size + 10 for _, size, _, _ in lines) + 8), PAPER)
    pen = ImageDraw.Draw(image)
    top = MARGIN
    for text, size, colour, keep_end in lines:
        pen.text((MARGIN, top), shortened(text, room, size, keep_end), colour, font(size))
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
    pen.text((MARGIN, 14), name, INK, font(HEAD))
    pen.text((MARGIN + font(HEAD).getlength(name) + 14, 14 + HEAD - BODY), f"({band.family})", SOFT, font(BODY))
    side_asked = ASKED - 40
    _paste(image, query.pixels, MARGIN, header, side_asked, side_asked)
    top = header + side_asked + 8
    for line in [*wrapped(f"query: {printed(query.label)}", side_asked, BODY, 2)]:
        pen.text((MARGIN, top), line, INK, font(BODY))
        top += BODY + 6
    left = MARGIN + ASKED
    for place, found in enumerate(band.found):
        _found(image, found, left + place * (cell + GAP), header, cell, thumb)
    top = header + above
    for layer, layer_height in zip(band.layers, heights, strict=True):
        _layer(image, layer, band.found, query, left, top, cell, side)
        top += layer_height
    return image


def _layer_height(layer: PartClues, side: int, width: int) -> int:
    if layer.clues:
        return BODY + 10 + side + 2 * (SMALL + 5) + 16
    return len(_said(layer, width)) * (BODY + 6) + 14


def _said(layer: PartClues, width: int) -> list[str]:
    return wrapped(f"{printed(layer.name)}: {printed(layer.about)}", width - 2 * MARGIN - ASKED, BODY, 2)


def _found(image: Image.Image, found: Neighbour, left: int, top: int, cell: int, thumb: int) -> None:
    """The image in its border, and beside it the mark, the label, the distance and the id."""
    pen = ImageDraw.Draw(image)
    colour = RIGHT if found.right else WRONG
    box = _paste(image, found.image.pixels, left + 7, top + 7, thumb - 14, thumb - 14)
    _border(pen, (box[0] - 7, box[1] - 7, box[2] + 6, box[3] + 6), colour, whole=found.right)
    x = left + thumb + 12
    room = left + cell - x
    _mark(pen, x, top + 4, 24, found.right)
    pen.text((x + 34, top + 5), f"{found.rank}", INK, font(HEAD))
    y = top + 38
    for line in wrapped(printed(found.image.label), room, BODY, 3):
        pen.text((x, y), line, colour, font(BODY))
        y += BODY + 6
    pen.text((x, y), f"distance {found.distance:.4g}", INK, font(SMALL))
    pen.text((x, y + SMALL + 7), shortened(printed(found.image.id), room, SMALL, keep_end=True), SOFT, font(SMALL))


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
    image: Image.Image,
    layer: PartClues,
    found: Sequence[Neighbour],
    query: Shown,
    left: int,
    top: int,
    cell: int,
    side: int,
) -> None:
    pen = ImageDraw.Draw(image)
    if not layer.clues:
        for line in _said(layer, image.width):
            pen.text((left, top), line, INK, font(BODY))
            top += BODY + 6
        return
    said = f"{printed(layer.name)}: {printed(layer.about)}"
    pen.text((left, top), shortened(said, image.width - MARGIN - left, BODY), INK, font(BODY))
    top += BODY + 10
    for place, (clue, one) in enumerate(zip(layer.clues, found, strict=True)):
        x = left + place * (cell + GAP)
        image.paste(pair_of(clue, query, one.image, side), (x, top))
        for row, line in enumerate(wrapped(printed(clue.said), cell, SMALL, 2)):
            pen.text((x, top + side + 5 + row * (SMALL + 5)), line, INK, font(SMALL))


def _paste(
    image: Image.Image, pixels: np.ndarray | None, left: int, top: int, width: int, height: int
) -> tuple[int, int, int, int]:
    """The image in the upper left corner of this room; where it is: left, top, right, bottom."""
    if pixels is None:
        pen = ImageDraw.Draw(image)
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=SOFT)
        pen.text((left + 8, top + 8), "unreadable", SOFT, font(SMALL))
        return left, top, left + width, top + height
    small = fitted(pixels, width, height)
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
    pen.text((MARGIN + 40, top), text, INK, font(BODY))
    x = MARGIN + 40 + int(font(BODY).getlength(text)) + 50
    _mark(pen, x, top - 2, 24, False)
    pen.text((x + 40, top), "broken border: another label", INK, font(BODY))
    words = {
        HeatPair: "Heat: bright regions add to the similarity, dark ones add nothing or reduce it; each image has its "
        "own scale. Hatched: not seen by the network.",
        MatchPair: "Lines: matches. Thick, with rings: those that agree on one affine map between the images; thin: "
        f"the others, at most {FEW_LINES} of them.",
        WordPair: "Words: those of the query, each over a bar as long as what it adds (blue) or takes away (orange); "
        "beside them the text that was found.",
        BitPair: "Bits: dark is 1, light is 0, left of the query, right of the image found. Rings: bits that differ.",
    }
    for kind, sentence in words.items():
        if kind in kinds:
            top += 34
            pen.text((MARGIN, top), shortened(sentence, width - 2 * MARGIN, BODY), SOFT, font(BODY))
    return image
