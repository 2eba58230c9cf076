"""The second look: what of a gallery could be nearer than the rows that a scan found, and is.

A scan keeps a few more candidates than are wanted. For most queries their float64 distances tell for certain that
nothing else is as near. For the others, all rows that could be are found by their bounds and compared in float64; where
these are most of the gallery, all rows are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_bench.search.all_rows import nearest_of_all
from retrieval_bench.search.settling import Asked, Kept, Settled, best_of_each, distances_of

if TYPE_CHECKING:
    from retrieval_bench.core import Ranking
    from retrieval_bench.search.packed import PackedGallery
    from retrieval_bench.search.scans import Queries

_PAIRS_AT_ONCE = 1 << 22  # of query and row, that may wait for their distances
_MOST_IN_DOUBT = 16  # of so many rows, one may be in doubt; of more, all rows are looked at, which is simpler work


def second_look(
    gallery: PackedGallery, queries: np.ndarray, first: Sequence[tuple[Queries, Settled]], exclude: np.ndarray,
    ranking: Ranking, k: int, threads: int | None,
) -> int:  # fmt: skip
    """Fill the lines of the ranking that need it.

    Args:
        gallery: of vectors.
        queries, exclude, threads: as for `ExactIndex.search`, checked.
        first: what the scan found for some of the queries each.
        ranking: of all queries.
        k: how many neighbours of each are found.

    Returns:
        How many float64 distances that took.
    """
    rows, n = gallery.rows, len(gallery)
    assert rows is not None
    first = [(some, done) for some, done in first if len(done.doubtful)]
    if not first:
        return 0
    lines = np.concatenate([some.rows.start + done.doubtful for some, done in first])
    reach = np.nextafter(np.concatenate([done.distances[done.doubtful, -1] for _, done in first]), np.inf)
    rescored, start, size, most = 0, 0, 1, n
    if isinstance(rows, Kept):
        each = max(1, n // _MOST_IN_DOUBT)
        size = min(len(lines), max(1, _PAIRS_AT_ONCE // each))
        most = each * size
    while start < len(lines):
        again = slice(start, min(start + size, len(lines)))
        some = lines[again]
        found = gallery.in_question(queries[some], reach[again], exclude[some], threads, most)
        if found is None and start == 0:  # these tell that most rows are in question
            assert isinstance(rows, Kept)  # else all rows may be found
            asked = Asked.joined([some.asked().part(done.doubtful) for some, done in first])
            nearest = nearest_of_all(asked, rows, exclude[lines], k, threads)
            ranking.indices[lines, :k], ranking.distances[lines, :k] = nearest
            return len(lines) * n
        if found is None:
            size = max(1, size // 8)
        else:
            asking, owners, who, _ = found
            assert asking is not None  # of vectors
            distances = distances_of(asking, rows, owners, who, threads)
            best = best_of_each(owners, who, distances, len(some), k)
            ranking.indices[some, :k], ranking.distances[some, :k] = best
            rescored, start = rescored + len(owners), start + len(some)
            size = max(1, _PAIRS_AT_ONCE * len(some) // max(1, 4 * len(owners)))
        most = max(n, _PAIRS_AT_ONCE)
    return rescored
