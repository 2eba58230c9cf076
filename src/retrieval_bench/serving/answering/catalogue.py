"""The items of the indexes: looked through, added, removed, and each change undone.

Several indexes may be open. What is added goes to every index that is open for writing, one after the other; the answer
has a row for each, so that nobody takes what one of them refused for done. What is removed is removed wherever it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.indexing.index import NewItem
from retrieval_bench.indexing.items import Item, Operation
from retrieval_bench.methods.modalities import IMAGE
from retrieval_bench.serving.answering.column_search import filtered
from retrieval_bench.serving.answering.open_indexes import OpenIndex, SearchColumn
from retrieval_bench.serving.answering.service import EXTRACTION_S, SearchService
from retrieval_bench.serving.client.answers import Filters, picture_address
from retrieval_bench.serving.client.changes import (
    AddedPictures,
    CandidatePicture,
    CatalogueChange,
    Duplicate,
    ListedItem,
    Listing,
)
from retrieval_bench.serving.decoding.pool import KeptPicture
from retrieval_bench.serving.requests.errors import NoSuchThing
from retrieval_bench.serving.requests.uploads import UploadedFile
from retrieval_bench.serving.requests.words import MOST_CHARACTERS
from retrieval_bench.system.threads import mapped

EVERYTHING = Filters()
MOST_TEXT = 200
"""Characters of an id, a label, a category, a name or a value of an attribute."""
MOST_ATTRIBUTES = 20
NEAR_BITS = 6
"""Of the 64 of a perceptual hash: pictures whose hashes differ in so few are likely to be copies."""


@dataclass(frozen=True)
class AddingOptions:
    """What is said of pictures that are added. ids: of each, or none; labels, texts: of each, or one for all."""

    labels: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    allow_duplicates: bool = False


class Catalogue:
    """The items behind a service."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def listing(self, index: int, filters: Filters = EVERYTHING, start: int = 0, count: int = 50) -> Listing:
        """Items of an index, by number: `count` of them from the `start`-th on."""
        snapshot = self._service.index(index).stored.snapshot()
        numbers = filtered(snapshot, filters) if filters else snapshot.numbers
        some = numbers[max(0, start) : max(0, start) + max(0, count)]
        items = tuple(listed(index, item) for item in snapshot.items(some))
        return Listing(items, len(numbers), snapshot.version)

    def item(self, index: int, number: int) -> ListedItem:
        """A live item; raises NoSuchThing."""
        snapshot = self._service.index(index).stored.snapshot()
        place = int(np.searchsorted(snapshot.numbers, number))
        if place >= len(snapshot.numbers) or snapshot.numbers[place] != number:
            raise NoSuchThing(f"index {index} has no item {number}")
        return listed(index, snapshot.item(number))

    def look(self, files: Sequence[UploadedFile], said: AddingOptions) -> AddedPictures:
        """What adding these pictures would do, and which of them are there already. Nothing is changed."""
        return AddedPictures(tuple(candidate for candidate, _ in self._candidates(files, said)), ())

    def add(self, files: Sequence[UploadedFile], said: AddingOptions) -> AddedPictures:
        """Add pictures to every index that is open for writing: in all methods of an index at one moment.

        Args:
            files: encoded pictures; what is kept of them is encoded anew and holds pixels alone.
            said: labels and more. A picture that is there already is left out, unless `allow_duplicates`.

        Returns:
            What became of each picture, and of each index.

        Raises:
            BenchError: No index is open for writing, or what is said of the pictures cannot be kept.
        """
        writable = self._writable()
        judged = self._candidates(files, said)
        whole = [(candidate, kept) for candidate, kept in judged if kept is not None and not candidate.refused]
        labels = _for_each(said.labels, len(files), "label")
        texts = _for_each(said.texts, len(files), "text")
        label_of = {candidate.id: labels[place] for place, (candidate, _) in enumerate(judged)}
        text_of = {candidate.id: texts[place] for place, (candidate, _) in enumerate(judged)}
        items = [
            NewItem(
                id=candidate.id,
                picture=kept.pixels,
                encoded=kept.encoded,
                label=label_of[candidate.id] or None,
                category=said.category or None,
                attributes=dict(said.attributes),
                path=None,
                digest=hashlib.sha256(kept.encoded).hexdigest(),
                text=text_of[candidate.id],
            )
            for candidate, kept in whole
        ]
        changes = [self._changed(index, partial(self._add, index, items)) for index in writable] if items else []
        return AddedPictures(tuple(candidate for candidate, _ in judged), tuple(changes))

    def remove(self, ids: Sequence[str]) -> list[CatalogueChange]:
        """Remove items from every index that has them and is open for writing.

        Raises:
            NoSuchThing: None of them has such an item.
        """
        _refuse_long(ids)
        changes = []
        found: set[str] = set()
        for index in self._writable():
            snapshot = index.stored.snapshot()
            own = [one for one in dict.fromkeys(ids) if snapshot.by_id(one) is not None]
            found |= set(own)
            if own:
                changes.append(self._changed(index, partial(self._remove, index, own)))
        if unknown := [one for one in ids if one not in found]:
            if not changes:
                raise NoSuchThing(f"no index that is open for writing has an item {unknown[0]!r}; nothing was removed")
            changes.append(CatalogueChange(-1, "", None, refused={"no such item": tuple(unknown)}))
        return changes

    def undo(self, index: int, operation: int) -> CatalogueChange:
        """Undo an operation of an index; raises BenchError where it cannot be undone."""
        opened = self._service.index(index)
        if not opened.writable:
            raise BenchError(f"index {opened.name} is open for reading only")
        with opened.writing:
            return CatalogueChange(index, opened.name, opened.stored.undo(operation))

    def operations(self, index: int, last: int = 100) -> list[Operation]:
        """The last operations of an index, the newest first."""
        return self._service.index(index).stored.operations(last)[::-1]

    def _writable(self) -> list[OpenIndex]:
        found = [index for index in self._service.indexes if index.writable]
        if not found:
            raise BenchError("no index is open for writing; serve one without --read-only")
        return found

    def _changed(self, index: OpenIndex, change: Callable[[], CatalogueChange]) -> CatalogueChange:
        """A change of one index; what goes wrong there says so, and stops no other index."""
        try:
            with index.writing:
                return change()
        except BenchError as error:
            return CatalogueChange(index.number, index.name, None, error=str(error))

    def _add(self, index: OpenIndex, items: Sequence[NewItem]) -> CatalogueChange:
        done = index.stored.add(items)
        refused = {reason: tuple(ids) for reason, ids in done.refused.items()}
        return CatalogueChange(
            index.number, index.name, done.operation, tuple(int(one) for one in done.numbers), refused
        )

    def _remove(self, index: OpenIndex, ids: Sequence[str]) -> CatalogueChange:
        return CatalogueChange(index.number, index.name, index.stored.remove(ids))

    def _candidates(
        self, files: Sequence[UploadedFile], said: AddingOptions
    ) -> list[tuple[CandidatePicture, KeptPicture | None]]:
        """Each picture, encoded anew, and what it may be a copy of."""
        _refuse_long([*said.labels, *said.ids, said.category, *said.attributes, *said.attributes.values()])
        if len(said.attributes) > MOST_ATTRIBUTES:
            raise BenchError(f"at most {MOST_ATTRIBUTES} attributes are kept of an item")
        _for_each(said.labels, len(files), "label")
        _for_each(said.texts, len(files), "text")
        ids = _for_each(said.ids, len(files), "id") if said.ids else ("",) * len(files)
        if len(said.ids) == 1 and len(files) > 1:
            raise BenchError(f"id {said.ids[0]!r} is given for {len(files)} pictures; give one for each, or none")
        known = self._digests()
        found: list[tuple[CandidatePicture, KeptPicture | None]] = []
        seen: dict[str, str] = {}
        at_once = self._service.capacity.workers
        for (file, own_id), kept in zip(zip(files, ids, strict=True), mapped(self._kept, files, at_once), strict=True):
            if isinstance(kept, BadImage):
                refused = f"{kept.reason}: {kept.detail}"
                found.append((CandidatePicture(file.name[:MOST_TEXT], own_id, refused), None))
                continue
            digest = hashlib.sha256(kept.encoded).hexdigest()
            name = own_id or f"added/{digest[:32]}"
            same = self._same(known, {digest, hashlib.sha256(file.data).hexdigest()})
            near = () if same or said.allow_duplicates else self._near(kept)
            refused = ""
            if digest in seen:
                refused = f"the same picture is sent twice, also as {seen[digest]!r}"
            elif same and not said.allow_duplicates:
                refused = f"the same picture is there already, as {same[0].id!r}"
            seen.setdefault(digest, name)
            found.append((CandidatePicture(file.name[:MOST_TEXT], name, refused, (*same, *near)), kept))
        return found

    def _kept(self, file: UploadedFile) -> KeptPicture | BadImage:
        try:
            return self._service.pool.keep(file.data)
        except BadImage as bad:
            return bad

    def _digests(self) -> Callable[[str], list[tuple[OpenIndex, Item]]]:
        snapshots = [(index, index.stored.snapshot()) for index in self._service.indexes]
        return lambda digest: [(index, item) for index, own in snapshots for item in own.by_digest(digest)]

    def _same(self, known: Callable[[str], list[tuple[OpenIndex, Item]]], digests: set[str]) -> tuple[Duplicate, ...]:
        there = [found for digest in sorted(digests) for found in known(digest)]
        return tuple(
            Duplicate(index.number, item.number, item.id, item.label or "", "same picture", True)
            for index, item in there
        )

    def _near(self, kept: KeptPicture) -> tuple[Duplicate, ...]:
        """The nearest item by each perceptual hash, or by the first method where there is none: it may be a copy."""
        comparable = [
            column
            for column in self._service.columns.values()
            if not column.method.comparable and column.method.sides.read == {IMAGE}
        ]
        columns = [column for column in comparable if _is_hash(column)] or comparable[:1]
        methods = [one.method for one in columns]
        described = self._service.queue.describe(methods, [kept.pixels] * len(columns), EXTRACTION_S)
        found: dict[tuple[int, int], Duplicate] = {}
        for column, done in zip(columns, described, strict=True):
            rows = done.rows
            snapshot = column.index.stored.snapshot()
            if not len(snapshot):
                continue
            ranking = snapshot.search(column.method.name, rows, 1)
            number, distance = int(ranking.indices[0, 0]), float(ranking.distances[0, 0])
            if number < 0 or distance > (NEAR_BITS if _is_hash(column) else 1e-6):
                continue
            item = snapshot.item(number)
            why = f"{column.key}: " + (f"{distance:g} of 64 bits differ" if _is_hash(column) else "the same features")
            place = column.index.number, number
            if place in found:
                why = f"{found[place].why}; {why}"
            found[place] = Duplicate(*place, item.id, item.label or "", why, False)
        return tuple(found.values())


