"""The search of one column: filters, exclusions, thresholds and examples, on one state of its index."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Ranking, Rows
from retrieval_bench.indexing.methods import IndexedMethod
from retrieval_bench.indexing.snapshot import Snapshot
from retrieval_bench.serving.answering.joined_row import DEPTH, joined_row
from retrieval_bench.serving.answering.relevance_feedback import NO_MEAN, has_mean, moved
from retrieval_bench.serving.answering.stored_rows import stored_rows
from retrieval_bench.serving.client.answers import Filters, Question


@dataclass(frozen=True, eq=False)
class FoundItems:
    """What a column found. numbers, distances: nearest first, at least k where there are so many, for a joined row.

    note: what was done otherwise than asked. beyond: how many of the k nearest were dropped by the threshold. ms: of
    the search. refused: why nothing was searched; "" where something was.
    """

    numbers: tuple[int, ...] = ()
    distances: tuple[float, ...] = ()
    note: str = ""
    beyond: int = 0
    ms: float = 0.0
    refused: str = ""


def search_column(
    method: IndexedMethod, snapshot: Snapshot, rows: Rows | None, question: Question, threshold: float | None
) -> FoundItems:
    """Search by one method.

    Args:
        method: of the snapshot's index.
        snapshot: what is searched in.
        rows: of the query, one; None: there is none but what the question names to find more of.
        question: how.
        threshold: largest distance of what is found.

    Returns:
        What it found.
    """
    began = time.perf_counter()
    liked, disliked = numbers_of(snapshot, question.more), numbers_of(snapshot, question.less)
    left_out = np.concatenate([numbers_of(snapshot, question.exclude), disliked])
    depth = max(1, min(len(snapshot), max(question.k, DEPTH if question.joined else 0)))
    among = filtered(snapshot, question.filters) if question.filters else None

    def find(queries: Rows) -> Ranking:
        exclude = np.tile(left_out, (len(queries), 1)) if len(left_out) else None
        return snapshot.search(method.name, queries, depth, among=among, exclude=exclude)

    note = ""
    if len(liked) or len(disliked):
        ranking, note = _by_examples(snapshot, method, rows, liked, disliked, find)
    elif rows is not None:
        ranking = find(rows)
    else:
        return FoundItems(refused="none of the items to find more of is in this index")
    if ranking is None:
        return FoundItems(refused=note)
    real = ranking.indices[0] >= 0
    numbers, distances = ranking.indices[0][real], ranking.distances[0][real]
    beyond = 0
    if threshold is not None:
        near = distances <= np.float32(threshold)
        beyond = int((~near[: question.k]).sum())
        numbers, distances = numbers[near], distances[near]
    return FoundItems(
        tuple(numbers.tolist()), tuple(distances.tolist()), note, beyond, (time.perf_counter() - began) * 1e3
    )


def filtered(snapshot: Snapshot, filters: Filters) -> np.ndarray:
    """Numbers of the live items that may be found, ascending."""
    return snapshot.where(
        labels=filters.labels,
        categories=filters.categories,
        attributes=filters.attributes,
        text_in_id=filters.text_in_id,
        not_labels=filters.not_labels,
        not_categories=filters.not_categories,
    )


def numbers_of(snapshot: Snapshot, ids: Sequence[str]) -> np.ndarray:
    """(m,) int64, of the items of these ids that this index has."""
    items = [snapshot.by_id(one) for one in dict.fromkeys(ids)]
    return np.array([item.number for item in items if item is not None], np.int64)


def _by_examples(
    snapshot: Snapshot,
    method: IndexedMethod,
    rows: Rows | None,
    liked: np.ndarray,
    disliked: np.ndarray,
    find: Callable[[Rows], Ranking],
) -> tuple[Ranking | None, str]:
    """The ranking of a query that is moved by examples, and what is to be said of it; or None and why there is none."""
    towards = stored_rows(snapshot, method, liked) if len(liked) else None
    away = stored_rows(snapshot, method, disliked) if len(disliked) else None
    if rows is None and towards is None:
        return None, "none of the items to find more of is in this index"
    given = [one for one in (rows, towards, away) if one is not None]
    if _compares_in_its_own_way(method) or not all(has_mean(one, method.distance) for one in given):
        queries = [one for one in (rows, towards) if one is not None]
        each = [find(own[place : place + 1]) for own in queries for place in range(len(own))]
        lists = {str(number): own.indices[0][own.indices[0] >= 0].tolist() for number, own in enumerate(each)}
        return joined_row(lists, each[0].indices.shape[1]), NO_MEAN
    query, positive, negative = (one if isinstance(one, np.ndarray) else None for one in (rows, towards, away))
    return find(moved(query, positive, negative, method.distance)), ""


def _compares_in_its_own_way(method: IndexedMethod) -> bool:
    return any(hasattr(part.extractor, "searcher") for part in method.pipeline.members)
