"""The search over the rows of an index: exact, with rows that were added since, and without those that were removed.

Whatever way it takes, the result is that of one exact search over the rows that may be found: by float64 distance, and
at equal distances by row.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from retrieval_bench.core import Bundle, Distance, Ranking, Rows, Searcher
from retrieval_bench.search.index import ExactIndex, topk

LEAST_TAIL = 4096
"""Rows that are searched beside the others, at least, before all are packed anew."""
TAIL_SHARE = 10
"""Of so many rows that are packed, one may have been added since."""
FEW_HIDDEN = 32
"""So many rows are named to the search one by one."""
FEW_LEFT = 4096
"""So few rows are packed for themselves, whatever share of all they are."""
KEPT_SELECTIONS = 4
KEPT_BYTES = 256 << 20
"""Of a selection that is kept packed for the next search."""


class GrowingSearch:
    """Exact search over (n, d) rows to which others are added: most of them packed once, the last ones beside these.

    Args:
        rows: of which the first are those of `before`, bit for bit.
        distance: how they are compared.
        before: the same over fewer rows; what it has packed is used on.
    """

    def __init__(self, rows: np.ndarray, distance: Distance, before: GrowingSearch | None = None) -> None:
        self.rows, self.distance = rows, distance
        self.main: ExactIndex
        self.packed: int
        n = len(rows)
        if before is not None and before.packed <= n <= before.packed + max(LEAST_TAIL, before.packed // TAIL_SHARE):
            self.main, self.packed = before.main, before.packed
            same = before.tail is not None and len(before.rows) == n
            tail = before.tail if same else None
        else:
            self.main, self.packed, tail = ExactIndex(rows, distance), n, None
        if tail is None and self.packed < n:
            tail = ExactIndex(rows[self.packed :], distance)
        self.tail: ExactIndex | None = tail
        self._selections: OrderedDict[bytes, tuple[np.ndarray, ExactIndex]] = OrderedDict()
        self._lock = threading.Lock()

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> Ranking:
        """The k nearest of the rows that are allowed.

        Args:
            queries: (q, d).
            k: at least 1.
            allowed: (n,) bool.
            exclude: (q, m) rows that query i must not find, -1 for none; or None.

        Returns:
            Rows and distances, padded with -1 and inf where fewer can be found.
        """
        n, left = len(self.rows), int(np.count_nonzero(allowed))
        hidden = n - left
        if not hidden:
            return self._nearest(queries, k, exclude)
        if hidden <= FEW_HIDDEN:
            lost = np.broadcast_to(np.flatnonzero(~allowed), (len(queries), hidden))
            return self._nearest(queries, k, lost if exclude is None else np.concatenate([exclude, lost], axis=1))
        if left > max(FEW_LEFT, n // 4):
            asked = k + k * hidden // left + 16
            while asked <= max(1024, left // 8):
                found = dropped(self._nearest(queries, asked, exclude), allowed, k)
                if (found.indices >= 0).all():
                    return found
                asked *= 4
        return self._among(queries, k, allowed, exclude)

    def _nearest(self, queries: np.ndarray, k: int, exclude: np.ndarray | None) -> Ranking:
        """Of all rows."""
        if self.tail is None:
            return self.main.search(queries, k, exclude)
        one = self.main.search(queries, k, _inside(exclude, 0, self.packed))
        other = self.tail.search(queries, k, _inside(exclude, self.packed, len(self.rows)))
        return self._merged(queries, k, one, other)

    def _merged(self, queries: np.ndarray, k: int, one: Ranking, other: Ranking) -> Ranking:
        """The k nearest of both, which are rounded to float32: what that makes equal is compared in float64 again."""
        behind = np.where(other.indices >= 0, other.indices + self.packed, -1)
        indices = np.concatenate([one.indices, behind], axis=1)
        distances = np.concatenate([one.distances, other.distances], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]  # of equal ones, those packed first, in their order
        found = Ranking(*(np.take_along_axis(array, order, axis=1) for array in (indices, distances)))
        if self.distance == "hamming":  # whole numbers, which float32 holds
            return found
        for query, (near, far, farthest) in enumerate(
            zip(one.distances, other.distances, found.distances[:, -1], strict=True)
        ):
            both = np.intersect1d(near, far)
            if not (np.isfinite(both) & (both <= farthest)).any():
                continue
            candidates = np.sort(indices[query][indices[query] >= 0])
            again = topk(queries[query : query + 1], self.rows[candidates], k, self.distance)
            found.indices[query] = np.where(again.indices[0] >= 0, candidates[again.indices[0]], -1)
            found.distances[query] = again.distances[0]
        return found

    def _among(self, queries: np.ndarray, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> Ranking:
        """Of the allowed rows alone, packed for themselves."""
        key = hashlib.blake2b(np.packbits(allowed).tobytes(), digest_size=16).digest()
        with self._lock:
            known = self._selections.get(key)
            if known is not None:
                self._selections.move_to_end(key)
        if known is None:
            chosen = np.flatnonzero(allowed)
            known = chosen, ExactIndex(self.rows[chosen], self.distance)
            if known[1].bytes <= KEPT_BYTES:
                with self._lock:
                    self._selections[key] = known
                    while len(self._selections) > KEPT_SELECTIONS:
                        self._selections.popitem(last=False)
        chosen, index = known
        if exclude is not None:
            exclude = places_of(chosen, exclude)
        found = index.search(queries, k, exclude)
        if not len(chosen):
            return found
        return Ranking(np.where(found.indices >= 0, chosen[found.indices], -1), found.distances)


class WholeSearch:
    """A search that knows all rows at once, such as one by joined ranks or with re-ranking.

    Args:
        searcher: over the rows that may be found.
        chosen: (m,) int64, which rows of the index these are, ascending.
    """

    def __init__(self, searcher: Searcher, chosen: np.ndarray) -> None:
        self._searcher, self._chosen = searcher, chosen

    def search(self, queries: Rows, k: int, allowed: np.ndarray, exclude: np.ndarray | None) -> Ranking:
        """As `GrowingSearch.search`; allowed: no row that is not among those of this search."""
        n = len(self._chosen)
        if not n:
            return Ranking(np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32))
        if exclude is not None:
            exclude = places_of(self._chosen, exclude)
        wanted = allowed[self._chosen]
        left = int(np.count_nonzero(wanted))
        asked = k if left == n else min(n, k + k * (n - left) // max(left, 1) + 16)
        while True:
            found = self._in_parts(queries, asked, exclude)
            if left < n:
                found = dropped(found, wanted, k)
            if asked >= n or (found.indices[:, :k] >= 0).all():
                break
            asked = min(n, 4 * asked)
        indices = found.indices[:, :k]
        return Ranking(np.where(indices >= 0, self._chosen[indices], -1), found.distances[:, :k])

    def _in_parts(self, queries: Rows, k: int, exclude: np.ndarray | None) -> Ranking:
        at_once = getattr(self._searcher, "queries_at_once", len(queries))
        found = [
            self._searcher(
                queries[start : start + at_once], k, None if exclude is None else exclude[start : start + at_once]
            )
            for start in range(0, len(queries), at_once)
        ]
        return Ranking(*(np.concatenate([getattr(one, name) for one in found]) for name in ("indices", "distances")))


def dropped(found: Ranking, allowed: np.ndarray, k: int) -> Ranking:
    """The first k of each ranking that are allowed, padded; allowed: (n,) bool."""
    kept = (found.indices >= 0) & np.append(allowed, False)[found.indices]
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(kept, order, axis=1)
    indices = np.where(kept, np.take_along_axis(found.indices, order, axis=1), -1)
    distances = np.where(kept, np.take_along_axis(found.distances, order, axis=1), np.float32(np.inf))
    lacking = k - indices.shape[1]
    if lacking > 0:
        indices = np.pad(indices, ((0, 0), (0, lacking)), constant_values=-1)
        distances = np.pad(distances, ((0, 0), (0, lacking)), constant_values=np.inf)
    return Ranking(indices, distances)


def places_of(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each wanted number stands among the known, which ascend; -1 where it does not."""
    if not len(known):
        return np.full(np.shape(wanted), -1, np.int64)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[places] == wanted, places, -1).astype(np.int64)


def _inside(exclude: np.ndarray | None, first: int, last: int) -> np.ndarray | None:
    """Rows from `first` up to `last`, counted from there; -1 for others."""
    if exclude is None:
        return None
    return np.where((exclude >= first) & (exclude < last), exclude - first, -1)


def grown(
    before: np.ndarray | None, rows: int, made: Callable[[slice], Rows], name: str, at_once: int = 65_536
) -> np.ndarray:
    """(rows, d): what `made` gives of each row, some at a time; those of `before` are not made again."""
    parts = [] if before is None else [before]
    for start in range(0 if before is None else len(before), rows, at_once):
        some = made(slice(start, min(start + at_once, rows)))
        parts.append(some.arrays[name] if isinstance(some, Bundle) else some)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
