"""Which query is shown, and what each method found for it, from the arrays of a record."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from retrieval_bench.compare.reload import judged
from retrieval_bench.core import BenchError
from retrieval_bench.evaluation import metrics

CLOSE = 3


def query_row(arrays: Mapping[str, np.ndarray], wanted: str) -> int:
    """The row of the query of this id; BenchError with a few close ones where there is none."""
    ids = [str(item) for item in arrays["query_ids"]]
    if wanted in ids:
        return ids.index(wanted)
    folded = wanted.casefold()
    within = [item for item in ids if folded and folded in item.casefold()]
    close = [*within, *difflib.get_close_matches(wanted, ids, n=CLOSE, cutoff=0.3), *ids]
    shown = ", ".join(repr(item) for item in list(dict.fromkeys(close))[:CLOSE])
    raise BenchError(f"--query {wanted!r} is not one of the record's {len(ids)} queries; the closest are {shown}")


def most_disputed(arrays: Mapping[str, np.ndarray], methods: Sequence[str]) -> tuple[int, str]:
    """The query on which these methods disagree most, and how: as many of them as possible are right and as many wrong
    about the nearest image; among equals their map@r lies furthest apart. Of one method alone, its worst query."""
    each = [judged(arrays, method) for method in methods]
    right = np.array([metrics.accuracy(one) > 0 for one in each])
    quality = np.array([metrics.map_at_r(one) for one in each])
    if len(methods) == 1:
        row = int(np.lexsort((np.arange(right.shape[1]), quality[0]))[0])
        return row, f"no query was given; this is the one on which {methods[0]} does worst"
    split = right.mean(axis=0) * (1 - right.mean(axis=0))
    order = np.lexsort((np.arange(right.shape[1]), -quality.std(axis=0), -split))
    row = int(order[0])
    count = int(right[:, row].sum())
    return row, (
        f"no query was given; this is the one on which the {len(methods)} methods disagree most; "
        f"{count} of them {'is' if count == 1 else 'are'} right about the nearest image"
    )


def nearest(arrays: Mapping[str, np.ndarray], method: str, query: int, top: int) -> list[tuple[int, float]]:
    """(gallery row, distance) of the first images that the method found, at most `top`."""
    rows = arrays[f"{method}/indices"][query, :top].tolist()
    distances = arrays[f"{method}/distances"][query, :top].tolist()
    return [(row, distance) for row, distance in zip(rows, distances, strict=True) if row >= 0]
