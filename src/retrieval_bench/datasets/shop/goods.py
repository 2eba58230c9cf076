"""How each product is drawn: ten categories, one function each, lit from the upper left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from retrieval_bench.datasets.shop.drawing import (
    Board,
    Colour,
    Point,
    X,
    Y,
    around,
    box,
    clouds,
    curve,
    ellipse,
    luminance,
    mix,
    polygon,
    revolve,
    stroke,
    turn,
    unit,
)
from retrieval_bench.datasets.shop.look import BLACK, WHITE, Look
from retrieval_bench.datasets.shop.prints import edge, emblem, pattern, printed, triangle_wave


def draw(look: Look) -> np.ndarray:
    """The product as a sprite, (SIDE, SIDE, 4) float32, premultiplied colour 0..255 and alpha 0..1."""
    board = Board()
    DRAWINGS[look.category](board, look)
    return board.sprite()


def round_light(u: np.ndarray, gloss: float = 0.25) -> np.ndarray:
    """Light from the left on an upright cylinder; u across it in -1..1."""
    x = unit(abs(u + 0.28) * 0.8)
    shine = unit(1.0 - abs(u + 0.45) * 5.0)
    return 0.5 + 0.56 * np.sqrt(1.0 - x * x * 0.98) + gloss * shine * shine


def soft_light(strength: float = 0.25) -> np.ndarray:
    """Light from the upper left on something flat."""
    return 1.0 + strength * (-0.5 * X - 0.5 * Y)


def folds(name: str, strength: float) -> np.ndarray:
    """Creases of cloth."""
    wide, fine = clouds(256, 256, (90, 40), "folds", name), clouds(256, 256, (40, 14), "fine", name)
    return 1.0 + strength * (wide - 0.5) + 0.4 * strength * (fine - 0.5)


def label(board: Board, look: Look, u: np.ndarray, v: np.ndarray, within: np.ndarray | float = 1.0) -> None:
    """The print of a product on a surface u, v of about -1..1: emblem, title and line in one of four layouts."""
    ink, second = look.ink, look.accent if abs(luminance(look.accent) - luminance(look.base)) > 75 else look.ink
    if look.layout == 0:
        board.print_on(emblem(look.emblem, u * 2.4, (v + 0.38) * 2.4) * within, second)
        board.print_on(printed(look.title, u, v - 0.28, 0.78, 0.2) * within, ink)
        board.print_on(printed(look.line, u, v - 0.68, 0.62, 0.1) * within, ink)
    elif look.layout == 1:
        board.print_on(printed(look.title, u, v + 0.5, 0.82, 0.22) * within, ink)
        board.print_on(emblem(look.emblem, u * 1.9, (v - 0.28) * 1.9) * within, second)
    elif look.layout == 2:
        board.print_on(emblem(look.emblem, u * 1.35, v * 1.35) * within, ink)
    else:
        board.print_on(printed(look.title, u, v, 0.9, 0.34) * within, ink)
        board.print_on(edge(0.03 - abs(v + 0.46), 40.0) * edge(0.8 - abs(u), 20.0) * within, second)
        board.print_on(edge(0.03 - abs(v - 0.46), 40.0) * edge(0.8 - abs(u), 20.0) * within, second)
        board.print_on(printed(look.line, u, v - 0.68, 0.6, 0.11) * within, ink)


def plate(look: Look, u: np.ndarray, v: np.ndarray, slope: float = 30.0) -> np.ndarray:
    """A paper label's outline: rectangle, oval or band, by the product's layout."""
    if look.layout == 2:
        return edge(1.0 - (u * u + v * v), 10.0)
    return edge(1.0 - abs(u), slope) * edge(1.0 - abs(v), slope)


def paper(look: Look) -> Look:
    """The same print on a label of the accent's colour."""
    dark = luminance(look.accent) < 130
    tone = look.accent
    accent = look.base if abs(luminance(look.base) - luminance(tone)) > 75 else (WHITE if dark else BLACK)
    return replace(look, base=tone, accent=accent, ink=WHITE if dark else BLACK)


# --- the ten categories -----------------------------------------------------------------------------------------------


