"""One moment of an index: what it holds then, and the search among it. Nothing in it changes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np

from retrieval_bench.core import BenchError, Ranking, Rows, printable
from retrieval_bench.experiment.extraction import described_texts
from retrieval_bench.indexing.description import features_path
from retrieval_bench.indexing.feature_place import Array
from retrieval_bench.indexing.finding import GrowingSearch, WholeSearch, grown, places_of
from retrieval_bench.indexing.items import TEXT_OF_VALUE, Item, ItemsState, ItemTable
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.indexing.part_rows import counts_words
from retrieval_bench.indexing.store_rows import StoredRows, missing
from retrieval_bench.indexing.store_search import StoreSearch
from retrieval_bench.methods.fusion import VECTOR, Scores
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.registry import unknown

MOST_VALUES = 50
"""Attributes with more values than this are no facets."""

Search = GrowingSearch | WholeSearch | StoreSearch


class Searches:
    """The search of each method, kept for the next snapshot, which mostly holds the same rows and a few more."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int, Search]] = {}
        self._locks: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, method: IndexedMethod, snapshot: Snapshot) -> Search:
        """The search of a method at the moment of a snapshot."""
        with self._lock:
            lock = self._locks.setdefault(method.number, threading.Lock())
        with lock:
            state = snapshot.state
            generation, version, before = self._known.get(method.number, (-1, -1, None))
            if generation == state.generation and version == state.version and before is not None:
                return before
            grows = before if generation == state.generation and isinstance(before, GrowingSearch) else None
            search = _search(method, snapshot, grows)
            if (state.generation, state.version) >= (generation, version):
                self._known[method.number] = state.generation, state.version, search
            return search


