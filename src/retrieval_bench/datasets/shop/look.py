"""The shop's range: ten categories of ten products, and what sets them apart.

Of the ten products of a category three share shape and colours and differ in what is printed on them, three share shape
and print and differ in colours, and four differ in everything: `Look.differs_by` says which.
"""

from __future__ import annotations

from dataclasses import dataclass

from retrieval_bench.datasets.shop.drawing import Colour, Dice, luminance
from retrieval_bench.datasets.shop.prints import EMBLEMS, PATTERNS

CATEGORIES = ("mug", "bottle", "box", "shirt", "shoe", "bag", "book", "clock", "lamp", "cap")
STYLES = 5
"""Each category comes in this many basic forms."""

PALETTE: dict[str, Colour] = {
    "white": (240, 238, 232),
    "cream": (232, 214, 176),
    "yellow": (238, 196, 60),
    "orange": (224, 122, 44),
    "red": (190, 44, 42),
    "pink": (226, 142, 160),
    "purple": (112, 66, 132),
    "navy": (34, 50, 96),
    "blue": (52, 112, 184),
    "teal": (36, 132, 132),
    "green": (62, 122, 62),
    "olive": (134, 132, 66),
    "brown": (112, 72, 46),
    "grey": (136, 138, 140),
    "black": (40, 40, 44),
}
WHITE, BLACK = PALETTE["white"], PALETTE["black"]

WORDS = (
    *("NORD", "LUNA", "ZEST", "OATS", "MILK", "OLIVE", "BERRY", "COCOA", "KAFFE", "SOLIS", "TERRA", "RIVER", "MANGO"),
    *("PEPPER", "SALTY", "BASIL", "MOKKA", "CHAI", "LEMON", "CRISP", "FJORD", "ATLAS", "DELTA", "PIXEL", "ORBIT"),
    *("NOVA", "ECHO", "PRIMO", "BRISA", "CLOUD", "STONE", "MAPLE", "HONEY", "TIGER", "PANDA", "KOALA", "ROBIN"),
    *("FALCO", "LYNX", "OTTER"),
)
LINES = (
    *("500 ML", "NET 250 G", "SINCE 1984", "NO. 7", "ORGANIC", "EXTRA", "CLASSIC", "SIZE M", "100% PURE", "HAND MADE"),
    *("VOL. 2", "A NOVEL", "FRESH!", "LIMITED"),
)


@dataclass(frozen=True)
class Look:
    """What makes one product: everything its drawing depends on.

    differs_by: what sets it apart from its nearest siblings: "print", "colour" or "shape" (everything).
    style: which basic form, below STYLES; shape: four proportions in 0..1, each drawing's own.
    base, accent, ink: the body's colour, the second colour, the lettering's. count: repeats of the pattern.
    title, line, emblem, layout: what is printed and in which of four ways.
    """

    category: str
    name: str
    differs_by: str
    style: int
    shape: tuple[float, float, float, float]
    base: Colour
    accent: Colour
    ink: Colour
    pattern: str
    count: float
    emblem: str
    title: str
    line: str
    layout: int


def looks(seed: int) -> list[Look]:
    """The whole range, category by category."""
    return [look for category in CATEGORIES for look in _range(category, seed)]


def _range(category: str, seed: int) -> list[Look]:
    dice = Dice("range", seed, category)
    styles = dice.shuffled(range(STYLES))
    patterns, emblems, words = (dice.shuffled(items) for items in (PATTERNS, EMBLEMS, WORDS))
    schemes = [_scheme(dice, base) for base in dice.shuffled(list(PALETTE.values()))[:10]]
    parts = [[dice.between(0.0, 1.0) for _ in range(4)] for _ in range(10)]
    counts, lines = [dice.pick((4.0, 5.0, 7.0, 9.0)) for _ in range(10)], [dice.pick(LINES) for _ in range(10)]
    layouts = [dice.whole(0, 3) for _ in range(10)]
    out = []
    for n in range(10):
        form = 0 if n < 3 else 3 if n < 6 else n
        colours = 0 if n < 3 else n
        paper = 3 if 3 <= n < 6 else n
        base, accent, ink = schemes[colours]
        out.append(
            Look(
                category=category,
                name=f"{category}-{n:02d}",
                differs_by="print" if n < 3 else "colour" if n < 6 else "shape",
                style=styles[(0 if n < 3 else 1 if n < 6 else n) % STYLES],
                shape=(parts[form][0], parts[form][1], parts[form][2], parts[form][3]),
                base=base,
                accent=accent,
                ink=ink,
                pattern=patterns[paper],
                count=counts[paper],
                emblem=emblems[paper],
                title=words[paper],
                line=lines[paper],
                layout=layouts[paper],
            )
        )
    return out


def _scheme(dice: Dice, base: Colour) -> tuple[Colour, Colour, Colour]:
    """A tone of the base colour with an accent and an ink that can be told apart from it also in grey."""
    colours = list(PALETTE.values())
    accent = dice.pick([c for c in colours if abs(luminance(c) - luminance(base)) > 45])
    ink = dice.pick([c for c in (WHITE, BLACK, *colours) if abs(luminance(c) - luminance(base)) > 85])
    return _tone(dice, base), _tone(dice, accent), _tone(dice, ink)


def _tone(dice: Dice, colour: Colour) -> Colour:
    r, g, b = (min(max(part + dice.between(-20.0, 20.0), 20.0), 246.0) for part in colour)
    return r, g, b
