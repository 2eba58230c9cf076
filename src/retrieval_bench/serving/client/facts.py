"""What a service tells of itself: its indexes and methods, its state, and what was done to an index. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class IndexFacts:
    """An index that is open. items: that are there now. writable: items can be added and removed."""

    number: int
    name: str
    dataset: str
    items: int
    version: int
    writable: bool


@dataclass(frozen=True)
class MethodFactsShown:
    """A column: a method of an index.

    key: what it is called by in a search. comparable: "" where distances of two queries can be compared; else why not.
    learns: whether it learned from train. notice: what changed since the index was built, without a consequence.
    compares: what a query brings, and what of an item that is compared with: "image", "text-to-image".
    """

    key: str
    index: int
    method: str
    family: str
    distance: str
    bytes_per_item: int
    comparable: str
    learns: bool
    notice: str
    compares: str = "image"


@dataclass(frozen=True)
class Methods:
    """What is searched in, and by what."""

    indexes: tuple[IndexFacts, ...]
    columns: tuple[MethodFactsShown, ...]


@dataclass(frozen=True)
class Health:
    """status: "ok". under_way: requests that are served; waiting: pictures that wait for a method."""

    status: str
    under_way: int
    waiting: int


@dataclass(frozen=True)
class OperationShown:
    """A change of an index, as `StoredIndex.operations` tells of it."""

    number: int
    at: str
    what: str
    count: int
    note: str
    undone_by: int | None
