"""The indexes that a service has open, and its columns: every method of every index."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from retrieval_bench.core import BadImage, BenchError, Dataset, Split
from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.indexing.items import Item
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.indexing.snapshot import Snapshot
from retrieval_bench.serving.requests.errors import NoSuchThing

CHANGED = "another picture has its name by now; build the index again"


KEPT_ITEMS = 20_000
"""What is known of so many is kept for the next answers."""


class OpenIndex:
    """One index. Its dataset is loaded when a picture of it is first asked for.

    Args:
        number: its place among those that are open, from 0; pages and the API name it so.
        name: unique among them.
        stored: the index.
        writable: items are added to it and removed from it.
    """

    def __init__(self, number: int, name: str, stored: StoredIndex, writable: bool) -> None:
        self.number, self.name, self.stored, self.writable = number, name, stored, writable
        self.writing = threading.Lock()
        self._loading = threading.Lock()
        self._items: dict[int, Item] = {}
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """Where items that were built from a dataset have their pictures; raises BenchError where it is gone."""
        with self._loading:
            if self._dataset is None:
                self._dataset = self.stored.dataset()
            return self._dataset

    @cached_property
    def _gallery_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.dataset.gallery.ids)}

    def items(self, snapshot: Snapshot, numbers: Sequence[int]) -> dict[int, Item]:
        """Items by their numbers, with attributes as text. What is known of an item never changes, so it is kept.

        Args:
            snapshot: of this index.
            numbers: which; those that the index has forgotten are left out.

        Returns:
            The items.
        """
        found = {number: item for number in numbers if (item := self._items.get(number)) is not None}
        if missing := [number for number in numbers if number not in found]:
            read = {
                item.number: replace(item, attributes={name: str(value) for name, value in item.attributes.items()})
                for item in snapshot.items(missing)
            }
            found |= read
            if len(self._items) + len(read) > KEPT_ITEMS:
                self._items = {}
            self._items |= read
        return found

    def item(self, number: int) -> Item:
        """An item, removed or not; raises NoSuchThing."""
        try:
            return self.stored.snapshot().item(number)
        except BenchError:
            raise NoSuchThing(f"index {self.number} has no item {number}") from None

    @property
    def queries(self) -> Split:
        """The dataset's own queries."""
        return self.dataset.query

    def picture(self, item: Item) -> bytes:
        """The encoded picture of an item.

        Args:
            item: of this index; where its picture lies was written down when it was added.

        Returns:
            The bytes.

        Raises:
            BadImage: It is not there any more, or another one is.
        """
        if item.picture is not None or item.path is not None:
            data = self.stored.read(item)
            if item.picture is None and hashlib.sha256(data).hexdigest() != item.digest:
                raise BadImage("changed file", CHANGED)
            return data
        try:
            gallery = self.dataset.gallery
        except BenchError as error:
            raise BadImage("missing dataset", str(error)) from None
        row = self._gallery_rows.get(item.id)
        if row is None or gallery.images.digest(row) != item.digest:
            raise BadImage("changed file", CHANGED)
        return gallery.images.read(row)


@dataclass(frozen=True, eq=False)
class SearchColumn:
    """A method of an index. key: the method's name, behind that of the index where there are several."""

    key: str
    index: OpenIndex
    method: IndexedMethod

    def reads(self, modality: str) -> bool:
        """Whether it looks at this of a query: "image" or "text"."""
        return modality in self.method.sides.query.split("+")


def columns_of(indexes: Sequence[OpenIndex]) -> dict[str, SearchColumn]:
    """Every column by its key, in the order of the indexes and of their methods."""
    several = len(indexes) > 1
    found = {}
    for index in indexes:
        for method in index.stored.methods:
            key = f"{index.name}/{method.name}" if several else method.name
            found[key] = SearchColumn(key, index, method)
    return found
