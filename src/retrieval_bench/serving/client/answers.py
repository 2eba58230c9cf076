"""What a search is asked and what it answers. Plain data: pages and the API show the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval_bench.core import BenchError

JOINED = "joined"
"""The key of the joined row."""
MOST_K = 200
"""Hits of a column, at most."""


@dataclass(frozen=True)
class Filters:
    """Which items may be found. Empty: all of them.

    Args:
        labels: one of these.
        categories: one of these.
        attributes: of each attribute that is named, one of its values.
        text_in_id: a part of the id.
        not_labels: none of these.
        not_categories: none of these.
    """

    labels: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    text_in_id: str = ""
    not_labels: tuple[str, ...] = ()
    not_categories: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(
            self.labels
            or self.categories
            or self.attributes
            or self.text_in_id
            or self.not_labels
            or self.not_categories
        )


@dataclass(frozen=True)
class Question:
    """How to search, whatever is searched for.

    Args:
        k: hits of each column, 1 to MOST_K; always so many where so many exist.
        columns: keys of columns, in the order in which they are answered. Empty: all.
        filters: which items may be found.
        exclude: ids of items that no column finds.
        thresholds: column -> largest distance; what is farther is no hit.
        more: ids of items to find more of.
        less: ids of items to find less of; they are not found themselves.
        crop: left, top, right, bottom as shares of the upright picture, 0 to 1; only that part is searched for.
        turn: 0, 90, 180 or 270 degrees clockwise, before the crop.
        joined: also answer by all columns joined.

    Raises:
        BenchError: A value is out of its range.
    """

    k: int = 10
    columns: tuple[str, ...] = ()
    filters: Filters = field(default_factory=Filters)
    exclude: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    crop: tuple[float, float, float, float] | None = None
    turn: int = 0
    joined: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_K:
            raise BenchError(f"k={self.k}: must be between 1 and {MOST_K}")
        if self.turn not in (0, 90, 180, 270):
            raise BenchError(f"turn={self.turn}: must be 0, 90, 180 or 270")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise BenchError(
                    "crop: must be left,top,right,bottom as shares of the picture from 0 to 1, such as 0.1,0.1,0.9,0.9"
                )


@dataclass(frozen=True)
class Hit:
    """An item that was found.

    Args:
        index: number of its index.
        number: of the item in that index; never used twice.
        id: its id.
        label: "" where it has none.
        category: "" where it has none.
        attributes: what else is known of it.
        distance: from the query; of a joined row 1 - points / most points.
        columns: keys of the columns that found it; of a joined row, those that it comes from.
        picture: address of its picture.
        text: what it is called or described as, the first 2,000 characters; "" where nothing is known of that.
    """

    index: int
    number: int
    id: str
    label: str
    category: str
    attributes: Mapping[str, str]
    distance: float
    columns: tuple[str, ...] = ()
    picture: str = ""
    text: str = ""


@dataclass(frozen=True)
class ColumnAnswer:
    """What one method found in one index.

    Args:
        key: of the column.
        hits: nearest first.
        milliseconds: by phase: waited (in the queue), extract, search. Pictures that are described together share the
            time of all of them.
        bytes_per_item: that the method keeps of an item.
        comparable: "" where the distance can be compared with that of another query; else why not, so that a threshold
            means nothing.
        note: what was done otherwise than asked, and why; "" where nothing was.
        refused: why there is no answer; "" where there is one.
        beyond: items among the k nearest that were dropped, as they are farther than the threshold.
        approximate: what an approximate index finds of these hits, in words; "" where there is none, or nothing to say.
    """

    key: str
    hits: tuple[Hit, ...] = ()
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    bytes_per_item: int = 0
    comparable: str = ""
    note: str = ""
    refused: str = ""
    beyond: int = 0
    approximate: str = ""


@dataclass(frozen=True)
class Answer:
    """What all columns found.

    Args:
        columns: an answer of each column.
        joined: reciprocal-rank fusion of these columns' rankings; None where it was not asked for, or of one column.
        milliseconds: of what is done once for all: decode; and total.
        size: width and height of what was searched for, in pixels; None: no picture was.
        versions: of each index, by its number: the last operation that this answer knows of.
        query: the word by which the same picture can be searched for again, for a while; "" for none.
        notes: what was done to the picture beyond reading it.
        text: the words that were searched for; "" for none.
    """

    columns: tuple[ColumnAnswer, ...]
    joined: ColumnAnswer | None
    milliseconds: Mapping[str, float]
    size: tuple[int, int] | None
    versions: Mapping[int, int]
    query: str = ""
    notes: tuple[str, ...] = ()
    text: str = ""


def picture_address(index: int, number: int, digest: str) -> str:
    """Where the picture of an item is; what is behind an address never changes, as the digest is part of it."""
    return f"/pictures/{index}/{number}?v={digest[:20]}"
