"""Pairs and groups, each against a slow and obvious twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_bench.core import BenchError
from retrieval_bench.data_audit.duplicates import Pairs, groups, pairs_within


def slow_pairs(codes: np.ndarray, radius: int) -> list[tuple[int, int, int]]:
    bits = np.unpackbits(codes, axis=1)
    found = []
    for first in range(len(codes)):
        for second in range(first + 1, len(codes)):
            apart = int((bits[first] != bits[second]).sum())
            if apart <= radius:
                found.append((first, second, apart))
    return found


def slow_groups(n: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for first, second in pairs:
        parent[root(second)] = root(first)
    members: dict[int, list[int]] = {}
    for row in range(n):
        members.setdefault(root(row), []).append(row)
    return sorted(sorted(group) for group in members.values() if len(group) > 1)


def as_list(pairs: Pairs) -> list[tuple[int, int, int]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.distances.astype(int).tolist(), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 9), st.integers(1, 4))
def test_pairs_and_groups_equal_their_slow_twins(seed: int, n: int, radius: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.choice(rng.integers(0, 256, values, dtype=np.uint8), (n, 2))  # few values: many equal rows
    found = pairs_within(codes, radius, "hamming")
    slow = slow_pairs(codes, radius)
    assert as_list(found) == slow
    assert len(found) == len(slow)
    together = [group.tolist() for group in groups(n, found)]
    assert together == slow_groups(n, [(a, b) for a, b, _ in slow])


def test_pairs_of_vectors_are_within_the_distance() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 5)).astype(np.float32)
    rows[40:] = rows[:20] + rng.normal(scale=0.05, size=(20, 5)).astype(np.float32)
    found = pairs_within(rows, 0.4, "euclidean")
    apart = np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2)
    first, second = np.nonzero(np.triu(apart <= 0.4, 1))
    assert found.first.tolist() == first.tolist()
    assert found.second.tolist() == second.tolist()
    assert found.distances == pytest.approx(apart[first, second], rel=1e-5)


def test_too_many_pairs_are_refused_in_one_sentence() -> None:
    with pytest.raises(BenchError, match="lower the radius"):
        pairs_within(np.zeros((100, 2), np.uint8), 0, "hamming", most=1000)
    assert len(pairs_within(np.zeros((100, 2), np.uint8), 0, "hamming")) == 4950
