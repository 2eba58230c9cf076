"""Rows that lie in a vector store, read when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.indexing.description import ArrayFacts
from retrieval_bench.search.stores.lance import LanceStore
from retrieval_bench.search.stores.pgvector import PgvectorStore

IndexStore = PgvectorStore | LanceStore
ZERO = "zero"
"""The attribute of rows without a direction, which no store compares by cosine."""
_AT_ONCE = 2_000
"""Rows that are read together where they are looked at one by one."""
_Answer = TypeVar("_Answer")


class StoreTable:
    """The table of one method, opened when it is needed, and again where its connection was lost.

    Args:
        open_: opens it.
        facts: of its vectors.
        distance: by which they are compared.
        name: of the store and the table, for sentences.
        exact: the store compares all rows.
        new: it is made, so that there is none to be opened again.
    """

    def __init__(
        self,
        open_: Callable[[], IndexStore],
        facts: ArrayFacts,
        distance: Distance,
        name: str,
        *,
        exact: bool,
        new: bool = False,
    ) -> None:
        self._open, self.facts, self.distance, self.name, self.exact = open_, facts, distance, name, exact
        self._new = new
        self._store: IndexStore | None = None
        self._lock = threading.RLock()

    def opened(self) -> IndexStore:
        """The store, open."""
        with self._lock:
            if self._store is None:
                self._store = self._open()
            return self._store

    def ask(self, question: Callable[[IndexStore], _Answer]) -> _Answer:
        """An answer that changes nothing; repeated where a server has restarted, or files were rewritten."""
        store = self.opened()
        try:
            return question(store)
        except BenchError:
            if isinstance(store, LanceStore):
                store.refresh()
            elif store.lost and not self._new:
                self.close()
            else:
                raise
        return question(self.opened())

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
                self._store = None

    def vectors(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those of these items that are there, ascending, and their vectors as they are kept."""
        found, rows = self.ask(lambda store: store.vectors(numbers))
        return found, rows.astype(self.facts.kept, copy=False)


class StoredRows:
    """(n, d): the rows of the items of one state.

    Args:
        table: where they lie.
        numbers: (n,) int64, of the items, ascending.
    """

    def __init__(self, table: StoreTable, numbers: np.ndarray) -> None:
        self.table, self.numbers = table, numbers
        self.dtype = np.dtype(table.facts.kept)
        self.nbytes = len(numbers) * table.facts.row_bytes
        self._block: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, places: np.ndarray | slice) -> np.ndarray:
        """Rows by their places. BenchError where one is missing."""
        wanted = self.numbers[places]
        found, rows = self.table.vectors(wanted)
        at = np.minimum(np.searchsorted(found, wanted), max(len(found) - 1, 0))
        if len(wanted) and (not len(found) or (found[at] != wanted).any()):
            raise missing(self.table.name)
        return rows[at]

    def known(self, place: int) -> np.ndarray | None:
        """The row at a place, for who walks through all of them; None where it is missing."""
        first = place - place % _AT_ONCE
        if self._block is None or self._block[0] != first:
            self._block = first, *self.table.vectors(self.numbers[first : first + _AT_ONCE])
        _, found, rows = self._block
        at = int(np.searchsorted(found, self.numbers[place]))
        return rows[at] if at < len(found) and found[at] == self.numbers[place] else None


def missing(name: str) -> BenchError:
    """What is said where the store has lost rows of items."""
    return BenchError(f"{name}: vectors of items are missing there; `index verify` names them: build the index again")
