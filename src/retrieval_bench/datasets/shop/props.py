"""What stands around the goods: surfaces, props, hands, price cards and strips."""

from __future__ import annotations

import numpy as np

from retrieval_bench.datasets.shop.drawing import (
    Board,
    Colour,
    Dice,
    X,
    Y,
    box,
    clouds,
    curve,
    ellipse,
    mix,
    polygon,
    revolve,
    smooth,
    static,
    stroke,
    unit,
)
from retrieval_bench.datasets.shop.goods import folds, round_light
from retrieval_bench.datasets.shop.look import BLACK, PALETTE, WHITE
from retrieval_bench.datasets.shop.optics import to_bytes
from retrieval_bench.datasets.shop.prints import edge, pattern, printed

ROOM = 320
"""Surfaces are ROOM x ROOM pixels; a picture shows a part."""


def surface(scene: str, seed: int, number: int) -> np.ndarray:
    """One table top, floor, wall or cloth, (3, ROOM, ROOM) uint8."""
    key = ("surface", seed, scene, number)
    dice = Dice(*key)
    n = ROOM
    x = np.arange(n).astype(np.float32)[None, :]
    y = x.reshape(n, 1)
    broad = clouds(n, n, (80, 80), *key, "broad") - 0.5
    rough = clouds(n, n, (3, 3), *key, "rough") - 0.5
    colour = _ground_colour(scene, dice)
    value: np.ndarray = 1.0 + 0.16 * broad + 0.07 * rough
    other = mix(colour, BLACK, 0.5)
    share: np.ndarray = np.zeros((n, n), np.float32)
    if scene in ("wood", "planks", "shelf"):
        height = {"wood": 1000, "planks": dice.whole(36, 64), "shelf": 1000}[scene]
        board = np.arange(n)[:, None] // height
        warp = clouds(n, n, (30, 110), *key, "warp") * np.float32(dice.between(1.0, 3.0))
        grain = clouds(n, n, (4, 90), *key, "grain") * np.float32(0.8)
        lines = (y + 37.0 * board.astype(np.float32)) * np.float32(dice.between(0.05, 0.11)) + warp + grain
        lines = lines - np.floor(lines)
        share = 0.45 * smooth(abs(lines * 2.0 - 1.0)) + 0.25 * clouds(n, n, (2, 60), *key, "fibre")
        if scene == "planks":
            tone = static((n // height + 1,), *key, "tone").astype(np.float32)[board[:, 0]] / np.float32(255)
            gap = abs((np.arange(n)[:, None] % height) - height // 2) >= height // 2 - 1
            value = (value + 0.22 * (tone[:, None] - 0.5)) * np.where(gap, np.float32(0.45), np.float32(1))
    if scene == "shelf":
        line = dice.between(0.42, 0.6) * n
        wood = _planes(colour) * value
        wood += (_planes(other) - wood) * share
        wall = _planes(mix(colour, WHITE, dice.between(0.3, 0.8))) * (1.0 + 0.12 * broad - 0.0008 * (line - y))
        dark = 1.0 - 0.4 * unit(1.0 - abs(y - line) * 0.08)
        return to_bytes((wall + (wood - wall) * unit((y - line) * 0.5)) * dark)
    if scene == "tiles":
        size = dice.whole(34, 70)
        seam = np.minimum(np.arange(n)[:, None] % size, np.arange(n)[None, :] % size) < 3
        tones = static((n // size + 1, n // size + 1), *key, "tones").astype(np.float32) / np.float32(255) - 0.5
        spread = np.float32(dice.between(0.05, 0.4))
        cells = tones[np.arange(n) // size][:, np.arange(n) // size]
        value = (value + spread * cells) * np.where(seam, np.float32(0.72), np.float32(1))
    if scene == "cloth":
        kind = dice.pick(("checks", "stripes", "dots", "grid", "zigzag", "diagonal"))
        other = mix(colour, dice.pick((WHITE, BLACK, *PALETTE.values())), 0.6)
        share = pattern(kind, x / np.float32(n / 2), y / np.float32(n / 2), dice.between(10.0, 26.0)) * 0.75
        weave = ((np.arange(n)[None, :] + np.arange(n)[:, None] * 2) % 4 < 2).astype(np.float32) - 0.5
        creases = clouds(n, n, (50, 100), *key, "crease") - 0.5
        value = value + 0.06 * weave + 0.35 * creases
    if scene == "stone":
        veins = clouds(n, n, (60, 44), *key, "veins") + 0.4 * clouds(n, n, (17, 13), *key, "small")
        thin = unit(1.0 - abs(veins - 0.75) * 22.0)
        speck = (clouds(n, n, (2, 2), *key, "specks") > 0.8).astype(np.float32)
        share = 0.5 * thin + np.float32(0.5 if number % 2 else 0.0) * speck
    if scene == "carpet":
        pile = static((n, n), *key, "pile").astype(np.float32) / np.float32(255) - 0.5
        value = value + 0.35 * pile + 0.25 * rough
    base = _planes(colour) * value
    return to_bytes(base + (_planes(other) - base) * share)


def _planes(colour: Colour) -> np.ndarray:
    """(3, 1, 1) float32, to be spread over a picture."""
    return np.array(colour, np.float32)[:, None, None]


def _ground_colour(scene: str, dice: Dice) -> Colour:
    if scene in ("wood", "planks", "shelf"):
        woods: tuple[Colour, ...] = ((196, 164, 126), (160, 124, 92), (218, 196, 164), (126, 100, 80), (184, 146, 118))
        return dice.pick(woods)
    if scene in ("stone", "table", "tiles"):
        pale: tuple[Colour, ...] = ((206, 204, 198), (170, 172, 176), (226, 220, 206), (96, 100, 106), (186, 200, 206))
        return dice.pick(pale)
    return mix(dice.pick(list(PALETTE.values())), (168, 164, 158), dice.between(0.45, 0.85))


def props(seed: int) -> list[np.ndarray]:
    """Things that lie about: pens, plates, papers, coins, apples, leaves, keys, telephones, spoons, cables, notes."""
    dice = Dice("props", seed)
    tones = list(PALETTE.values())
    out = []
    for number in range(28):
        board, kind = Board(), number % 11
        one, two = dice.pick(tones), dice.pick(tones)
        if kind == 0:
            board.paint(stroke([(-0.8, 0.0), (0.62, 0.0)], 0.17), one)
            board.paint(polygon([(0.62, -0.085), (0.9, 0.0), (0.62, 0.085)]), (210, 180, 140))
            board.paint(box(-0.72, 0.0, 0.12, 0.085), two)
            board.light(1.15 - 2.5 * unit(Y))
        elif kind == 1:
            for r, tone in ((0.9, mix(one, WHITE, 0.7)), (0.84, mix(one, WHITE, 0.82)), (0.6, mix(one, WHITE, 0.62))):
                board.paint(ellipse(0.0, 0.0, r, r), tone)
            board.print_on(edge(0.02 - abs(np.sqrt(X * X + Y * Y) - 0.76), 60.0), two)
            board.light(1.0 - 0.15 * unit(X + Y))
        elif kind == 2:
            board.paint(box(0.0, 0.0, 0.66, 0.88), WHITE)
            for i in range(9):
                board.print_on(
                    printed("ABCDEFGHIJKLMNOPQRSTUVW"[i : i + 9 + i % 4], X, Y + 0.66 - 0.16 * i, 0.5, 0.035),
                    (70, 72, 80),
                )
            board.light(1.0 + 0.05 * (X - Y))
        elif kind == 3:
            board.paint(ellipse(0.0, 0.0, 0.5, 0.5), (190, 160, 90) if dice.chance(0.5) else (176, 178, 180))
            board.print_on(edge(0.02 - abs(np.sqrt(X * X + Y * Y) - 0.42), 60.0), (110, 96, 60))
            board.print_on(printed(str(dice.pick((1, 2, 5, 10, 20, 50))), X, Y, 0.24, 0.2), (110, 96, 60))
        elif kind == 4:
            fruit = dice.pick(((196, 40, 36), (110, 160, 50), (232, 150, 40)))
            board.paint(np.maximum(ellipse(-0.18, 0.08, 0.5, 0.58), ellipse(0.18, 0.08, 0.5, 0.58)), fruit)
            board.light(1.25 - 0.75 * unit((X + 0.3) * (X + 0.3) + (Y + 0.3) * (Y + 0.3)))
            board.paint(stroke([(0.0, -0.4), (0.1, -0.72)], 0.07), (90, 62, 40))
        elif kind == 5:
            leaf = polygon(curve([(-0.9, 0.0), (-0.3, -0.42), (0.5, -0.3), (0.9, 0.0), (0.5, 0.3), (-0.3, 0.42)]))
            board.paint(leaf, dice.pick(((70, 120, 60), (150, 140, 50), (150, 90, 44))))
            board.print_on(stroke([(-0.9, 0.0), (0.9, 0.0)], 0.04), (60, 80, 40))
        elif kind == 6:
            board.paint(ellipse(-0.5, 0.0, 0.34, 0.34), (170, 160, 130))
            board.cut(ellipse(-0.56, 0.0, 0.13, 0.13))
            board.paint(box(0.25, 0.0, 0.55, 0.08), (170, 160, 130))
            board.paint(box(0.6, 0.14, 0.06, 0.12), (170, 160, 130))
            board.paint(box(0.4, 0.12, 0.05, 0.1), (170, 160, 130))
        elif kind == 7:
            board.paint(box(0.0, 0.0, 0.44, 0.88, 0.1), (30, 30, 34))
            board.paint(box(0.0, 0.0, 0.39, 0.78, 0.04), mix(one, (40, 60, 90), 0.5))
            for i in range(12):
                x, y = -0.24 + 0.24 * (i % 3), -0.45 + 0.28 * (i // 3)
                board.paint(box(x, y, 0.08, 0.08, 0.03), dice.pick(tones))
            board.light(1.0 + 0.25 * edge(0.2 - abs(X + Y), 8.0))
        elif kind == 8:
            metal: Colour = (184, 186, 190)
            board.paint(np.maximum(ellipse(-0.6, 0.0, 0.3, 0.2), stroke([(-0.4, 0.0), (0.9, 0.0)], 0.09)), metal)
            board.light(1.2 - 0.5 * ellipse(-0.6, 0.02, 0.22, 0.13) + 0.2 * unit(-Y * 8.0))
        elif kind == 9:
            points = [(dice.between(-0.8, 0.8), dice.between(-0.8, 0.8)) for _ in range(6)]
            board.paint(stroke(curve(points, 6, closed=False), 0.06), one)
            board.paint(box(points[-1][0], points[-1][1], 0.1, 0.07, 0.02), mix(one, BLACK, 0.3))
        else:
            board.paint(box(0.0, 0.0, 0.56, 0.56), mix(one, WHITE, 0.3))
            board.print_on(printed(dice.pick(("BUY MILK", "CALL ME", "3 PM", "TODO")), X, Y + 0.15, 0.45, 0.14), BLACK)
            board.light(1.0 - 0.2 * unit(Y))
        out.append(board.sprite())
    return out


def hands() -> list[np.ndarray]:
    """Hands that reach in from the right, fingertips to the left, in several skins, gripping or pointing."""
    skins: tuple[Colour, ...] = ((236, 196, 168), (214, 166, 130), (172, 122, 88), (120, 80, 56), (84, 56, 42))
    out = []
    for skin in skins:
        for pose in range(2):
            board = Board()
            shadow, nail = mix(skin, BLACK, 0.35), mix(skin, (250, 220, 214), 0.6)
            sleeve = mix(skin, (60, 70, 110), 0.85) if pose else mix(skin, (90, 90, 90), 0.9)
            board.paint(
                polygon(
                    curve(
                        [(1.2, -0.36), (0.55, -0.34), (0.2, -0.4), (0.06, 0.0), (0.2, 0.42), (0.55, 0.36), (1.2, 0.34)],
                        5,
                    )
                ),
                skin,
            )
            fingers = (
                [(-0.56, -0.34), (-0.74, -0.12), (-0.7, 0.1), (-0.52, 0.31)]
                if pose == 0
                else [(-0.85, -0.26), (-0.2, -0.06), (-0.16, 0.14), (-0.1, 0.32)]
            )
            for tip, y in fingers:
                line = [(0.3, y * 0.85), (tip * 0.4, y * 1.08), (tip, y * 0.96)]
                board.paint(stroke(line, 0.225), shadow)
                board.paint(stroke(line, 0.195), skin)
                board.paint(ellipse(tip - 0.035, y * 0.96, 0.06, 0.055), nail)
                board.print_on(box(tip * 0.42, y * 1.06, 0.012, 0.06), shadow)
            thumb = [(0.5, 0.32), (0.2, 0.62), (-0.2, 0.7 if pose == 0 else 0.56)]
            board.paint(stroke(thumb, 0.26), shadow)
            board.paint(stroke(thumb, 0.225), skin)
            board.paint(polygon([(0.72, -0.46), (1.2, -0.5), (1.2, 0.5), (0.72, 0.46)]), sleeve)
            board.light(1.06 + 0.16 * unit(-Y * 2.0) - 0.22 * unit(Y * 1.6))
            out.append(board.sprite())
    return out


def cards(seed: int) -> list[np.ndarray]:
    """Price tags and leaflets that cover the product from one side."""
    dice = Dice("cards", seed)
    out = []
    for number in range(8):
        board = Board()
        paper, ink = (
            mix(dice.pick(list(PALETTE.values())), WHITE, dice.between(0.2, 0.9)),
            dice.pick((BLACK, PALETTE["red"])),
        )
        board.paint(box(0.0, 0.0, 0.76, 0.52, 0.03), paper)
        board.print_on(printed(dice.pick(("SALE", "-20%", "9.99", "NEW", "2 FOR 1")), X, Y + 0.1, 0.6, 0.24), ink)
        board.print_on(printed(dice.pick(("TODAY ONLY", "PER ITEM", "INCL. VAT")), X, Y - 0.34, 0.5, 0.07), ink)
        board.light(folds(f"card{number}", 0.14))
        out.append(board.sprite())
    return out


def strips(seed: int) -> list[np.ndarray]:
    """Ribbons, rulers and rails that cross the whole sprite."""
    dice = Dice("strips", seed)
    out = []
    for number in range(6):
        board = Board()
        tone, width = dice.pick(list(PALETTE.values())), dice.between(0.07, 0.2)
        band, u = revolve([(-1.0, width), (1.0, width * dice.between(0.8, 1.2))])
        board.paint(band, tone)
        board.light(round_light(u, 0.3) if number % 2 else folds(f"strip{number}", 0.3))
        out.append(board.sprite())
    return out