def mug(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    half, tall, cx = 0.4 + 0.14 * a, 0.44 + 0.24 * b, -0.16
    low = half * (1.0, 0.74, 1.0, 0.86, 1.0)[look.style]
    waist = (half + low) * 0.5 * (1.0, 1.0, 1.16, 1.1, 0.9)[look.style]
    body, u = revolve(curve([(-tall, half), (0.0, waist), (tall, low)], 8, closed=False), cx)
    body = np.maximum(body, ellipse(cx, tall, low, 0.1))
    size, thick = 0.26 + 0.1 * c, 0.09 + 0.05 * a
    ring = ellipse(cx + half * 0.98, 0.02, size, size * 1.25)
    ring = ring * (1.0 - ellipse(cx + half * 0.98, 0.02, size - thick, size * 1.25 - thick))
    board.paint(ring, mix(look.base, look.accent, 1.0 if look.style == 1 else 0.0))
    board.light(0.82 + 0.5 * unit(0.3 - abs(X - cx - half - size * 0.75)) - 0.25 * unit(Y))
    board.paint(body, look.base)
    v = (Y - 0.1 * np.sqrt(unit(1.0 - u * u))) * (1.0 / tall) + 0.1
    across = around(u)
    board.print_on(pattern(look.pattern, across, v, look.count) * body * edge(0.86 - abs(v), 30.0), look.accent)
    if look.pattern in ("band", "halves", "stripes", "bars") or look.layout >= 2:
        sign = paper(look)
        board.print_on(plate(look, across * 1.7, v * 1.9) * body, sign.base)
        label(board, sign, across * 1.85, v * 2.05, body)
    elif look.pattern in ("grid", "diagonal"):
        label(board, look, across * 1.5, v * 1.5, body)
    board.light(1.0 - body + body * round_light(u))
    board.paint(ellipse(cx, -tall, half, 0.13), mix(look.base, WHITE, 0.35))
    board.paint(ellipse(cx, -tall + 0.012, half - 0.04, 0.1), mix(look.base, BLACK, 0.55))
    if c > 0.5:
        board.paint(ellipse(cx, -tall + 0.04, half - 0.09, 0.065), (74, 44, 26))


def bottle(board: Board, look: Look) -> None:
    a, b, c, d = look.shape
    w, neck = 0.26 + 0.12 * a, 0.09 + 0.05 * b
    shoulder = -0.35 + 0.25 * c
    outlines: list[list[Point]] = [
        [(-0.86, neck), (shoulder - 0.22, neck * 1.1), (shoulder, w * 0.9), (shoulder + 0.12, w), (0.9, w)],
        [
            *((-0.8, neck * 1.4), (-0.6, neck * 1.5), (-0.45, w * 0.9), (-0.2, w), (0.15, w * 0.84), (0.5, w)),
            (0.9, w * 0.96),
        ],
        [(-0.82, neck * 0.9), (-0.5, neck), (shoulder, w * 0.75), (0.3, w * 1.25), (0.7, w * 1.2), (0.9, w * 0.8)],
        [(-0.7, neck * 1.6), (-0.62, neck * 1.6), (-0.55, w * 1.1), (-0.45, w * 1.2), (0.8, w * 1.2), (0.88, w * 1.1)],
        [(-0.85, neck * 0.5), (-0.6, neck * 0.8), (-0.45, w * 0.8), (-0.3, w), (0.9, w * 0.92)],
    ]
    profile = curve(outlines[look.style], 8, closed=False)
    body, u = revolve(profile)
    foot = profile[-1][1]
    body = np.maximum(body, ellipse(0.0, profile[-1][0], foot, 0.05))
    board.paint(body, look.base)
    top, mouth = profile[0]
    low, high = (shoulder + 0.2, 0.74) if look.style != 3 else (-0.3, 0.68)
    mid, reach = (low + high) * 0.5, (high - low) * 0.5
    across, v = around(u), (Y - mid - 0.03 * np.sqrt(unit(1.0 - u * u))) * (1.0 / reach)
    sign = paper(look)
    tag = body * edge(1.0 - abs(v), 30.0) if look.layout != 2 else body * plate(look, across * 1.15, v)
    board.print_on(tag, sign.base)
    board.print_on(pattern(look.pattern, across, v, look.count) * tag * edge(abs(v) - 0.62, 20.0), look.base)
    label(board, sign, across * 1.1, v * 1.35, tag)
    if d > 0.5:
        band = edge(0.05 - abs(Y - shoulder + 0.02), 60.0)
        board.print_on(band * body, look.ink)
    board.light(round_light(u, 0.6))
    cap, cu = revolve([(top - 0.12, mouth * 1.12), (top + 0.06, mouth * 1.2)])
    tone = look.ink if luminance(look.ink) < 200 else look.accent
    board.paint(cap, tone)
    board.light(1.0 - cap * (0.48 - 0.48 * np.sqrt(unit(1.0 - cu * cu))))


def carton(board: Board, look: Look) -> None:
    a, b, c, d = look.shape
    hx, hy = ((0.42, 0.72), (0.68, 0.46), (0.34, 0.56), (0.56, 0.6), (0.5, 0.78))[look.style]
    hx, hy = hx * (0.9 + 0.15 * a), hy * (0.9 + 0.18 * b)
    deep, rise = 0.14 + 0.16 * c, 0.08 + 0.06 * d
    cx, cy = -deep * 0.5, rise * 0.5
    gable = look.style == 2
    left, right, top, low = cx - hx, cx + hx, cy - hy, cy + hy
    board.paint(
        polygon([(right, top), (right + deep, top - rise), (right + deep, low - rise), (right, low)]),
        mix(look.base, BLACK, 0.35),
    )
    if gable:
        peak = top - 0.24
        board.paint(
            polygon([(left, top), (right, top), (right - 0.02 + deep * 0.5, peak), (left + 0.02 + deep * 0.5, peak)]),
            mix(look.base, WHITE, 0.2),
        )
        board.paint(
            polygon([(right, top), (right + deep, top - rise), (right - 0.02 + deep * 0.5, peak)]),
            mix(look.base, BLACK, 0.45),
        )
        board.paint(
            box(cx + deep * 0.5, peak - 0.05, hx - 0.01, 0.06),
            look.accent,
        )
    else:
        board.paint(
            polygon([(left, top), (left + deep, top - rise), (right + deep, top - rise), (right, top)]),
            mix(look.base, WHITE, 0.35),
        )
    face = box(cx, cy, hx, hy)
    board.paint(face, look.base)
    u, v = (X - cx) * (1.0 / hx), (Y - cy) * (1.0 / hy)
    side = polygon([(right, top), (right + deep, top - rise), (right + deep, low - rise), (right, low)])
    stripe = edge(0.2 - abs((Y - cy + (X - right) * (rise / deep)) * (1.0 / hy) - 0.55), 20.0)
    board.print_on(side * stripe, mix(look.accent, BLACK, 0.35))
    square = v * (hy / hx)
    if look.layout in (0, 3):
        ground = edge(v - 0.45, 40.0) if look.layout == 0 else edge(abs(v) - 0.6, 40.0)
        board.print_on(pattern(look.pattern, u, square, look.count) * ground * face, look.accent)
        label(
            board, look, u * 1.08, (v + (0.28 if look.layout == 0 else 0.0)) * (1.4 if look.layout == 0 else 1.6), face
        )
    else:
        board.print_on(pattern(look.pattern, u, square, look.count) * face, mix(look.base, look.accent, 0.55))
        sign = paper(look)
        board.print_on(plate(look, u * 1.3, v * 1.35) * face, sign.base)
        label(board, sign, u * 1.4, v * 1.5, face)
    board.light(soft_light(0.22))


def shirt(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    w, hem, sleeve = 0.44 + 0.1 * a, 0.84 + 0.06 * b, (0.3, 0.3, 0.3, 0.95, 0.0)[look.style]
    neck = 0.16 + 0.05 * c
    drop = 0.2 + sleeve * 0.9
    out = 0.28 + sleeve * 0.06
    arm: list[Point] = [(w + out, -0.62 + drop), (w + out - 0.2, -0.52 + drop + 0.06), (w, -0.3)]
    if look.style == 4:
        arm = [(w * 0.62, -0.8), (w * 0.66, -0.55), (w, -0.3)]
    half: list[Point] = [(neck, -0.82), (w * 0.66 if look.style == 4 else w * 0.95, -0.74), *arm]
    half += [(w * 0.97, 0.2), (w * 1.02, hem)]
    outline = half + [(-x, y) for x, y in reversed(half)]
    body = polygon(outline)
    board.paint(body, look.base)
    trunk = body * edge(w * 1.02 - abs(X), 60.0)
    u, v = X * (1.0 / w), (Y - 0.05) * (1.0 / w)
    wave = clouds(256, 256, (64, 32), "wave", look.name) * np.float32(0.08)
    full = look.pattern in ("stripes", "checks", "grid", "dots", "halves", "band")
    board.print_on(
        pattern(look.pattern, u + wave, v + wave, look.count)
        * (body if full else trunk * edge(0.3 - abs(v + 0.1), 30.0)),
        look.accent,
    )
    if look.layout != 1 or not full:
        sign = paper(look) if full else look
        if full and look.layout != 3:
            board.print_on(plate(look, u * 1.9, (v + 0.28) * 1.9) * trunk, sign.base)
        label(board, sign, u * 2.0, (v + 0.28) * 2.0, trunk)
    for side in (-1.0, 1.0):
        if look.style != 4:
            board.print_on(stroke([(side * w * 0.95, -0.72), (side * w, -0.3)], 0.015), mix(look.base, BLACK, 0.4))
            cuff = stroke([(side * arm[0][0], arm[0][1]), (side * arm[1][0], arm[1][1])], 0.07)
            board.print_on(cuff, look.accent if a > 0.5 else mix(look.base, BLACK, 0.15))
    board.light(folds(look.name.split("-")[0] + str(look.style), 0.5))
    board.light(1.0 - 0.3 * unit((abs(X) - w * 0.7) * 2.0))
    depth = (0.1, 0.26, 0.08, 0.1, 0.22)[look.style]
    hole = (
        ellipse(0.0, -0.84, neck, depth) if look.style != 1 else polygon([(-neck, -0.86), (neck, -0.86), (0.0, -0.5)])
    )
    rim = (
        ellipse(0.0, -0.84, neck + 0.05, depth + 0.05)
        if look.style != 1
        else polygon([(-neck - 0.06, -0.9), (neck + 0.06, -0.9), (0.0, -0.4)])
    )
    board.print_on(rim, look.accent if b > 0.4 else mix(look.base, BLACK, 0.2))
    board.paint(hole * edge(Y + 0.88, 60.0), mix(look.base, BLACK, 0.6))
    if look.style == 2:
        board.paint(polygon([(0.0, -0.62), (-neck - 0.08, -0.86), (-neck - 0.1, -0.66), (-0.1, -0.52)]), look.accent)
        board.paint(polygon([(0.0, -0.62), (neck + 0.08, -0.86), (neck + 0.1, -0.66), (0.1, -0.52)]), look.accent)
        board.print_on(box(0.0, -0.42, 0.05, 0.2), mix(look.base, BLACK, 0.12))
        for y in (-0.52, -0.4, -0.28):
            board.paint(ellipse(0.0, y, 0.022, 0.022), look.ink)


def shoe(board: Board, look: Look) -> None:
    a, b, c, d = look.shape
    high = (-0.3, -0.62, -0.22, -0.42, -0.12)[look.style] - 0.08 * a
    sole = 0.1 + 0.09 * b
    toe = 0.05 - 0.08 * c
    heel = -0.78
    upper = curve(
        [
            *((heel, 0.4), (heel - 0.04, 0.0), (heel + 0.03, high), (heel + 0.16, high - 0.03), (-0.28, high + 0.06)),
            *((-0.1, -0.02 if look.style != 2 else 0.05), (0.2, toe), (0.56, toe + 0.04), (0.82, 0.16), (0.88, 0.32)),
            (0.84, 0.42),
        ]
    )
    shape = polygon(upper)
    board.paint(shape, look.base)
    u, v = X * 1.1, (Y - 0.12) * 2.2
    cell = look.count
    board.print_on(
        pattern(look.pattern, u * 1.0, v * 0.5, cell + 2.0) * shape * edge(0.42 - abs(X + 0.08), 30.0), look.accent
    )
    board.print_on(
        edge(X - 0.46 - 0.25 * d, 30.0) * edge(Y - toe, 30.0) * shape,
        mix(look.base, look.accent, 0.8 if a > 0.5 else 0.25),
    )
    board.print_on(edge(-0.6 - X, 30.0) * shape, mix(look.base, look.accent, 0.85 if b > 0.5 else 0.2))
    board.print_on(emblem(look.emblem, (X + 0.3) * 5.2, (Y - 0.17) * 5.2), look.ink)
    board.print_on(printed(look.title, X - 0.12, Y - 0.27, 0.26, 0.055), look.ink)
    board.light(1.08 - 0.4 * unit(Y + 0.1) + 0.2 * unit(0.3 - abs(X - 0.3)))
    board.paint(stroke([(heel + 0.06, high + 0.02), (-0.3, high + 0.09)], 0.09), mix(look.base, BLACK, 0.45))
    if look.style in (0, 1, 3):
        rows = 5 if look.style == 1 else 4
        for i in range(rows):
            t = i / (rows - 1)
            x, y = -0.26 + 0.3 * t, high + 0.14 + (0.03 - high - 0.1) * t
            board.paint(stroke([(x - 0.06, y + 0.06), (x + 0.08, y - 0.03)], 0.04), look.ink if a < 0.6 else WHITE)
    if look.style == 4:
        board.paint(stroke([(-0.28, 0.05), (0.02, 0.02)], 0.16) * shape, look.ink)
    if look.style == 2:
        board.paint(stroke(curve([(-0.05, 0.05), (0.1, 0.12), (0.3, 0.06)], 4, closed=False), 0.07), look.accent)
    base = polygon(
        curve(
            [
                *((heel - 0.05, 0.36), (-0.3, 0.37), (0.3, 0.38), (0.84, 0.35), (0.95, 0.36), (0.95, 0.42)),
                *((0.84, 0.38 + sole), (0.2, 0.38 + sole), (-0.1, 0.36 + sole), (-0.3, 0.39 + sole)),
                (heel + 0.02, 0.39 + sole),
            ],
            4,
        )
    )
    tone = look.accent if c > 0.6 else WHITE if luminance(look.base) < 190 else mix(look.base, BLACK, 0.5)
    board.paint(base, tone)
    board.print_on(base * edge(0.012 - abs(Y - 0.38 - sole * 0.45), 60.0), mix(tone, BLACK, 0.5))
    board.light(1.0 - base * (0.35 * unit((Y - 0.34) * 3.0)))


def bag(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    style = look.style
    top, low = -0.22 - 0.12 * a, 0.84
    wt, wl = ((0.6, 0.6), (0.5, 0.74), (0.5, 0.5), (0.66, 0.56), (0.56, 0.6))[style]
    wt, wl = wt * (0.9 + 0.2 * b), wl * (0.9 + 0.2 * b)
    if style == 3:
        top, low = -0.02, 0.66
    strap = mix(look.accent, BLACK, 0.12) if c > 0.4 else mix(look.base, BLACK, 0.35)
    if style in (0, 2):
        loop = curve(
            [(-0.3, top + 0.05), (-0.3, -0.6), (-0.16, -0.88), (0.16, -0.88), (0.3, -0.6), (0.3, top + 0.05)],
            5,
            closed=False,
        )
        board.paint(stroke(loop, 0.06 if style == 2 else 0.1), strap)
    elif style in (1, 3):
        loop = curve(
            [(-wt * 0.6, top + 0.05), (-wt * 0.55, -0.5), (0.0, -0.8), (wt * 0.55, -0.5), (wt * 0.6, top + 0.05)],
            5,
            closed=False,
        )
        board.paint(stroke(loop, 0.075), strap)
    else:
        for s in (-1.0, 1.0):
            board.paint(
                stroke(curve([(s * 0.2, -0.74), (s * 0.72, -0.2), (s * 0.66, 0.6)], 5, closed=False), 0.12), strap
            )
        board.paint(stroke(curve([(-0.1, -0.7), (0.0, -0.86), (0.1, -0.7)], 4, closed=False), 0.05), strap)
    outline: list[Point] = [(-wt, top), (wt, top), (wl, low), (-wl, low)]
    if style in (1, 3):
        outline = curve(
            [
                *((-wt, top + 0.06), (-wt * 0.7, top), (wt * 0.7, top), (wt, top + 0.06), (wl, low - 0.12)),
                *((wl * 0.8, low), (-wl * 0.8, low), (-wl, low - 0.12)),
            ],
            4,
        )
    if style == 4:
        outline = curve(
            [
                *((-0.4, -0.7), (0.4, -0.7), (0.62, -0.3), (0.62, 0.7), (0.5, 0.86), (-0.5, 0.86), (-0.62, 0.7)),
                (-0.62, -0.3),
            ],
            4,
        )
        top = -0.78
    body = polygon(outline)
    board.paint(body, look.base)
    mid = (top + low) * 0.5
    u, v = X * (1.0 / max(wt, wl)), (Y - mid) * (2.0 / (low - top))
    ground = body if look.layout in (1, 2) else body * edge(abs(v) - 0.62, 30.0)
    board.print_on(pattern(look.pattern, u, v, look.count) * ground, look.accent)
    if look.layout in (1, 2):
        sign = paper(look)
        board.print_on(plate(look, u * 1.55, v * 1.6) * body, sign.base)
        label(board, sign, u * 1.65, v * 1.75, body)
    else:
        label(board, look, u * 1.15, v * 1.7, body)
    if style == 2:
        board.light(1.0 - 0.28 * edge(X - 0.2 - 0.1 * a, 90.0) * body)
    if style == 3:
        flap = polygon([(-wt, top), (wt, top), (wt * 0.9, top + 0.2), (-wt * 0.9, top + 0.2)]) * body
        board.print_on(flap, strap)
        board.paint(box(0.0, top + 0.2, 0.07, 0.05, 0.02), (206, 176, 96))
    if style == 4:
        board.print_on(stroke([(-0.55, -0.25), (0.0, -0.2), (0.55, -0.25)], 0.03), mix(look.base, BLACK, 0.6))
        board.print_on(box(0.0, 0.72, 0.42, 0.015), mix(look.base, BLACK, 0.5))
    board.light(folds(f"bag{style}", 0.26 if style != 2 else 0.12))
    board.light(soft_light(0.3))


def book(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    hx, hy = ((0.54, 0.78), (0.6, 0.74), (0.72, 0.56), (0.5, 0.8), (0.64, 0.66))[look.style]
    hx, hy = hx * (0.92 + 0.12 * a), hy * (0.92 + 0.1 * b)
    thick = 0.05 + 0.12 * c
    left, right, top, low = -hx, hx, -hy - thick * 0.4, hy - thick * 0.4
    board.paint(
        polygon(
            [(left + 0.02, low), (right, low), (right + thick * 0.7, low + thick), (left + thick * 0.7, low + thick)]
        ),
        (226, 218, 200),
    )
    board.paint(
        polygon([(right, top), (right + thick * 0.7, top + thick), (right + thick * 0.7, low + thick), (right, low)]),
        (206, 196, 176),
    )
    lines = edge(triangle_wave(Y * 40.0 + X * 20.0) - 0.5, 2.0)
    board.light(1.0 - 0.16 * lines)
    board.paint(
        stroke(
            [(left + 0.02, low + 0.02), (left + thick * 0.7, low + thick), (right + thick * 0.7, low + thick)], 0.025
        ),
        mix(look.base, BLACK, 0.4),
    )
    face = box(0.0, (top + low) * 0.5, hx, hy, 0.015)
    board.paint(face, look.base)
    u, v = X * (1.0 / hx), (Y - (top + low) * 0.5) * (1.0 / hy)
    square = v * (hy / hx)
    if look.layout in (0, 1):
        picture = face * edge(0.78 - abs(u), 40.0) * edge(0.4 - abs(v - 0.12), 40.0)
        board.print_on(picture, look.accent)
        board.print_on(pattern(look.pattern, u, square, look.count) * picture, mix(look.accent, look.base, 0.6))
        board.print_on(emblem(look.emblem, u * 2.2, (square - 0.15) * 2.2) * picture, look.ink)
        board.print_on(printed(look.title, u, v + 0.62, 0.8, 0.16) * face, look.ink)
        board.print_on(printed(look.line, u, v - 0.78, 0.6, 0.07) * face, look.ink)
    elif look.layout == 2:
        board.print_on(pattern(look.pattern, u, square, look.count) * face, mix(look.base, look.accent, 0.7))
        sign = paper(look)
        board.print_on(face * edge(0.74 - abs(u), 40.0) * edge(0.26 - abs(v + 0.35), 40.0), sign.base)
        board.print_on(printed(look.title, u, v + 0.42, 0.62, 0.11) * face, sign.ink)
        board.print_on(printed(look.line, u, v + 0.22, 0.5, 0.06) * face, sign.ink)
    else:
        board.print_on(face * edge(v - 0.2, 60.0), look.accent)
        board.print_on(pattern(look.pattern, u, square, look.count) * face * edge(0.1 - abs(v - 0.24), 40.0), look.ink)
        board.print_on(printed(look.title, u, v + 0.35, 0.84, 0.2) * face, look.ink)
        board.print_on(emblem(look.emblem, u * 2.8, (square - 0.85) * 2.8) * face, paper(look).ink)
    board.light(1.0 - 0.3 * unit(1.0 - abs(u + 0.9) * 22.0) * face)
    board.light(soft_light(0.2))


def clock(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    r, rim = 0.66 + 0.08 * a, 0.07 + 0.08 * b
    style = look.style
    cy = 0.1 if style == 3 else 0.0
    r = r * 0.88 if style == 3 else r
    metal: Colour = (176, 172, 164)
    if style == 3:
        for s in (-1.0, 1.0):
            board.paint(stroke([(s * 0.34, 0.62), (s * 0.48, 0.88)], 0.1), metal)
            board.paint(ellipse(s * 0.36, -0.6, 0.24, 0.2), look.accent)
        board.paint(stroke([(0.0, -0.5), (0.0, -0.8)], 0.06), metal)
    if style == 1:
        outer, inner = box(0.0, 0.0, r, r, 0.14), box(0.0, 0.0, r - rim, r - rim, 0.08)
    elif style == 4:
        points, small = [], []
        for k in range(8):
            x, y = turn(45.0 * k + 22.5)
            points.append((x * r * 1.1, y * r * 1.1))
            small.append((x * (r - rim) * 1.1, y * (r - rim) * 1.1))
        outer, inner = polygon(points), polygon(small)
    else:
        outer, inner = ellipse(0.0, cy, r, r), ellipse(0.0, cy, r - rim, r - rim)
    board.paint(outer, look.base)
    u, v = X * (1.0 / r), (Y - cy) * (1.0 / r)
    if c > 0.5:
        board.print_on(pattern(look.pattern, u, v, look.count + 4.0) * outer, look.accent)
    board.light(1.1 - 0.35 * unit(0.5 + 0.5 * (u + v)))
    face = WHITE if look.layout in (0, 1) else look.accent
    board.paint(inner, face)
    ink = BLACK if luminance(face) > 120 else WHITE
    if look.layout == 1:
        board.print_on(
            pattern(look.pattern, u, v, look.count) * ellipse(0.0, cy, r * 0.5, r * 0.5), mix(face, look.base, 0.5)
        )
    inside = r - rim
    for hour in range(12):
        x, y = turn(30.0 * hour - 90.0)
        if look.layout in (0, 3) and (hour % 3 == 0 or look.layout == 0):
            board.print_on(printed(str(hour or 12), X - x * inside * 0.8, Y - cy - y * inside * 0.8, 0.09, 0.065), ink)
        else:
            start = 0.76 if hour % 3 == 0 else 0.84
            ends = [(x * inside * start, cy + y * inside * start), (x * inside * 0.93, cy + y * inside * 0.93)]
            board.print_on(stroke(ends, 0.035), ink if look.layout != 2 else look.ink)
    board.print_on(printed(look.title, X, Y - cy + 0.24, 0.2, 0.045), ink)
    board.print_on(emblem(look.emblem, X * 7.0, (Y - cy - 0.28) * 7.0), look.base if look.layout < 2 else ink)
    # Ten past ten, as in every catalogue: the hands must not tell the products apart.
    for degrees, reach, wide in ((-150.0, 0.5, 0.06), (-30.0, 0.74, 0.045)):
        x, y = turn(degrees)
        board.paint(stroke([(0.0, cy), (x * inside * reach, cy + y * inside * reach)], wide), ink)
    board.paint(ellipse(0.0, cy, 0.05, 0.05), look.base)
    shine = edge(0.1 - abs(u + v + 0.6), 12.0) * inner
    board.light(1.0 + 0.12 * shine)


def lamp(board: Board, look: Look) -> None:
    a, b, c, _ = look.shape
    style = look.style
    metal = look.accent if c > 0.45 else (150, 140, 126)
    low = 0.34 + 0.14 * a
    top = low * (0.5 + 0.3 * b)
    if style in (0, 3):
        stem, su = revolve(
            [
                *((-0.1, 0.035), (0.3, 0.035), (0.42, 0.16 if style == 3 else 0.035)),
                *((0.6, 0.2 if style == 3 else 0.035), (0.74, 0.05), (0.82, 0.3)),
            ]
        )
        board.paint(np.maximum(stem, ellipse(0.0, 0.82, 0.3, 0.07)), metal)
        board.light(round_light(su, 0.3))
        shade, u = revolve([(-0.86, top), (0.02, low * 1.25)])
        shade = np.maximum(shade, ellipse(0.0, 0.02, low * 1.25, 0.07))
        v = (Y + 0.42 - 0.07 * np.sqrt(unit(1.0 - u * u))) * 2.3
    elif style == 1:
        board.paint(stroke([(-0.3, 0.8), (-0.46, 0.1), (0.14, -0.42)], 0.07), metal)
        board.paint(ellipse(-0.46, 0.1, 0.07, 0.07), mix(metal, BLACK, 0.4))
        board.paint(ellipse(-0.3, 0.82, 0.36, 0.09), metal)
        board.light(1.1 - 0.3 * unit(X + 0.5))
        shade = polygon([(0.08, -0.62), (0.28, -0.44), (0.84, -0.14 + 0.1 * a), (0.34 - 0.2 * b, 0.3)])
        shade = np.maximum(shade, ellipse(0.14, -0.5, 0.16, 0.16))
        u, v = (X - 0.36) * 2.2, (Y + 0.16) * 2.2
    elif style == 2:
        board.paint(np.maximum(stroke([(0.0, 0.1), (0.0, 0.8)], 0.06), box(0.0, 0.82, 0.3, 0.06, 0.05)), metal)
        board.light(round_light(X * 3.0, 0.3))
        size = 0.46 + 0.1 * a
        shade = ellipse(0.0, -0.32, size, size)
        u, v = X * (1.0 / size), (Y + 0.32) * (1.0 / size)
    else:
        stem, su = revolve([(0.0, 0.1), (0.4, 0.12 + 0.06 * b), (0.84, 0.26)])
        board.paint(np.maximum(stem, ellipse(0.0, 0.84, 0.26, 0.06)), metal)
        board.light(round_light(su, 0.3))
        shade = polygon(
            curve([(-0.66, 0.06), (-0.56, -0.44), (0.0, -0.76), (0.56, -0.44), (0.66, 0.06), (0.0, 0.16)], 6)
        )
        u, v = X * 1.5, (Y + 0.32) * 2.2
    board.paint(shade, look.base)
    across = around(u) if style in (0, 2, 3) else u
    board.print_on(pattern(look.pattern, across, v, look.count) * shade, look.accent)
    if look.layout in (0, 2):
        board.print_on(emblem(look.emblem, across * 2.2, v * 2.2) * shade, look.ink)
    else:
        board.print_on(edge(0.05 - abs(v - 0.8), 30.0) * shade, look.ink)
        board.print_on(edge(0.05 - abs(v + 0.8), 30.0) * shade, look.ink)
    glow = 1.0 + shade * (round_light(u, 0.1) - 1.0 + 0.12 * unit(v))
    board.light(glow)


def cap(board: Board, look: Look) -> None:
    a, b, c, d = look.shape
    style = look.style
    high = -0.52 - 0.12 * a
    if style == 4:
        board.paint(ellipse(0.0, 0.34, 0.92, 0.26 + 0.06 * b), mix(look.base, BLACK, 0.1))
        crown = polygon(
            curve([(-0.5, 0.34), (-0.46, -0.2), (-0.26, high), (0.26, high), (0.46, -0.2), (0.5, 0.34), (0.0, 0.46)], 5)
        )
        brim = crown * 0.0
    elif style == 2:
        crown = polygon(
            curve(
                [
                    *((-0.6, 0.5), (-0.62, 0.0), (-0.36, high), (0.0, high - 0.1), (0.36, high), (0.62, 0.0)),
                    *((0.6, 0.5), (0.0, 0.58)),
                ],
                5,
            )
        )
        brim = box(0.0, 0.46, 0.66, 0.17, 0.08)
    elif style == 3:
        crown = polygon(
            curve([(-0.6, 0.3), (-0.58, -0.1), (-0.34, high), (0.34, high), (0.58, -0.1), (0.6, 0.3), (0.0, 0.16)], 5)
        )
        brim = polygon(
            curve(
                [
                    *((-0.6, 0.26), (0.0, 0.12), (0.6, 0.26), (0.68, 0.44), (0.4, 0.52), (0.0, 0.46), (-0.4, 0.52)),
                    (-0.68, 0.44),
                ],
                5,
            )
        )
    else:
        crown = polygon(
            curve(
                [
                    *((-0.66, 0.3), (-0.62, -0.2), (-0.34, high), (0.1, high - 0.02), (0.42, -0.22), (0.5, 0.28)),
                    (0.0, 0.36),
                ],
                5,
            )
        )
        reach = 0.94 if style == 0 else 0.8
        brim = polygon(
            curve(
                [
                    *((-0.08, 0.24), (0.42, 0.14), (reach, 0.3 + 0.1 * b), (reach - 0.06, 0.44 + 0.1 * b)),
                    *((0.3, 0.42), (-0.06, 0.38)),
                ],
                4,
            )
        )
    board.paint(crown, look.base)
    cx = -0.08 if style in (0, 1) else 0.0
    u, v = (X - cx) * 1.7, (Y + 0.1) * 1.9
    ground = (
        crown
        if look.layout == 2
        else crown * edge(v - 0.35, 30.0)
        if look.layout != 1
        else crown * edge(-0.6 - v, 30.0)
    )
    board.print_on(pattern(look.pattern, u, v, look.count) * ground, look.accent)
    if look.layout == 2:
        sign = paper(look)
        board.print_on(plate(look, u * 1.5, v * 1.5) * crown, sign.base)
        label(board, sign, u * 1.6, v * 1.6, crown)
    else:
        label(board, look, u * 1.35, (v + 0.12) * 1.7, crown)
    for offset in (-0.36, 0.36):
        seam = curve([(cx, high), (cx + offset * 0.9, high * 0.5), (cx + offset * 1.3, 0.32)], 5, closed=False)
        board.print_on(stroke(seam, 0.014) * crown, mix(look.base, BLACK, 0.35))
    board.light(1.12 - 0.4 * unit((X - cx) * (X - cx) * 1.6 + unit(Y) * 0.5))
    board.paint(brim, look.accent if c > 0.4 else mix(look.base, BLACK, 0.18))
    if style == 2:
        board.light(1.0 - brim * 0.2 * edge(triangle_wave(X * 9.0) - 0.5, 3.0))
        if d > 0.4:
            board.paint(ellipse(0.0, high - 0.14, 0.16, 0.15), look.accent)
    else:
        board.light(1.0 - brim * 0.35 * unit((Y - 0.2) * 2.0))
        board.paint(ellipse(cx, high - 0.015, 0.05, 0.03), look.accent)
    board.light(folds(f"cap{style}", 0.16))


DRAWINGS: dict[str, Callable[[Board, Look], None]] = {
    "mug": mug,
    "bottle": bottle,
    "box": carton,
    "shirt": shirt,
    "shoe": shoe,
    "bag": bag,
    "book": book,
    "clock": clock,
    "lamp": lamp,
    "cap": cap,
}
