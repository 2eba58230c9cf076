"""Pairs, groups and thresholds, each against a slow and obvious twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from retrieval_bench.core import BenchError
from retrieval_bench.data_audit.duplicates import (
    PLANTED,
    Copies,
    Gathered,
    Pairs,
    groups,
    judged,
    pairs_within,
    planted,
    sweep,
)
from retrieval_bench.images.perturbations import perturbed
from tests.support.shop import shop


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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_the_sweep_is_that_of_scikit_learn(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 12, n).astype(np.float32)  # many ties
    true = rng.random(n) < 0.4
    true[0] = True
    found = sweep(distances, true)
    precision, recall, thresholds = precision_recall_curve(true, -distances)
    assert found.thresholds.tolist() == (-thresholds[::-1]).tolist()
    assert found.precision == pytest.approx(precision[:-1][::-1])
    assert found.recall == pytest.approx(recall[:-1][::-1])
    assert found.f1 == pytest.approx(2 * found.precision * found.recall / (found.precision + found.recall).clip(1e-12))
    best = found.best()
    assert found.at(best)["f1"] == found.f1.max()
    strict = found.best(0.9)
    at = found.at(strict)
    good = found.precision >= 0.9
    assert at["recall"] == (found.recall[good].max() if good.any() else 0.0)


def test_below_every_distance_nothing_is_found() -> None:
    found = sweep(np.array([3.0, 1.0], np.float32), np.array([True, False]))
    assert found.best(0.9) < 1.0
    assert found.at(found.best(0.9)) == {"precision": 1.0, "recall": 0.0, "f1": 0.0}
    with pytest.raises(ValueError, match="no pair is true"):
        sweep(np.array([1.0]), np.array([False]))


def test_copies_stand_behind_their_originals() -> None:
    images = shop().gallery.images
    changes = planted(len(images))
    assert changes[: len(PLANTED)] == list(PLANTED)
    both = Copies(images, changes, 5)
    n = len(images)
    assert len(both) == 2 * n
    assert np.array_equal(both[2], images[2])
    assert both.digest(2) == images.digest(2)
    name, severity = changes[2]
    assert np.array_equal(both[n + 2], perturbed(name, images[2], severity, 5))
    assert len({both.digest(row) for row in range(2 * n)}) == 2 * n
    turned = Gathered([(images, 3), (both, n + 1)])
    assert np.array_equal(turned.take([1])[0], both[n + 1])


def test_the_threshold_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    """Originals far apart, copies near: but in the half that is held out, half of the copies are far, too."""
    n, seed = 40, 3
    rng = np.random.default_rng(0)
    originals = rng.integers(-500, 500, (n, 8)).astype(np.float32)
    copies = originals + np.float32(0.125)
    order = np.random.default_rng(seed).permutation(n)
    held = np.sort(order[n // 2 :])
    changes = [("blur", 1)] * n
    for row in held[::2].tolist():
        copies[row] += 1000
        changes[row] = ("crop", 5)
    found = judged(np.concatenate([originals, copies]), "euclidean", changes, seed)
    assert found.tuned == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert found.held_out["recall"] == 0.5
    assert found.found == {"crop 5": 0.0, "blur 1": 1.0}
    assert found.threshold == pytest.approx(0.125 * 8**0.5)
    assert found.false_per_million == 0


def test_the_line_is_drawn_for_the_size_of_the_collection() -> None:
    """What is right among some hundred copies is wrong among a million images, and recall is given up for it."""
    rng = np.random.default_rng(0)
    originals = rng.normal(size=(400, 4)).astype(np.float32)
    copies = originals + rng.normal(size=originals.shape).astype(np.float32) * 0.05
    features, changes = np.concatenate([originals, copies]), planted(400)
    few, same, many = (judged(features, "euclidean", changes, 0, size=size) for size in (None, 8, 1_000_000))
    assert few.threshold == same.threshold, "a false pair never counts less than once"
    assert many.threshold < few.threshold
    assert many.false_per_million < few.false_per_million
    assert many.held_out["recall"] < few.held_out["recall"]
    right = few.held_out["recall"] * 200
    wrong = few.false_per_million / 1e6 * (400 * 399 / 2 - 200)
    assert few.held_out["precision"] == pytest.approx(right / (right + wrong))
    of_many = sweep(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), 10.0)
    np.testing.assert_allclose(of_many.precision, [1, 1 / 11, 2 / 12])
    np.testing.assert_allclose(of_many.f1, [2 / 3, 2 / 13, 4 / 14])
