"""What the catalogue answers: its items, what was added or would be, and what became of a change. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Duplicate:
    """An item that looks like a picture that is to be added.

    Args:
        index: number of its index.
        number: of the item.
        id: its id.
        label: "" where it has none.
        why: "same picture", or which method finds them equal or nearly so.
        exact: the very same picture.
    """

    index: int
    number: int
    id: str
    label: str
    why: str
    exact: bool


@dataclass(frozen=True)
class CandidatePicture:
    """A picture that is to be added.

    Args:
        name: as the client calls its file.
        id: under which it would be added.
        refused: why it cannot be; "" where it can.
        duplicates: items that it may be a copy of.
    """

    name: str
    id: str
    refused: str = ""
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True)
class CatalogueChange:
    """What became of a change in one index. operation: its number, None where nothing was changed.

    error: why not; "" where it was done. items: numbers of the items that were added. refused: reason -> ids.
    """

    index: int
    name: str
    operation: int | None
    items: tuple[int, ...] = ()
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class AddedPictures:
    """candidates: each picture. changes: of each index; none where it was only looked at what would be added."""

    candidates: tuple[CandidatePicture, ...]
    changes: tuple[CatalogueChange, ...]


@dataclass(frozen=True)
class ListedItem:
    """An item as the API lists it. picture: address of its picture. text: its first 2,000 characters."""

    index: int
    number: int
    id: str
    label: str
    category: str
    attributes: Mapping[str, str]
    picture: str
    text: str = ""


@dataclass(frozen=True)
class Listing:
    """A part of the items. total: how many there are; version: the last operation that this listing knows of."""

    items: tuple[ListedItem, ...]
    total: int
    version: int


@dataclass(frozen=True)
class KeptJudgement:
    """What was kept of a judgement. query_id: of the query in the manifest; "" where it is not in it, and why."""

    query_id: str
    why_not: str = ""
