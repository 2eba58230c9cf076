"""The contract of a search, whatever a method makes it of: a backend, a join, re-ranking steps. `core.Searcher` states
it; a few drawn pictures, or texts, are searched for among others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from retrieval_bench.contracts.clauses import BrokenClause, ClauseVerdict, NotApplicable, verdicts
from retrieval_bench.contracts.pictures import drawn
from retrieval_bench.contracts.texts import written
from retrieval_bench.core import BenchError, Bundle, Ranking, Rows, Searcher, Setup, Split
from retrieval_bench.methods.modalities import TEXT
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Part, Pipeline
from retrieval_bench.records.ranking_faults import first_not_ascending
from retrieval_bench.search.reference import NumpyIndex

ROUNDING = 1e-4
"""By which the distances of two exact searches may differ, as a share of the largest."""


def check_search(method: Method, setup: Setup) -> list[ClauseVerdict]:
    """Check how a method finds its neighbours.

    Args:
        method: with what joins, re-ranks or searches for its extractors.
        setup: seed, weights, device.

    Returns:
        One verdict a clause.
    """
    return verdicts(str(method), CLAUSES, SearchCase(method, setup), FIRST)


class SearchCase:
    """A method with the features of the items that it searches in, and of those that it searches for."""

    def __init__(self, method: Method, setup: Setup) -> None:
        self.method, self.setup = method, setup

    @cached_property
    def pipeline(self) -> Pipeline:
        """Fitted. NotApplicable where its parts cannot describe drawn items."""
        pipeline = Pipeline(self.method, self.setup, "exact")
        if any(hasattr(part.extractor, "describe_split") for part in pipeline.parts) or pipeline.sees_labels:
            raise NotApplicable("a part has its features from a file, or sees the labels")
        if len({part.spec.modalities == (TEXT,) for part in pipeline.parts}) > 1:
            raise NotApplicable("some parts read texts and others look at pictures")
        for part in pipeline.parts:
            part.extractor.fit(self.train)
        if pipeline.learns_together:
            pipeline.fit_together([self._described(part, _items(self.train)) for part in pipeline.parts], self.labels)
        return pipeline

    @property
    def train(self) -> Split:
        """What parts, joins and steps learn from."""
        return self._drawn[1]

    @property
    def labels(self) -> np.ndarray:
        return self.train.labels

    @property
    def gallery(self) -> Rows:
        """The items that are searched; a copy, so that no clause sees what another has written into them."""
        return _copy(self._described_rows[0])

    @property
    def queries(self) -> Rows:
        """Those that are searched for, awkward ones among them; a copy."""
        return _copy(self._described_rows[1])

    @cached_property
    def _described_rows(self) -> tuple[Rows, Rows]:
        asked, _, searched = self._drawn
        return self._rows(_items(searched)), self._rows(list(asked))

    @cached_property
    def searcher(self) -> Searcher:
        return self.pipeline.searcher(self.gallery)

    @property
    def n(self) -> int:
        """How many items are searched."""
        return len(self.gallery)

    @cached_property
    def found(self) -> Ranking:
        """All items, for each query."""
        return self.searcher(self.queries, self.n)

    @cached_property
    def _drawn(self) -> tuple[list[Any], Split, Split]:
        return written() if all(one.modalities == (TEXT,) for one in self.method.members) else drawn()

    def _rows(self, items: list[Any]) -> Rows:
        return self.pipeline.rows([self._described(part, items) for part in self.pipeline.parts])

    @staticmethod
    def _described(part: Part, items: list[Any]) -> np.ndarray:
        describe = "transform" if isinstance(items[0], np.ndarray) else "transform_texts"
        return getattr(part.extractor, describe)(items)  # type: ignore[no-any-return]


def _items(split: Split) -> list[Any]:
    return [split.images[row] for row in range(len(split))] if split.texts is None else list(split.texts)


def _copy(rows: Rows) -> Rows:
    if isinstance(rows, Bundle):
        return Bundle({name: array.copy() for name, array in rows.arrays.items()})
    return rows.copy()


def _same(one: Rows, other: Rows) -> bool:
    if isinstance(one, Bundle) and isinstance(other, Bundle):
        return all(_same(array, other.arrays[name]) for name, array in one.arrays.items())
    return np.array_equal(one, other)  # type: ignore[arg-type]


def _builds(case: SearchCase) -> str:
    try:
        return f"{case.searcher.bytes:,} bytes for {case.n} items, {len(case.queries)} queries"
    except BenchError as refused:  # of so few items, or of a part beside which it cannot work
        raise NotApplicable(str(refused)) from None


def _shapes(case: SearchCase) -> str:
    for k in (1, case.n, case.n + 3):
        found = case.searcher(case.queries, k)
        if not isinstance(found, Ranking):
            raise BrokenClause(f"it returns a {type(found).__name__} and no Ranking")
        wanted = (len(case.queries), k)
        for name, array, kinds in (("indices", found.indices, "iu"), ("distances", found.distances, "f")):
            if array.shape != wanted or array.dtype.kind not in kinds:
                raise BrokenClause(f"k={k}: {name} are {array.dtype} {array.shape}, wanted is {wanted}")
        if k > case.n and not (
            (found.indices[:, case.n :] == -1).all() and np.isinf(found.distances[:, case.n :]).all()
        ):
            raise BrokenClause(f"k={k}, and {case.n} items: what is behind the last must be -1 at distance inf")
    return f"k of 1, {case.n} and {case.n + 3}"


def _each_once(case: SearchCase) -> str:
    found = case.found.indices
    if found.min(initial=-1) < -1 or found.max(initial=-1) >= case.n:
        raise BrokenClause(f"it names rows {found.min()} to {found.max()}; {case.n} items have rows 0 to {case.n - 1}")
    for query, rows in enumerate(found):
        held = rows[rows >= 0]
        if len(np.unique(held)) < len(held):
            raise BrokenClause(f"query {query} finds an item twice")
        if len(held) < case.n and not case.pipeline.ends_early:
            raise BrokenClause(f"query {query} finds {len(held)} of {case.n} items")
    return "no item twice, as it may miss some" if case.pipeline.ends_early else "every item once"


def _ascends(case: SearchCase) -> str:
    distances = case.found.distances
    if np.isnan(distances).any():
        raise BrokenClause("a distance is NaN")
    if (query := first_not_ascending(distances)) is not None:
        raise BrokenClause(f"the distances of query {query} do not ascend")
    return ""


def _excludes(case: SearchCase) -> str:
    nearest = case.found.indices[:, 0]
    found = case.searcher(case.queries, case.n, nearest)
    met = np.flatnonzero(((found.indices == nearest[:, None]) & (nearest[:, None] >= 0)).any(axis=1))
    if len(met):
        raise BrokenClause(f"query {met[0]} finds the item that it must not find")
    if not case.pipeline.ends_early and not (np.sort(found.indices, axis=1)[:, 1:] >= 0).all():
        raise BrokenClause("with one item left out, others are missing too")
    return "the nearest item of each query, left out"


def _alone(case: SearchCase) -> str:
    if case.pipeline.approximate:
        raise NotApplicable("an approximate index may find others where it is asked for several at once")
    for query in range(len(case.queries)):
        _equal(case.searcher(case.queries[query : query + 1], case.n), case.found, f"query {query} alone", [query])
    return "alone and all at once: every bit is equal"


def _repeats(case: SearchCase) -> str:
    _equal(case.searcher(case.queries, case.n), case.found, "searched again")
    if case.pipeline.approximate:
        return "searched again; an approximate index may be built otherwise the next time"
    _equal(case.pipeline.searcher(case.gallery)(case.queries, case.n), case.found, "built again")
    return "searched again, built again"


def _equal(again: Ranking, before: Ranking, what: str, rows: list[int] | None = None) -> None:
    indices, distances = (
        (before.indices, before.distances) if rows is None else (before.indices[rows], before.distances[rows])
    )
    if not (np.array_equal(again.indices, indices) and np.array_equal(again.distances, distances)):
        raise BrokenClause(f"{what}: the ranking is another")


def _leaves_alone(case: SearchCase) -> str:
    gallery, queries, left_out = case.gallery, case.queries, np.zeros(len(case.queries), np.int64)
    case.pipeline.searcher(gallery)(queries, case.n, left_out)
    if not _same(gallery, case.gallery) or not _same(queries, case.queries) or left_out.any():
        raise BrokenClause("it writes into the features, or into what is to be left out")
    return ""


def _nearest(case: SearchCase) -> str:
    backend = case.method.backend
    if backend is None or case.method.steps or not isinstance(case.gallery, np.ndarray):
        raise NotApplicable("no backend alone makes the order")
    if case.pipeline.approximate:
        raise NotApplicable(f"{backend.entry.name} may miss neighbours")
    right = NumpyIndex(case.gallery, case.pipeline.distance)(case.queries, case.n)  # type: ignore[arg-type]
    away = np.abs(right.distances - case.found.distances).max()
    if away > ROUNDING * max(np.abs(right.distances).max(), 1):
        raise BrokenClause(f"distances are not those of plain numpy, by up to {away:.3g}")
    return "the distances of plain numpy"


CLAUSES: dict[str, Callable[[SearchCase], str]] = {
    "builds": _builds,
    "shapes": _shapes,
    "finds each once": _each_once,
    "nearest first": _ascends,
    "leaves out": _excludes,
    "order-independent": _alone,
    "repeatable": _repeats,
    "leaves its input alone": _leaves_alone,
    "exact": _nearest,
}
"""Clause -> what checks it."""
FIRST = ("builds",)
