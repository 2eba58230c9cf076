"""What made a query and an image found for it near, as data: heat, matched points, bits. `picture` draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WHOLE = (0.0, 0.0, 1.0, 1.0)


class Unexplained(Exception):
    """Why there is nothing to show, in a short sentence for the picture; no mistake of the user."""


@dataclass(frozen=True, eq=False)
class Heat:
    """What each place of one image adds to a similarity.

    values: (h, w) float64, laid evenly over the box. box: top, left, bottom, right, as shares of height and width;
    what lies outside of it the method did not see.
    """

    values: np.ndarray
    box: tuple[float, float, float, float] = WHOLE


@dataclass(frozen=True, eq=False)
class HeatPair:
    """said: one short line below the pair. distance: of the two images by this method, to be compared with the
    record's; None where it has none of its own. The same holds for the other kinds of clue."""

    query: Heat
    found: Heat
    said: str
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class MatchPair:
    """query, found: (m, 2) float64, x and y as shares of width and height. agree: (m,) bool, those that fit one map."""

    query: np.ndarray
    found: np.ndarray
    agree: np.ndarray
    said: str
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class BitPair:
    """query, found: (rows, columns) bool."""

    query: np.ndarray
    found: np.ndarray
    said: str
    distance: float | None = None


@dataclass(frozen=True, eq=False)
class WordPair:
    """words: each word of the query with what it adds to the similarity, in their order."""

    words: tuple[tuple[str, float], ...]
    said: str
    distance: float | None = None


Clue = HeatPair | MatchPair | BitPair | WordPair


@dataclass(frozen=True, eq=False)
class PartClues:
    """One member of a method, or its verification: a clue for each image that was found, in order.

    about: what is shown, or, where there are no clues, why.
    """

    name: str
    about: str
    clues: tuple[Clue, ...] = ()


@dataclass(frozen=True, eq=False)
class Shown:
    """An image as the picture names it. pixels: (h, w, 3) uint8 RGB, or None where it cannot be read. text: what is
    said of it, "" where nothing is."""

    id: str
    label: str
    pixels: np.ndarray | None
    text: str = ""


@dataclass(frozen=True, eq=False)
class Neighbour:
    """One image that a method found: at which rank from 1, how far, and whether it shows the query's label."""

    image: Shown
    rank: int
    distance: float
    right: bool


@dataclass(frozen=True, eq=False)
class Band:
    """One method: what it found, the nearest first, and why."""

    method: str
    family: str
    found: tuple[Neighbour, ...]
    layers: tuple[PartClues, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One query and all that is shown of it. record: what the record is called. chosen: why this query; "" if asked."""

    record: str
    dataset: str
    query: Shown
    chosen: str
    bands: tuple[Band, ...]
