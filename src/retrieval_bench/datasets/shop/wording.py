"""What a shop writes of its products, and what its customers type: a small grammar over what a product is known by.

A listing says kind, colours, print, lettering, material and size, in one of several phrasings; now and then it leaves
something out or misspells a word. A query is what a customer remembers: the lettering and the colour (easy), some of
it in other words (medium), or fewer of these words, misspelt (hard). Chance depends on (seed, product, view) alone.

Nothing here is drawn, and no picture depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval_bench.datasets.shop.drawing import Colour, Dice
from retrieval_bench.datasets.shop.look import PALETTE, Look

DIFFICULTIES = ("easy", "medium", "hard")

KINDS: dict[str, tuple[str, ...]] = {
    "mug": ("mug", "coffee mug", "cup", "tea cup"),
    "bottle": ("bottle", "water bottle", "flask", "drinking bottle"),
    "box": ("box", "carton", "package", "cardboard box"),
    "shirt": ("shirt", "t-shirt", "tee", "top"),
    "shoe": ("shoe", "sneaker", "trainer", "running shoe"),
    "bag": ("bag", "handbag", "tote", "shopping bag"),
    "book": ("book", "novel", "paperback", "volume"),
    "clock": ("clock", "wall clock", "timepiece", "kitchen clock"),
    "lamp": ("lamp", "table lamp", "light", "desk lamp"),
    "cap": ("cap", "baseball cap", "hat", "snapback"),
}
"""Category -> what it is called: first by the shop, then in other words."""

COLOURS: dict[str, tuple[str, ...]] = {
    "white": ("white", "off-white", "ivory"),
    "cream": ("cream", "beige", "sand"),
    "yellow": ("yellow", "mustard", "golden"),
    "orange": ("orange", "tangerine", "rust"),
    "red": ("red", "crimson", "scarlet"),
    "pink": ("pink", "rose", "blush"),
    "purple": ("purple", "violet", "plum"),
    "navy": ("navy", "dark blue", "midnight blue"),
    "blue": ("blue", "azure", "sky blue"),
    "teal": ("teal", "turquoise", "petrol"),
    "green": ("green", "emerald", "grass green"),
    "olive": ("olive", "khaki", "moss"),
    "brown": ("brown", "chocolate", "chestnut"),
    "grey": ("grey", "gray", "ash"),
    "black": ("black", "jet black", "charcoal"),
}

PRINTS: dict[str, tuple[str, ...]] = {
    "stripes": ("stripes", "striped", "lines"),
    "bars": ("bars", "barred", "blocks"),
    "checks": ("checks", "checked", "chequered"),
    "dots": ("dots", "dotted", "polka dots"),
    "diagonal": ("diagonal lines", "slanted stripes", "diagonals"),
    "zigzag": ("zigzag", "chevron", "zig-zag"),
    "band": ("a band", "a belt", "one broad stripe"),
    "halves": ("two halves", "two-tone", "half and half"),
    "grid": ("a grid", "squares", "lattice"),
    "scales": ("scales", "fish scales", "scalloped"),
}

EMBLEMS: dict[str, tuple[str, ...]] = {
    "star": ("star", "stars"),
    "heart": ("heart", "love"),
    "ring": ("ring", "circle"),
    "leaf": ("leaf", "foliage"),
    "bolt": ("bolt", "lightning"),
    "peaks": ("peaks", "mountains"),
    "flower": ("flower", "blossom"),
    "moon": ("moon", "crescent"),
    "fish": ("fish", "trout"),
    "diamond": ("diamond", "rhombus"),
}

MATERIALS: dict[str, tuple[str, ...]] = {
    "mug": ("stoneware", "porcelain", "enamel"),
    "bottle": ("steel", "glass", "aluminium"),
    "box": ("cardboard", "tin", "recycled paper"),
    "shirt": ("cotton", "linen", "organic cotton"),
    "shoe": ("leather", "canvas", "mesh"),
    "bag": ("canvas", "leather", "jute"),
    "book": ("hardback", "softcover", "clothbound"),
    "clock": ("wood", "metal", "plastic"),
    "lamp": ("brass", "ceramic", "paper"),
    "cap": ("cotton twill", "wool", "corduroy"),
}
"""The three shop brands of a kind; no picture shows them."""

SIZES = ("small", "medium", "large")

MISSPELT_LISTINGS, LEFT_OUT = 0.06, 0.15
"""Of the listings: the share with a word misspelt, and how often each part that can be missing is."""

Said = tuple[str, ...]
"""A thing in the shop's own word and, behind it, in others."""


