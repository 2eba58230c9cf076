"""A query and an image found, side by side: as heat, as matches, as bits."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from retrieval_bench.explaining.clues import BitPair, Clue, Heat, HeatPair, MatchPair, Shown, WordPair
from retrieval_bench.explaining.lettering import SMALL, font, printed, shortened, wrapped
from retrieval_bench.explaining.palette import FAINT, INK, LINE, PAPER, WRONG

SMOOTH = 3.5
"""Of 96 places along each side: the blur of heat."""
HIGHEST = 0.99
"""What is hotter than so many places of an image is all the same: a few hot places would leave the others dark."""
SMALLEST_RING = 12
"""Pixels of a bit at twice the size; a smaller one is filled where it differs."""
ADDS, TAKES = (196, 222, 246), (250, 214, 190)
"""Bars of words that bring the item nearer, and of those that keep it away."""
FEW_LINES = 40
"""Matches that do not agree, as many as are drawn: those would hide the others."""


def pair_of(clue: Clue, query: Shown, found: Shown, side: int) -> Image.Image:
    """Query and found image side by side, (side, 2 * side + 8) pixels, with what makes them near."""
    if isinstance(clue, WordPair):
        return _word_pair(clue, found.text, side)
    if isinstance(clue, BitPair):
        return _bit_pair(clue, side)
    assert query.pixels is not None
    assert found.pixels is not None
    if isinstance(clue, HeatPair):
        return _heat_pair(clue, query.pixels, found.pixels, side)
    return _match_pair(clue, query.pixels, found.pixels, side)


def _word_pair(clue: WordPair, text: str, side: int) -> Image.Image:
    """The words of the query over bars as long as what they add, and beside them the text that was found."""
    canvas = _blank(side)
    pen = ImageDraw.Draw(canvas)
    line = SMALL + 10
    shown = sorted(clue.words, key=lambda one: -abs(one[1]))[: max(1, (side - 4) // line)]
    order = [one for one in clue.words if one in shown]
    most = max((abs(amount) for _, amount in clue.words), default=0.0)
    for place, (word, amount) in enumerate(order[: len(shown)]):
        top = 2 + place * line
        length = round(abs(amount) / most * (side - 4)) if most > 0 else 0
        if length:
            fill = ADDS if amount > 0 else TAKES
            pen.rectangle((0, top, length, top + line - 4), fill=fill)
        pen.text((4, top + 2), shortened(printed(word), side - 8, SMALL), INK, font(SMALL))
    top = 4
    for row in wrapped(printed(text) or "no text", side - 4, SMALL, max(1, (side - 8) // (SMALL + 5))):
        pen.text((side + 10, top), row, INK, font(SMALL))
        top += SMALL + 5
    return canvas


def _blank(side: int, times: int = 1) -> Image.Image:
    return Image.new("RGB", (times * (2 * side + 8), times * side), PAPER)


def _heat_pair(clue: HeatPair, query: np.ndarray, found: np.ndarray, side: int) -> Image.Image:
    canvas = _blank(side)
    for place, (pixels, heat) in enumerate(((query, clue.query), (found, clue.found))):
        values = _density(heat)
        small = fitted(pixels, side, side)
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


def _match_pair(clue: MatchPair, query: np.ndarray, found: np.ndarray, side: int) -> Image.Image:
    times = 2  # drawn at twice the size, so that lines are smooth
    canvas = _blank(side, times)
    ends = []
    for place, (pixels, points) in enumerate(((query, clue.query), (found, clue.found))):
        small = fitted(pixels, times * side, times * side)
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


def fitted(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image as large as fits, its shape kept; small ones are enlarged."""
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, way))
