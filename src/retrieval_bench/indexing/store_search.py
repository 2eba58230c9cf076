"""The search over rows in a vector store: it finds candidates, and our own engine compares their vectors.

So distances are those of a run, to the last bit, and at equal ones the item that came first is first. Where the store
compares all rows, the ranking is that of a run, too: so many candidates are asked for that what the store rounds does
not matter.
"""

from __future__ import annotations

import threading

import numpy as np

from retrieval_bench.core import Distance, Ranking
from retrieval_bench.indexing.finding import places_of
from retrieval_bench.indexing.store_rows import ZERO, StoredRows
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.search.stores.store import check_vectors, largest_norm

SPARE = 16
"""Candidates beside those that are asked for."""
MOST_ASKED = 1024
"""Candidates, at most, where a filter hides others; where fewer are let through, all of these are compared here."""
KEPT_BYTES = 256 << 20
"""Of vectors that were read for one filter, and are kept for the next search with it."""
_ROUNDED = 2e-5
"""By which a store's float32 distances may be off, in parts of the numbers that they are made of."""


class StoreSearch:
    """Search over the rows of one state of an index.

    Args:
        stored: the rows.
    """

    def __init__(self, stored: StoredRows) -> None:
        self._stored, self._table = stored, stored.table
        self._distance: Distance = stored.table.distance
        self._exact = stored.table.exact
        self._zeros: np.ndarray | None = None
        self._selection: tuple[np.ndarray, np.ndarray, ExactIndex] | None = None
        self._lock = threading.Lock()

    @property
    def rows(self) -> np.ndarray:
        """(n, d): all of them, read now."""
        return self._stored[:]

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> Ranking:
        """As `GrowingSearch.search`."""
        n, left = len(allowed), int(np.count_nonzero(allowed))
        values = check_vectors("queries", queries, self._distance, self._table.facts.width)
        found = Ranking(np.full((len(values), k), -1, np.int64), np.full((len(values), k), np.inf, np.float32))
        zero = np.zeros(len(values), bool) if self._distance != "cosine" else np.logical_not(values.any(axis=1))
        for row in np.flatnonzero(zero).tolist():
            self._at_one(found, row, k, allowed, exclude)
        waiting = np.flatnonzero(~zero)
        asked = k + SPARE + (0 if exclude is None else exclude.shape[1])
        most = max(MOST_ASKED, 2 * asked)
        asked = -(-asked * n // left)
        while len(waiting) and asked <= most:
            waiting = self._by_candidates(queries, values, waiting, asked, k, allowed, exclude, found)
            asked *= 4
        if len(waiting):
            rest = self._among(queries[waiting], k, allowed, None if exclude is None else exclude[waiting])
            found.indices[waiting], found.distances[waiting] = rest.indices, rest.distances
        return found

    @staticmethod
    def _at_one(found: Ranking, row: int, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> None:
        """A query without a direction is at a cosine distance of 1 from all: the first ones are nearest."""
        places = np.flatnonzero(allowed)
        if exclude is not None:
            places = places[~np.isin(places, exclude[row])]
        places = places[:k]
        found.indices[row, : len(places)], found.distances[row, : len(places)] = places, 1

    def _by_candidates(
        self,
        queries: np.ndarray,
        values: np.ndarray,
        waiting: np.ndarray,
        asked: int,
        k: int,
        allowed: np.ndarray,
        exclude: np.ndarray | None,
        found: Ranking,
    ) -> np.ndarray:
        """Answer the waiting queries from so many candidates each -> those for which they do not suffice."""
        near = self._table.ask(lambda store: store.search(values[waiting], asked))
        ids = np.unique(near.ids[near.ids >= 0])
        numbers, rows = self._table.vectors(ids)
        places = places_of(self._stored.numbers, numbers)
        usable = (places >= 0) & np.append(allowed, False)[places]
        numbers, rows, places = numbers[usable], rows[usable], places[usable]
        again = []
        for at, query in enumerate(waiting.tolist()):
            hidden = np.empty(0, np.int64) if exclude is None else exclude[query]
            hidden = np.unique(hidden[(hidden >= 0) & np.append(allowed, False)[hidden]])
            own = np.flatnonzero(np.isin(numbers, near.ids[at]) & ~np.isin(places, hidden))
            there, vectors = places[own], rows[own]
            wanted = min(k, int(np.count_nonzero(allowed)) - len(hidden))
            ranking = self._compared(queries[query], there, vectors, k)
            if self._distance == "cosine" and (len(there) < wanted or ranking.distances[0, wanted - 1] >= 1 - _ROUNDED):
                zeros = np.setdiff1d(self._zero_places(), np.concatenate([hidden, there]))
                zeros = zeros[allowed[zeros]]
                there = np.concatenate([there, zeros])
                vectors = np.concatenate([vectors, np.zeros((len(zeros), rows.shape[1]), rows.dtype)])
                ranking = self._compared(queries[query], there, vectors, k)
            gave = near.distances[at][near.ids[at] >= 0]
            last = float(ranking.distances[0, wanted - 1]) if wanted else -np.inf
            all_seen = self._exact and len(gave) < asked
            beyond = not self._exact or (len(gave) > 0 and gave[-1] > last + self._room(values[query], vectors, last))
            if all_seen or (len(there) >= wanted and beyond):
                found.indices[query], found.distances[query] = ranking.indices[0], ranking.distances[0]
            else:
                again.append(query)
        return np.array(again, np.int64)

    def _compared(self, query: np.ndarray, places: np.ndarray, vectors: np.ndarray, k: int) -> Ranking:
        """The candidates in order: by the twin of our own engine, to which a few rows are no work."""
        if not len(places):
            return Ranking(np.full((1, k), -1, np.int64), np.full((1, k), np.inf, np.float32))
        order = np.argsort(places)
        ranking = NumpyIndex(vectors[order], self._distance)(query[None], k)
        return Ranking(np.where(ranking.indices >= 0, places[order][ranking.indices], -1), ranking.distances)

    def _room(self, query: np.ndarray, vectors: np.ndarray, last: float) -> float:
        """By how much the store may have rounded the distance of a row that it did not give."""
        if self._distance == "hamming":
            return 0.0
        if self._distance == "inner_product":
            return _ROUNDED * largest_norm(query[None]) * largest_norm(vectors)
        return _ROUNDED * (1.0 if self._distance == "cosine" else abs(last))

    def _zero_places(self) -> np.ndarray:
        """The rows without a direction."""
        if self._zeros is None:
            numbers = self._table.ask(lambda store: store.ids({ZERO: (1, 1)}))
            places = places_of(self._stored.numbers, numbers)
            self._zeros = places[places >= 0]
        return self._zeros

    def _among(self, queries: np.ndarray, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> Ranking:
        """Of the allowed rows, which are all read and compared here."""
        with self._lock:
            known = self._selection
        if known is None or not np.array_equal(known[0], allowed):
            numbers, rows = self._table.vectors(self._stored.numbers[allowed])
            places = places_of(self._stored.numbers, numbers)  # what others have compacted meanwhile is gone
            known = allowed.copy(), places, ExactIndex(rows, self._distance)
            if rows.nbytes <= KEPT_BYTES:
                with self._lock:
                    self._selection = known
        _, places, index = known
        found = index.search(queries, k, None if exclude is None else places_of(places, exclude))
        if not len(places):
            return found
        return Ranking(np.where(found.indices >= 0, places[found.indices], -1), found.distances)
