"""From rankings to judgements: everything here can be recomputed from saved rankings and labels.

A gallery item is relevant to a query if it has the query's label. Where images have several labels, labels are (q, m)
and (n, m), the first one first, padded with -1, and relevant is what shares one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Judged, Ranking, Rows, Searcher
from retrieval_bench.records.ranking_faults import fault_of_ranking

FULL_LIMIT = 50_000  # a larger gallery is not ranked whole: that costs a sort of it for every query
_BLOCK_BYTES = 64 << 20  # what the ranking of the whole gallery by one block of queries may occupy
_MOST_AT_ONCE = 16_384
"""Queries that are searched for together: a search takes some 200 bytes for each of their ranks, meanwhile."""


@dataclass(frozen=True, eq=False)
class Relevant:
    """Where everything relevant to each query stands in the ranking of the whole gallery.

    All three are (q, max n_relevant) int64, ascending by rank along a row, padded with -1 behind.
    ranks: of the relevant items, from 0.
    tie_starts: the rank at which the items begin that lie at exactly this item's distance (equal
        float32; the float64 distances that rank may differ).
    tie_sizes: how many items these are, itself and the irrelevant counted, excluded rows not; 1 where none is equal.
    """

    ranks: np.ndarray
    tie_starts: np.ndarray
    tie_sizes: np.ndarray


@dataclass(frozen=True, eq=False)
class Categories:
    """What makes an item half relevant: a category of the query, where no label is shared.

    query: (q,) or (q, m); gallery: (n,) or (n, m). n_partly: (q,) gallery items that share a category and
    no label with each query, from `count_partly`.
    """

    query: np.ndarray
    gallery: np.ndarray
    n_partly: np.ndarray

    def take(self, rows: np.ndarray) -> Categories:
        """Of these queries."""
        return Categories(self.query[rows], self.gallery, self.n_partly[rows])


def judge(
    expected: np.ndarray,
    gallery_labels: np.ndarray,
    ranking: Ranking,
    n_relevant: np.ndarray,
    relevant_ranks: np.ndarray | None = None,
    categories: Categories | None = None,
    truncated: bool = False,
) -> Judged:
    """Look up the labels of what was found.

    expected: (q,) labels of the queries, or (q, m); gallery_labels: (n,) or (n, m); n_relevant: (q,) from
    `count_relevant`, all above 0. An item with several labels stands under the query's first label if it is relevant,
    else under its own first. relevant_ranks: (q, max n_relevant), `ranks` of `rank_gallery`. categories: for grades.
    truncated: rankings may end before the gallery does; what is not in them was not found.
    Raises ValueError where a query has nothing relevant (leave it out and count it), relevant items lack a rank, or the
    ranks are not those of what was found, or rows that the gallery does not have.
    """
    rows = ranking.indices
    if rows.size and not -1 <= rows.min() <= rows.max() < len(gallery_labels):
        raise ValueError(f"indices run from {rows.min()} to {rows.max()} in a gallery of {len(gallery_labels)} items")
    first = _first_labels(gallery_labels)
    padded = np.append(first, -1)  # row -1, which pads, finds label -1
    if relevant_ranks is not None and (relevant_ranks >= len(gallery_labels)).any():
        raise ValueError(f"relevant_ranks holds {relevant_ranks.max()} in a gallery of {len(gallery_labels)} items")
    n_relevant = np.asarray(n_relevant, np.int64)
    retrieved = padded[rows]
    asked = _first_labels(expected)
    if _several(expected, gallery_labels):
        retrieved = np.where(relevant_among(rows, expected, gallery_labels), asked[:, None], retrieved)
    if categories is None:
        return Judged(asked, retrieved, n_relevant, relevant_ranks, truncated=truncated)
    half = relevant_among(rows, categories.query, categories.gallery)
    grades = np.where(retrieved == asked[:, None], 2, half.astype(np.int64))
    return Judged(asked, retrieved, n_relevant, relevant_ranks, grades, categories.n_partly, truncated)


def relevant_among(indices: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """Which of these gallery rows share a label with their query.

    Args:
        indices: (q, k) gallery rows, padded with -1.
        query_labels: (q,), or (q, m) padded with -1.
        gallery_labels: (n,), or (n, m) padded with -1.

    Returns:
        (q, k) bool; padding is never relevant.
    """
    if _several(query_labels, gallery_labels):
        found = np.empty(np.shape(indices), bool)
        block = max(1, _BLOCK_BYTES // max(len(gallery_labels), 1))
        for start in range(0, len(found), block):
            rows = slice(start, start + block)
            marks = _marks(query_labels[rows], gallery_labels)
            marks = np.column_stack([marks, np.zeros(len(marks), bool)])  # row -1, which pads, is the last
            found[rows] = np.take_along_axis(marks, np.asarray(indices[rows], np.int64), axis=1)
        return found
    padded = np.append(_first_labels(gallery_labels), -1)
    return padded[indices] == _first_labels(query_labels)[:, None]


def _several(*labels: np.ndarray) -> bool:
    """Whether any of these has more than one label an image."""
    return any(np.ndim(some) == 2 and np.shape(some)[1] > 1 for some in labels)


def _first_labels(labels: np.ndarray) -> np.ndarray:
    """(n,) or (n, m) -> (n,) int64."""
    labels = np.asarray(labels, np.int64)
    return labels if labels.ndim == 1 else labels[:, 0]


def _marks(query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """(q, n) bool: which gallery items share a label with which query."""
    table = np.asarray(gallery_labels, np.int64).reshape(len(gallery_labels), -1)
    rows, columns = np.nonzero(table >= 0)
    held = table[rows, columns]
    order = np.argsort(held, kind="stable")
    held, rows = held[order], rows[order]
    asked = np.asarray(query_labels, np.int64).reshape(len(query_labels), -1)
    starts, ends = (np.searchsorted(held, asked, side) for side in ("left", "right"))
    marks = np.zeros((len(asked), len(table)), bool)
    for query, label in zip(*np.nonzero(asked >= 0), strict=True):
        marks[query, rows[starts[query, label] : ends[query, label]]] = True
    return marks


def count_relevant(
    query_labels: np.ndarray, gallery_labels: np.ndarray, exclude: np.ndarray | None = None
) -> np.ndarray:
    """(q,) int64: gallery items that share a label with each query, without the rows in `exclude` ((q,) or (q, m), -1
    none)."""
    if _several(query_labels, gallery_labels):
        return _counted(exclude, len(gallery_labels), len(query_labels), [(query_labels, gallery_labels)])
    labels, gallery_labels = _first_labels(query_labels), _first_labels(gallery_labels)
    counts = np.bincount(gallery_labels, minlength=int(labels.max(initial=0)) + 1)[labels].astype(np.int64)
    if exclude is not None:
        rows = np.sort(np.asarray(exclude, np.int64).reshape(len(labels), -1), axis=1)
        repeated = np.zeros(rows.shape, bool)
        repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
        counts -= ((np.asarray(gallery_labels)[rows] == labels[:, None]) & (rows >= 0) & ~repeated).sum(axis=1)
    return counts


def count_partly(
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    query_categories: np.ndarray,
    gallery_categories: np.ndarray,
    exclude: np.ndarray | None = None,
) -> np.ndarray:
    """(q,) int64: gallery items that share a category and no label with each query, without the rows in `exclude`."""
    pairs = [(query_categories, gallery_categories), (query_labels, gallery_labels)]
    return _counted(exclude, len(gallery_labels), len(query_labels), pairs)


def _counted(exclude: np.ndarray | None, n: int, q: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(q,) int64: how many gallery items share what the first pair says, and nothing of the others."""
    counts = np.empty(q, np.int64)
    block = max(1, _BLOCK_BYTES // max(n, 1))
    for start in range(0, q, block):
        rows = slice(start, min(start + block, q))
        marks, *others = (_marks(asked[rows], held) for asked, held in pairs)
        for other in others:
            marks &= ~other
        if exclude is not None:
            marks = np.column_stack([marks, np.zeros(len(marks), bool)])  # row -1, which is none, is the last
            np.put_along_axis(marks, np.asarray(exclude, np.int64)[rows].reshape(len(marks), -1), False, axis=1)
        counts[rows] = marks.sum(axis=1)
    return counts


def ranks_of_relevant(indices: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """(q, max n_relevant) int64: where everything relevant stands, ascending, padded with -1 behind.

    indices: (q, k) gallery rows, nearest first, padded with -1; each row is the ranking of the whole gallery.
    """
    owner, rank = np.nonzero(relevant_among(indices, query_labels, gallery_labels))
    return _side_by_side(owner, rank, len(indices))


def rank_gallery(
    search: Searcher,
    queries: Rows,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    depth: int,
    exclude: np.ndarray | None = None,
    full_limit: int = FULL_LIMIT,
    progress: Callable[[int], None] | None = None,
) -> tuple[Ranking, Relevant | None]:
    """The `depth` nearest of each query, and where everything relevant stands, in one pass over blocks of queries.

    search: holds what is known of the gallery, in the order of `gallery_labels`. Where it has `queries_at_once`, it
        takes its time over each of them, and is asked about no more together, so that progress can be shown.
    exclude: (q,) or (q, m) gallery rows hidden from each query; they take no rank.
    full_limit: a larger gallery is searched to `depth` only, and the second result is None.
    progress: called after each block with the number of queries that are done.
    Returns the ranking, (q, depth), and the ranks of all relevant items with the ties that each of them is part of.
    Raises BenchError where the search answers with what is no ranking: no record may hold that.
    """
    n, q = len(gallery_labels), len(queries)
    whole = n <= full_limit
    k = max(n, depth) if whole else depth
    block = max(1, min(_BLOCK_BYTES // (12 * k), _MOST_AT_ONCE))  # 12: int64 index and float32 distance
    block = min(block, getattr(search, "queries_at_once", block))
    indices = np.empty((q, depth), np.int64)
    distances = np.empty((q, depth), np.float32)
    standings = [np.empty((4, 0), np.int64)]
    for start in range(0, q, block):
        rows = slice(start, min(start + block, q))
        found = search(queries[rows], k, None if exclude is None else exclude[rows])
        _refuse_no_ranking(found, np.arange(rows.start, rows.stop), k, depth, n)
        indices[rows], distances[rows] = found.indices[:, :depth], found.distances[:, :depth]
        if whole:
            relevant = relevant_among(found.indices, np.asarray(query_labels)[rows], gallery_labels)
            owner, *standing = _standings(found, relevant)
            standings.append(np.stack([owner + start, *standing]))
        if progress:
            progress(rows.stop)
    ranking = Ranking(indices, distances)
    if not whole:
        return ranking, None
    owners, *values = np.concatenate(standings, axis=1)
    return ranking, Relevant(*(_side_by_side(owners, value, q) for value in values))


def _refuse_no_ranking(found: Ranking, queries: np.ndarray, k: int, depth: int, gallery: int) -> None:
    """queries: the numbers of those that found it. depth: how much of it is looked at closely."""
    indices, distances = np.asarray(found.indices), np.asarray(found.distances)
    shape = len(queries), k
    if indices.shape != shape or distances.shape != shape:
        raise BenchError(
            f"the search answers {len(queries)} queries for {k} rows each with indices {indices.shape} and distances "
            f"{distances.shape}; pad what it does not find with -1 and inf"
        )
    if wrong := fault_of_ranking(indices[:, :depth], distances[:, :depth], gallery, queries):
        raise BenchError(f"the search answers with what is no ranking: {wrong}")


def _standings(found: Ranking, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Query, rank, start and size of the tie, of each relevant item; relevant: (q, k) bool, never true of padding."""
    width, flat = relevant.shape[1], found.distances.ravel()
    first = np.ones(relevant.size + 1, bool)  # is this place the first at its distance? And one behind the last row
    np.not_equal(flat[1:], flat[:-1], out=first[1:-1])
    first[::width] = True
    if (found.indices[:, -1:] < 0).any():  # padding lies at inf, but is equal to nothing
        first[:-1] |= found.indices.ravel() < 0
    edges, places = np.flatnonzero(first), np.flatnonzero(relevant)
    tie = np.searchsorted(edges, places, side="right") - 1
    owner, rank = np.divmod(places, width)
    return owner, rank, rank - (places - edges[tie]), edges[tie + 1] - edges[tie]


def _side_by_side(owners: np.ndarray, values: np.ndarray, q: int) -> np.ndarray:
    """Values grouped by ascending owner -> one row for each of q owners, padded with -1 behind."""
    counts = np.bincount(owners, minlength=q)
    table = np.full((q, counts.max(initial=0)), -1, np.int64)
    position = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    table[owners, position] = values
    return table