class Snapshot:
    """What an index holds at one moment. Safe to use from several threads.

    Attributes:
        version: the number of the last operation.
        numbers: (n,) int64, of the items that are there, ascending.
    """

    def __init__(
        self,
        items: ItemTable,
        state: ItemsState,
        methods: Sequence[IndexedMethod],
        arrays: Sequence[Sequence[Array]],
        searches: Searches,
    ) -> None:
        self._items, self.state, self._searches = items, state, searches
        self._methods = {name: method for method in methods for name in (method.text, method.name)}
        self._arrays = arrays
        self._own: dict[int, Search] = {}
        self.version = state.version

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def numbers(self) -> np.ndarray:
        """(n,) int64, of the items that are there, ascending."""
        state = self.state
        return state.numbers if state.live.all() else state.numbers[state.live]

    def item(self, number: int) -> Item:
        """What is known of an item. BenchError where the index has forgotten it, since it was removed and compacted."""
        found = self._items.item(int(number))
        if found is None:
            raise BenchError(f"the index has no item of number {number} any more")
        return found

    def items(self, numbers: Sequence[int] | np.ndarray) -> list[Item]:
        """What is known of these items, in this order; those that the index has forgotten are left out."""
        return self._items.items([int(number) for number in numbers])

    def texts(self) -> list[str]:
        """The text of each item that is there, by number; "" where it has none."""
        return self._items.texts(self.numbers.tolist())

    def by_id(self, name: str) -> Item | None:
        """The item of this id; None where there is none at this moment."""
        found = [number for number in self._items.numbers_of(name) if self._holds(number)]
        return self._items.item(found[0]) if found else None

    def by_digest(self, digest: str) -> list[Item]:
        """The items whose pictures came from a file of this sha256; every row of the table is looked at."""
        found = self._items.numbers_where("digest = ?", [digest])
        return self.items(np.intersect1d(found, self.numbers, assume_unique=True))

    def features(self, method: str) -> list[Array]:
        """What the index keeps of each row, array by array; `state` says which rows are there."""
        return list(self._arrays[self._method(method).number])

    def described(self, method: IndexedMethod, places: np.ndarray) -> list[np.ndarray]:
        """What each part of a method made of items; words are made of their texts again.

        Args:
            method: of the index.
            places: (m,) rows of the files.

        Returns:
            An array for each part, in which numbers are as they are kept.
        """
        found = []
        texts: list[str] | None = None
        for part, array in zip(method.pipeline.parts, self.features(method.text), strict=True):
            if counts_words(part):
                texts = self._items.texts(self.state.numbers[places].tolist()) if texts is None else texts
                found.append(described_texts(part.extractor, texts))
            else:
                found.append(array[places])
        return found

    def search(
        self,
        method: str,
        queries: Rows,
        k: int,
        *,
        among: np.ndarray | None = None,
        exclude: np.ndarray | None = None,
    ) -> Ranking:
        """Find the k nearest items of each query: those of a run over the items that are there, in their order.

        Args:
            method: one of the index, by its text or its name.
            queries: what `IndexedMethod.describe` gives, a row for each query.
            k: how many to find, at least 1.
            among: numbers of the items that may be found, ascending; always k where there are so many. None: all.
            exclude: (q,) or (q, m) numbers of items that query i must not find; -1 stands for none.

        Returns:
            (q, k) numbers of items, nearest first, and their distances; padded with -1 and inf where there are fewer.

        Raises:
            BenchError: No method is called so, k is below 1, or the features are damaged.
        """
        chosen = self._method(method)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise BenchError(f"k is {k!r}; it must be a whole number, at least 1")
        state = self.state
        allowed = state.live
        if among is not None:
            allowed = np.zeros(state.rows, bool)
            places = places_of(state.numbers, np.asarray(among, np.int64))
            allowed[places[places >= 0]] = True
            allowed &= state.live
        hidden = None
        if exclude is not None:
            hidden = places_of(state.numbers, np.asarray(exclude, np.int64).reshape(len(queries), -1))
        if not allowed.any():
            shape = len(queries), int(k)
            return Ranking(np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32))
        search = self._own.get(chosen.number)
        if search is None:
            search = self._own[chosen.number] = self._searches.of(chosen, self)
        if not isinstance(search, WholeSearch) and not isinstance(queries, np.ndarray):
            queries = queries.arrays[VECTOR]
        found = search.search(queries, int(k), allowed, hidden)  # type: ignore[arg-type]
        return Ranking(np.where(found.indices >= 0, state.numbers[found.indices], -1), found.distances)

    def compared_rows(self, method: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The items that are there, and the one vector or code by which each is compared.

        Args:
            method: one of the index, by its text or its name.

        Returns:
            (n,) int64 numbers, ascending, and (n, d) rows; None of a method that keeps no single vector.
        """
        search = self._searches.of(self._method(method), self)
        if isinstance(search, WholeSearch):
            return None
        live = self.state.live
        rows = search.rows
        return self.numbers, rows if live.all() else rows[live]

    def where(
        self,
        *,
        labels: Collection[str] = (),
        categories: Collection[str] = (),
        attributes: Mapping[str, Collection[str]] | None = None,
        text_in_id: str = "",
        not_labels: Collection[str] = (),
        not_categories: Collection[str] = (),
    ) -> np.ndarray:
        """The numbers of all items for which each of these holds, for `among` of `search`.

        Args:
            labels: one of these is a label of the item. Empty: any may be, or none.
            categories: the same of its categories.
            attributes: attribute -> its value is one of these, written as in `facets`.
            text_in_id: is a part of its id, in upper or lower case.
            not_labels: none of these is a label of it.
            not_categories: none of these is a category of it.

        Returns:
            (m,) int64, ascending.
        """
        conditions, values = [], []
        for column, place, wanted, negated in (
            ("label", 0, labels, False),
            ("category", 1, categories, False),
            ("label", 0, not_labels, True),
            ("category", 1, not_categories, True),
        ):
            if wanted:
                one = (
                    f"(coalesce({column} IN (SELECT value FROM json_each(?)), 0) OR (others <> '' AND EXISTS (SELECT 1 "
                    f"FROM json_each(others, '$[{place}]') WHERE value IN (SELECT value FROM json_each(?)))))"
                )
                conditions.append(f"NOT {one}" if negated else one)
                values += [json.dumps(list(wanted))] * 2
        for name, allowed in (attributes or {}).items():
            conditions.append(
                f"EXISTS (SELECT 1 FROM json_each(attributes) WHERE key = ? AND {TEXT_OF_VALUE} IN "
                "(SELECT value FROM json_each(?)))"
            )
            values += [name, json.dumps(list(allowed))]
        if text_in_id:
            conditions.append("instr(lower(id), lower(?)) > 0")
            values.append(text_in_id)
        if not conditions:
            return self.numbers
        found = self._items.numbers_where(" AND ".join(conditions), values)
        return np.intersect1d(found, self.numbers, assume_unique=True)

    def attribute_names(self) -> frozenset[str]:
        """The names of the attributes that any item was ever given, removed or not."""
        return self._items.attribute_names()

    def facets(self) -> Mapping[str, Mapping[str, int]]:
        """How many items have each category, and each value of every attribute that has few.

        Returns:
            "category" and the names of attributes -> value -> items, the most frequent first.
        """
        return self._facets

    @cached_property
    def _facets(self) -> Mapping[str, Mapping[str, int]]:
        there = np.zeros(int(self.numbers[-1]) + 1 if len(self) else 0, bool)
        there[self.numbers] = True
        counts: dict[str, Counter[str]] = {}
        many: set[str] = set()
        for number, name, value in self._items.attribute_values():
            if number < len(there) and there[number] and name not in many:
                counts.setdefault(name, Counter())[value] += 1
                if len(counts[name]) > MOST_VALUES and name != "category":
                    many.add(name)
                    del counts[name]
        return {name: dict(values.most_common()) for name, values in counts.items()}

    def newest(self) -> bool:
        """Whether no item was forgotten since."""
        return self._items.generation() == self.state.generation

    def _holds(self, number: int) -> bool:
        return bool(len(self.numbers)) and bool((places_of(self.numbers, np.array([number])) >= 0)[0])

    def _method(self, name: str) -> IndexedMethod:
        if name not in self._methods:
            raise BenchError(unknown("method of the index", name, self._methods))
        return self._methods[name]


def _search(method: IndexedMethod, snapshot: Snapshot, before: GrowingSearch | None) -> Search:
    facts, state = method.facts, snapshot.state
    arrays = snapshot.features(method.text)
    if isinstance(arrays[0], StoredRows):
        stored = arrays[0]
        ends = int(stored.numbers[0]), int(stored.numbers[-1])
        if stored.table.ask(lambda store: store.count({"id": ends})) < len(stored) and snapshot.newest():
            raise missing(stored.table.name)
        return StoreSearch(stored)
    if len(facts.arrays) == 1 and not facts.whole:
        try:
            return GrowingSearch(arrays[0], facts.distance, before)
        except BenchError as error:
            file = method.folder / features_path(state.generation, method.number, 0)
            raise BenchError(f"{printable(file)} is damaged ({error}); `index verify` looks at all of it") from None
    pipeline = method.pipeline
    if _row_by_row(pipeline):
        known = None if before is None or len(before.rows) > state.rows else before.rows
        vectors = grown(known, state.rows, lambda some: pipeline.rows([array[some] for array in arrays]), VECTOR)
        return GrowingSearch(vectors, method.distance, before)
    chosen = np.flatnonzero(state.live)
    gallery = pipeline.rows(snapshot.described(method, chosen))
    return WholeSearch(pipeline.searcher(gallery), chosen)


def _row_by_row(pipeline: Pipeline) -> bool:
    """Whether the vector of an item does not depend, to the last bit, on which others are joined with it.

    That of +concat and +early does: how a product of matrices is rounded depends on their sizes.
    """
    return isinstance(pipeline.join, Scores) and pipeline.join.one_vector_ and not pipeline.steps
