"""From rankings to judgements: everything here can be recomputed from saved rankings and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Judged, Ranking, Rows, Searcher

FULL_LIMIT = 50_000  # a larger gallery is not ranked whole: that costs a sort of it for every query
_BLOCK_BYTES = 64 << 20  # what the ranking of the whole gallery by one block of queries may occupy


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


def judge(
    expected: np.ndarray,
    gallery_labels: np.ndarray,
    ranking: Ranking,
    n_relevant: np.ndarray,
    relevant_ranks: np.ndarray | None = None,
) -> Judged:
    """Look up the labels of what was found.

    expected: (q,) labels of the queries; gallery_labels: (n,); n_relevant: (q,) from `count_relevant`, all above 0.
    relevant_ranks: (q, max n_relevant), `ranks` of `rank_gallery`.
    Raises ValueError where a query has nothing relevant (leave it out and count it), relevant items lack a rank, or the
    ranks are not those of what was found, or rows that the gallery does not have.
    """
    rows = ranking.indices
    if rows.size and not -1 <= rows.min() <= rows.max() < len(gallery_labels):
        raise ValueError(f"indices run from {rows.min()} to {rows.max()} in a gallery of {len(gallery_labels)} items")
    padded = np.append(np.asarray(gallery_labels, np.int64), -1)  # row -1, which pads, finds label -1
    if relevant_ranks is not None and (relevant_ranks >= len(gallery_labels)).any():
        raise ValueError(f"relevant_ranks holds {relevant_ranks.max()} in a gallery of {len(gallery_labels)} items")
    n_relevant = np.asarray(n_relevant, np.int64)
    return Judged(np.asarray(expected, np.int64), padded[rows], n_relevant, relevant_ranks)


def count_relevant(
    query_labels: np.ndarray, gallery_labels: np.ndarray, exclude: np.ndarray | None = None
) -> np.ndarray:
    """(q,) int64: gallery items with each query's label, without the rows in `exclude` ((q,) or (q, m), -1 none)."""
    labels = np.asarray(query_labels, np.int64)
    counts = np.bincount(gallery_labels, minlength=int(labels.max(initial=0)) + 1)[labels].astype(np.int64)
    if exclude is not None:
        rows = np.sort(np.asarray(exclude, np.int64).reshape(len(labels), -1), axis=1)
        repeated = np.zeros(rows.shape, bool)
        repeated[:, 1:] = rows[:, 1:] == rows[:, :-1]
        counts -= ((np.asarray(gallery_labels)[rows] == labels[:, None]) & (rows >= 0) & ~repeated).sum(axis=1)
    return counts


def ranks_of_relevant(indices: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> np.ndarray:
    """(q, max n_relevant) int64: where everything relevant stands, ascending, padded with -1 behind.

    indices: (q, k) gallery rows, nearest first, padded with -1; each row is the ranking of the whole gallery.
    """
    padded = np.append(np.asarray(gallery_labels, np.int64), -1)
    owner, rank = np.nonzero(padded[indices] == np.asarray(query_labels)[:, None])
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
    """
    n, q = len(gallery_labels), len(queries)
    whole = n <= full_limit
    k = max(n, depth) if whole else depth
    block = max(1, _BLOCK_BYTES // (12 * k))  # 12: int64 index and float32 distance
    block = min(block, getattr(search, "queries_at_once", block))
    indices = np.empty((q, depth), np.int64)
    distances = np.empty((q, depth), np.float32)
    standings = [np.empty((4, 0), np.int64)]
    for start in range(0, q, block):
        rows = slice(start, min(start + block, q))
        found = search(queries[rows], k, None if exclude is None else exclude[rows])
        indices[rows], distances[rows] = found.indices[:, :depth], found.distances[:, :depth]
        if whole:
            padded = np.append(gallery_labels, -1)
            relevant = padded[found.indices] == np.asarray(query_labels)[rows, None]
            owner, *standing = _standings(found, relevant)
            standings.append(np.stack([owner + start, *standing]))
        if progress:
            progress(rows.stop)
    ranking = Ranking(indices, distances)
    if not whole:
        return ranking, None
    owners, *values = np.concatenate(standings, axis=1)
    return ranking, Relevant(*(_side_by_side(owners, value, q) for value in values))


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
