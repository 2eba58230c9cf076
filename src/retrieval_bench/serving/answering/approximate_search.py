"""Exact against approximate: an approximate index of each column beside the exact search, and where they differ.

It is built in a thread of its own, over the items that are there, and built again after they have changed; until it is
ready, nothing is compared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Rows, Searcher
from retrieval_bench.experiment.approximation import let_go, vectors
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.indexing.snapshot import Snapshot
from retrieval_bench.registry import Spec
from retrieval_bench.serving.client.answers import Question

log = logging.getLogger("retrieval_bench")


@dataclass(frozen=True)
class FoundApproximately:
    """What an approximate index found for one query. numbers: of items, nearest first. ms: of its search. waiting: why
    there is nothing to compare yet, or at all; "" where there is."""

    backend: str
    numbers: tuple[int, ...] = ()
    ms: float = 0.0
    waiting: str = ""


@dataclass(frozen=True, eq=False)
class _Built:
    """The index of a column at one state of it. search None: it cannot be built, as `reason` says."""

    state: tuple[int, int]
    numbers: np.ndarray
    search: Searcher | None
    reason: str = ""


class ApproximateColumns:
    """The approximate indexes of all columns. Safe to use from several threads.

    Args:
        backend: what builds them.
    """

    def __init__(self, backend: Spec) -> None:
        self.backend = backend
        self._built: dict[str, _Built] = {}
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def compare(
        self, key: str, method: IndexedMethod, snapshot: Snapshot, rows: Rows | None, question: Question
    ) -> FoundApproximately | None:
        """What the index of a column finds for a query.

        Args:
            key: of the column.
            method: of the column.
            snapshot: what the exact search searched in.
            rows: of the query, one.
            question: how it was asked; filters and examples are the exact search's alone.

        Returns:
            What was found; None where this query is not one that an index answers by itself.
        """
        name = str(self.backend)
        asked_otherwise = question.filters or question.exclude or question.more or question.less
        if rows is None or asked_otherwise:
            return None
        state = snapshot.state.generation, snapshot.state.version
        with self._lock:
            built = self._built.get(key)
            if built is None or built.state != state:
                if key not in self._under_way:
                    self._under_way.add(key)
                    threading.Thread(target=self._build, args=(key, method, snapshot), daemon=True).start()
                return FoundApproximately(name, waiting="its index is being built")
        if built.search is None:
            return FoundApproximately(name, waiting=built.reason)
        began = time.perf_counter()
        found = built.search(vectors(rows), min(question.k, len(built.numbers)))
        spent = (time.perf_counter() - began) * 1e3
        places = found.indices[0][found.indices[0] >= 0]
        return FoundApproximately(name, tuple(built.numbers[places].tolist()), spent)

    def close(self) -> None:
        """End what stands behind the indexes, such as a server."""
        with self._lock:
            for built in self._built.values():
                if built.search is not None:
                    let_go(built.search)
            self._built.clear()

    def _build(self, key: str, method: IndexedMethod, snapshot: Snapshot) -> None:
        state = snapshot.state.generation, snapshot.state.version
        try:
            compared = snapshot.compared_rows(method.name)
            if compared is None:
                reason = "the method keeps no single vector of an item"
                built = _Built(state, np.empty(0, np.int64), None, reason)
            else:
                numbers, rows = compared
                built = _Built(state, numbers, self.backend.build(rows, method.distance))
        except BenchError as error:
            built = _Built(state, np.empty(0, np.int64), None, str(error))
        except Exception as error:  # of a library: the search goes on without it
            log.warning("%s: no index of %s: %s", key, self.backend, error)
            built = _Built(state, np.empty(0, np.int64), None, f"{self.backend.entry.name} failed: {error}")
        with self._lock:
            before = self._built.get(key)
            self._built[key] = built
            self._under_way.discard(key)
        if before is not None and before.search is not None:
            let_go(before.search)


def in_words(found: FoundApproximately, exact: Sequence[int], exact_ms: float, shown: int) -> str:
    """One sentence: how much of what the exact search shows was found, and at what time.

    Args:
        found: what the index found.
        exact: numbers of what exact search found, nearest first.
        exact_ms: of its search.
        shown: how many of these are shown.
    """
    if found.waiting:
        return f"{found.backend}: {found.waiting}"
    nearest = exact[:shown]
    missed = [place for place, number in enumerate(nearest, 1) if number not in found.numbers]
    if not missed:
        told = f"finds all {len(nearest)}" if len(nearest) > 1 else "finds it"
    else:
        told = f"finds {len(nearest) - len(missed)} of these {len(nearest)}; it misses {_places(missed)}"
    return f"{found.backend} {told}, in {found.ms:.2f} ms (exact: {exact_ms:.2f} ms)"


def _places(missed: Sequence[int], most: int = 8) -> str:
    told = ", ".join(f"no. {place}" for place in missed[:most])
    return told if len(missed) <= most else f"{told} and {len(missed) - most} more"
