"""Items as queries: the rows that an index keeps of them, as if their pictures were described again."""

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
        np.ascontiguousarray(array[places]).astype(facts.described, copy=False)
        for array, facts in zip(snapshot.features(method.text), method.facts.arrays, strict=True)
    ]
    return method.rows(arrays)