@dataclass(frozen=True)
class Words:
    """What can be said of a product. lettering: printed on it, which two products of a category never share with it,
    but for those that differ in colour alone."""

    kind: Said
    base: Said
    accent: Said
    print: Said
    emblem: Said
    lettering: str
    line: str
    material: str
    size: str


def words_of(look: Look, seed: int) -> Words:
    """The words for one product. Material and size are drawn here; everything else can be seen."""
    dice = Dice("words", seed, look.name)
    return Words(
        kind=KINDS[look.category],
        base=COLOURS[nearest_colour(look.base)],
        accent=COLOURS[nearest_colour(look.accent)],
        print=PRINTS[look.pattern],
        emblem=EMBLEMS[look.emblem],
        lettering=look.title.capitalize(),
        line=look.line.lower(),
        material=dice.pick(MATERIALS[look.category]),
        size=dice.pick(SIZES),
    )


def nearest_colour(colour: Colour) -> str:
    """The name in the palette that is nearest; a product's colours are tones of it."""
    return min(PALETTE, key=lambda name: sum((a - b) ** 2 for a, b in zip(PALETTE[name], colour, strict=True)))


def listing(words: Words, dice: Dice) -> str:
    """A title and one sentence, as a seller writes them: mostly in the shop's own words, seldom misspelt."""

    def say(said: Said) -> str:
        return said[0] if dice.chance(0.75) else dice.pick(said)

    def perhaps(text: str) -> str:
        return "" if dice.chance(LEFT_OUT) else text

    name, kind, base, accent = words.lettering, say(words.kind), say(words.base), say(words.accent)
    print_, emblem = say(words.print), say(words.emblem)
    title = dice.pick(
        (
            f"{name} {kind} {base} {perhaps(f'with {print_}')}",
            f"{base.capitalize()} {kind} {name}{perhaps(f', {words.size}')}",
            f"{kind.capitalize()} '{name}' in {base}{perhaps(f' and {accent}')}",
            f"{name} - {words.material} {kind}, {base} {perhaps(emblem)}",
        )
    )
    rest = f"{perhaps(f'Shows a {emblem}.')} {perhaps(words.line)}"
    sentence = dice.pick(
        (
            f"{kind.capitalize()} made of {words.material}, {base} {perhaps(f'with {accent}')} {print_}. {rest}",
            f"A {words.size} {base} {kind} {perhaps(f'with {print_} in {accent}')}, {emblem} and the word {name}.",
            f"{perhaps(f'Size {words.size}.')} {words.material.capitalize()}. Print: {print_}, {emblem}, {words.line}.",
        )
    )
    text = f"{title}. {sentence}"
    return _tidy(misspelt(text, dice) if dice.chance(MISSPELT_LISTINGS) else text)


def query(words: Words, dice: Dice, difficulty: str) -> str:
    """What a customer types. difficulty: one of DIFFICULTIES."""

    def other(said: Said) -> str:
        return dice.pick(said[1:])

    if difficulty == "easy":
        parts = [words.lettering.lower(), words.base[0], words.kind[0], dice.pick((words.print[0], words.emblem[0]))]
        return _tidy(" ".join(parts))
    if difficulty == "medium":
        seen = dice.shuffled([other(words.print), other(words.emblem), other(words.accent)])[:2]
        name = [words.lettering.lower()] if dice.chance(0.5) else []
        return _tidy(" ".join([*name, other(words.base), other(words.kind), *seen]))
    seen = dice.shuffled([other(words.print), other(words.emblem), words.lettering.lower()])[:2]
    text = " ".join([dice.pick(words.base), dice.pick(words.kind), *seen])
    return _tidy(misspelt(misspelt(text, dice), dice))


def misspelt(text: str, dice: Dice) -> str:
    """One word of four letters or more with two letters swapped, one dropped, doubled, or replaced by another."""
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return text
    place = dice.pick(long)
    word = words[place]
    at = dice.whole(1, len(word) - 2)
    words[place] = dice.pick(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + dice.pick("aeioustrn") + word[at + 1 :],
        )
    )
    return " ".join(words)


def written_texts(looks: Sequence[Look], seed: int, part: str, views: Sequence[int]) -> tuple[list[str], list[str]]:
    """(text, difficulty) of the items of a split, product by product, view by view; difficulty is "" of listings."""
    texts, difficulties = [], []
    for look in looks:
        words = words_of(look, seed)
        for view in views:
            dice = Dice("text", seed, look.name, view)
            difficulty = dice.pick(DIFFICULTIES) if part == "query" else ""
            texts.append(query(words, dice, difficulty) if difficulty else listing(words, dice))
            difficulties.append(difficulty)
    return texts, difficulties


def _tidy(text: str) -> str:
    return " ".join(text.split()).replace(" ,", ",").replace(" .", ".").replace(",.", ".").removesuffix(",")
