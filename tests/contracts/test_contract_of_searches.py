"""Each clause of the contract of a search is broken by some backend, and seen; joins and steps that keep it pass."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from retrieval_bench.contracts.extractor import check
from retrieval_bench.contracts.search import CLAUSES, check_search
from retrieval_bench.core import BenchError, Ranking, Setup
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import Entry, Spec
from retrieval_bench.search.reference import NumpyIndex


def broken(backend: Any, **facts: Any) -> dict[str, str]:
    """Clause -> detail of those that a backend breaks."""
    entry = Entry("probe", backend, "a backend of this test", facts={"exact": True, **facts})
    verdicts = check_search(replace(parse_method("hsv"), backend=Spec(entry, {})), Setup())
    assert [one.clause for one in verdicts] == list(CLAUSES)
    return {one.clause: one.detail for one in verdicts if one.verdict == "broken"}


class NoRanking(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Any:
        found = super().__call__(queries, k, exclude)
        return found.indices, found.distances


class NoPadding(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        return super().__call__(queries, min(k, len(self.gallery)), exclude)


class Twice(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        found.indices[:, 1:2] = found.indices[:, :1]
        return found


class Forgets(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        found.indices[:, 3:], found.distances[:, 3:] = -1, np.inf
        return found


class Descends(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        n = len(self.gallery)
        return Ranking(found.indices, np.where(found.indices >= 0, n - found.distances, np.inf).astype(np.float32))


class NotANumber(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        found.distances[0, 0] = np.nan
        return found


class ExcludesNothing(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        return super().__call__(queries, k)


class OfTheBatch(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        return Ranking(found.indices, found.distances + np.float32(len(queries)))


class Dice(NumpyIndex):
    turns = itertools.count(1)

    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        return Ranking(found.indices, found.distances + np.float32(1e-6 * next(self.turns)))


class WritesIntoQueries(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        if exclude is not None:
            queries[:] = 0
        return found


class Doubles(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        found = super().__call__(queries, k, exclude)
        return Ranking(found.indices, 2 * found.distances)


class Crashes(NumpyIndex):
    def __call__(self, queries: Any, k: int, exclude: Any = None) -> Ranking:
        raise ZeroDivisionError("no way")


@pytest.mark.parametrize(
    ("backend", "clause", "said"),
    [
        (NoRanking, "shapes", "it returns a tuple and no Ranking"),
        (NoPadding, "shapes", "k=25: indices are int64 (13, 22), wanted is (13, 25)"),
        (Twice, "finds each once", "query 0 finds an item twice"),
        (Forgets, "finds each once", "query 0 finds 3 of 22 items"),
        (Descends, "nearest first", "the distances of query 0 do not ascend"),
        (NotANumber, "nearest first", "a distance is NaN"),
        (ExcludesNothing, "leaves out", "query 0 finds the item that it must not find"),
        (OfTheBatch, "order-independent", "query 0 alone: the ranking is another"),
        (Dice, "repeatable", "searched again: the ranking is another"),
        (WritesIntoQueries, "leaves its input alone", "it writes into the features"),
        (Doubles, "exact", "distances are not those of plain numpy"),
        (Crashes, "shapes", "failed: ZeroDivisionError: no way"),
    ],
)
def test_what_breaks_a_clause_is_seen(backend: Any, clause: str, said: str) -> None:
    assert said in broken(backend)[clause]


def test_a_backend_that_keeps_all_passes() -> None:
    assert broken(NumpyIndex) == {}


def test_an_approximate_backend_may_miss_items_and_nothing_more() -> None:
    assert broken(Forgets, exact=False) == {}
    assert "nearest first" in broken(NotANumber, exact=False)


def test_what_a_backend_refuses_is_no_broken_clause() -> None:
    def picky(gallery: np.ndarray, distance: Any) -> Any:
        raise BenchError("picky wants 256 rows")

    assert broken(picky) == {}


@pytest.mark.parametrize("method", ["hsv+qe", "hsv+reciprocal", "hsv+phash+rrf", "phash on int8", "hsv+phash+scores"])
def test_joins_steps_and_backends_keep_the_contract(method: str) -> None:
    assert [
        f"{one.clause}: {one.detail}" for one in check_search(parse_method(method), Setup()) if one.verdict == "broken"
    ] == []


@pytest.mark.parametrize("method", ["oracle on int8", "color+bm25"])
def test_parts_that_cannot_be_asked_about_drawn_pictures_are_told(method: str) -> None:
    assert {one.verdict for one in check_search(parse_method(method), Setup())} == {"n/a"}


@pytest.mark.slow(reason="checks every clause of two extractors")
def test_the_search_is_a_part_of_its_own_where_it_is_more_than_the_extractor() -> None:
    assert list(dict.fromkeys(one.part for one in check("phash"))) == ["phash"]
    assert list(dict.fromkeys(one.part for one in check("phash+qe"))) == ["phash", "phash+qe"]
