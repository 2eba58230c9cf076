"""Groups by complete linkage: against the definition, on chains, and on many equal rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.core import BenchError
from retrieval_bench.data_audit import grouping
from retrieval_bench.data_audit.grouping import Group, grouped, of_equal_pixels


def apart(codes: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(codes, axis=1).astype(int)
    return (bits[:, None] != bits).sum(axis=2)


def slow(codes: np.ndarray, radius: int, rank: np.ndarray) -> list[list[int]]:
    """The definition on distinct rows, image by image."""
    gaps, free, found = apart(codes), set(range(len(codes))), []
    for seed in np.argsort(rank).tolist():
        if seed not in free:
            continue
        members = [seed]
        best = {row: min(rank[other] for other in range(len(codes)) if gaps[row, other] == 0) for row in free}
        for row in sorted(free - {seed}, key=lambda row: (gaps[seed, row], best[row], rank[row])):
            if all(gaps[row, member] <= radius for member in members):
                members.append(row)
        free -= set(members)
        if len(members) > 1:
            found.append(sorted(members, key=lambda row: rank[row]))
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(0, 9), st.integers(1, 6))
def test_groups_are_those_of_the_definition(seed: int, n: int, radius: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice(rng.integers(0, 256, values, dtype=np.uint8), (n, 2))
    rank = rng.permutation(n)
    found = grouped(codes, radius, "hamming", rank)
    assert [group.rows.tolist() for group in found.groups] == slow(codes, radius, rank)
    gaps = apart(codes)
    for group in found.groups:
        assert group.diameter == gaps[np.ix_(group.rows, group.rows)].max() <= radius
    assert found.pairs == (gaps[np.triu_indices(n, 1)] <= radius).sum()


def test_a_chain_is_cut() -> None:
    line = np.arange(10, dtype=np.float32)[:, None]
    found = grouped(line, 1.0, "euclidean", np.arange(10))
    assert [group.rows.tolist() for group in found.groups] == [[row, row + 1] for row in range(0, 10, 2)]
    assert found.pairs == 9


def test_many_equal_rows_are_one_group_without_their_pairs() -> None:
    codes = np.zeros((20_000, 8), np.uint8)
    found = grouped(codes, 0, "hamming", np.arange(20_000)[::-1].copy())
    assert [len(group.rows) for group in found.groups] == [20_000]
    assert found.groups[0].rows[0] == 19_999
    assert found.pairs == 20_000 * 19_999 // 2


def test_rows_of_zeros_are_not_near_each_other() -> None:
    rows = np.array([[0, 0], [0, 0], [1, 1], [2, 2]], np.float32)
    found = grouped(rows, 0.1, "cosine", np.arange(4))
    assert [group.rows.tolist() for group in found.groups] == [[2, 3]]


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_PAIRS", 100)
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    with pytest.raises(BenchError, match="give a smaller distance with --within"):
        grouped(rows, 100.0, "euclidean", np.arange(60))


def test_equal_pixels() -> None:
    found = of_equal_pixels(np.array([7, 3, 7, 1, 3]), np.array([4, 3, 1, 2, 0]))
    assert [group.rows.tolist() for group in found] == [[4, 1], [2, 0]]
    assert of_equal_pixels(np.zeros(0, np.int64), np.zeros(0, np.int64)) == ()
    assert isinstance(found[0], Group)
    assert grouped(np.zeros((1, 8), np.uint8), 0, "hamming", np.arange(1)).groups == ()
