"""Items as queries: the rows that an index keeps of them, as if their pictures and texts were described again.

Where a query brings something else than what items are compared by (`clip[text-to-image]`), an item asks by its own
row, which is a vector of the same space.
"""

from __future__ import annotations

import numpy as np

from retrieval_bench.core import Rows
from retrieval_bench.indexing.finding import places_of
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.indexing.snapshot import Snapshot


def stored_rows(snapshot: Snapshot, method: IndexedMethod, numbers: np.ndarray) -> Rows:
    """Rows of items, for `Snapshot.search`.

    Args:
        snapshot: of the method's index.
        method: which.
        numbers: (m,) of items that the snapshot has, removed ones among them.

    Returns:
        A row for each. They are those of the pictures to the last bit where numbers are kept as they are described, and
        rounded as they are kept where not (`--dtype`).
    """
    places = places_of(snapshot.state.numbers, numbers)
    arrays = [
        array if array.dtype == object else np.ascontiguousarray(array).astype(facts.described, copy=False)
        for array, facts in zip(snapshot.described(method, places), method.facts.arrays, strict=True)
    ]
    return method.rows(arrays)