def _is_hash(column: SearchColumn) -> bool:
    return column.method.distance == "hamming" and column.method.bytes_per_item == 8


def listed(index: int, item: Any) -> ListedItem:
    """An item as the API shows it."""
    attributes = {name: str(value) for name, value in item.attributes.items()}
    picture = picture_address(index, item.number, item.digest)
    said = item.id, item.label or "", item.category or "", attributes
    return ListedItem(index, item.number, *said, picture, item.text[:MOST_CHARACTERS])


def attributes_of(text: str) -> dict[str, str]:
    """What a form says of attributes: a JSON object of texts; BenchError where it is none."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, str | int | float | bool) for one in found.values()):
        raise BenchError('attributes: write a JSON object of texts, such as {"colour": "red"}')
    for name in ("id", "label", "category"):
        if name in found:  # a filter by this name asks for the field
            raise BenchError(f"attributes: {name} is a field of its own; send it as the field {name}")
    return {str(name): str(value) for name, value in found.items()}


def _for_each(values: Sequence[str], count: int, what: str) -> tuple[str, ...]:
    """One value for each of `count` pictures; a single one, or none, is for all."""
    if len(values) in (0, 1):
        return (values[0] if values else "",) * count
    if len(values) != count:
        raise BenchError(f"{len(values)} of {what} for {count} pictures; give one for all, or one for each")
    return tuple(values)


def _refuse_long(texts: Sequence[str]) -> None:
    for text in texts:
        if len(text) > MOST_TEXT:
            raise BenchError(f"{text[:40]!r}... has {len(text)} characters; at most {MOST_TEXT} are kept")
        if not text.isprintable():
            raise BenchError(f"{text[:40]!r} holds a character that cannot be printed")
