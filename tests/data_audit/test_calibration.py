"""Where the line is drawn: the sweep, planted copies, and what counts as a false pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve

from retrieval_bench.data_audit.calibration import (
    PLANTED,
    Copies,
    Originals,
    PlantedCopies,
    correlations,
    judged,
    kinds_each,
    planted,
    sweep,
    unlike,
)
from retrieval_bench.data_audit.duplicates import Gathered
from retrieval_bench.images.perturbations import perturbed
from tests.support.shop import shop


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


def thumbs(n: int, seed: int = 0) -> np.ndarray:
    """Thumbnails of n pictures, none like another."""
    return np.random.default_rng(seed).integers(0, 256, (n, 192), dtype=np.uint8)


def copied(n: int, near: float, seed: int = 0) -> tuple[PlantedCopies, np.ndarray]:
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(n, 4)).astype(np.float32)
    copies = originals + rng.normal(size=originals.shape).astype(np.float32) * near
    return PlantedCopies(np.concatenate([originals, copies]), np.arange(n), planted(n)), originals


def test_the_threshold_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    """Originals far apart, copies near: but those of one kind are far, too, in both halves."""
    n = 40
    rng = np.random.default_rng(0)
    originals = rng.integers(-500, 500, (n, 8)).astype(np.float32)
    copies = originals + np.float32(0.125)
    changes = [("blur", 1), ("crop", 5)] * (n // 2)
    copies[1::2] += 1000
    both = PlantedCopies(np.concatenate([originals, copies]), np.arange(n), changes)
    found = judged(both, Originals(originals, thumbs(n)), "euclidean", 3)
    assert found is not None
    assert found.tuned == found.held_out == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert found.found == {"blur 1": 1.0, "crop 5": 0.0}
    assert found.threshold == pytest.approx(0.125 * 8**0.5)
    assert (found.false_per_million, found.alike, found.precision_at_least) == (0, 0, 1.0)
    assert found.pairs == 40 * 39 // 2


def test_the_line_is_drawn_for_the_size_of_the_collection() -> None:
    """What is right among some hundred copies is wrong among a million images, and recall is given up for it."""
    both, originals = copied(400, 0.12)
    others = Originals(originals, thumbs(400))
    few, many = (judged(both, others, "euclidean", 0, size=size) for size in (None, 1_000_000))
    assert few is not None
    assert many is not None
    assert many.threshold < few.threshold
    assert many.false_per_million < few.false_per_million
    assert many.held_out["recall"] < few.held_out["recall"]
    right = few.held_out["recall"] * 200
    wrong = few.false_per_million / 1e6 * 2 * 400 * 200
    assert few.held_out["precision"] == pytest.approx(right / (right + wrong))
    of_many = sweep(np.array([1.0, 2.0, 3.0]), np.array([True, False, True]), 10.0)
    np.testing.assert_allclose(of_many.precision, [1, 1 / 11, 2 / 12])
    np.testing.assert_allclose(of_many.f1, [2 / 3, 2 / 13, 4 / 14])


@pytest.mark.parametrize("how", ["thumbnails", "labels"])
def test_what_is_a_duplicate_already_is_no_false_pair(how: str) -> None:
    """Half of the collection has a twin. The line stays where it is without, and the twins are counted."""
    both, originals = copied(100, 0.02)
    plain = judged(both, Originals(originals, thumbs(100)), "euclidean", 1, size=200)
    twice = np.concatenate([originals, originals + np.float32(0.001)])
    pictures = thumbs(100)
    near = np.concatenate([pictures, pictures ^ 1])
    naive = judged(both, Originals(twice, thumbs(200)), "euclidean", 1, size=200)
    others = (
        Originals(twice, near) if how == "thumbnails" else Originals(twice, thumbs(200), np.tile(np.arange(100), 2))
    )
    found = judged(both, others, "euclidean", 1, size=200)
    assert plain is not None
    assert naive is not None
    assert found is not None
    assert found.alike == found.alike_found == 100
    assert found.held_out["recall"] > 0.9
    assert abs(found.held_out["recall"] - plain.held_out["recall"]) < 0.05
    assert found.held_out["precision"] > 0.9
    assert found.precision_at_least < 0.1
    assert naive.held_out["precision"] < 0.1, "else this test shows nothing"


def test_two_labels_make_a_false_pair_unless_it_is_one_picture() -> None:
    pictures = thumbs(3)
    pictures[1] = np.clip(pictures[0].astype(int) + np.random.default_rng(1).integers(-25, 26, 192), 0, 255)
    pictures[2] = pictures[0]
    assert 0.95 < correlations(pictures[:1], pictures[1:2])[0, 0] < 0.99
    features, left, right = np.zeros((3, 2), np.float32), np.array([0, 0, 1]), np.array([1, 2, 2])
    for labels, expected in (
        (None, [True, True, True]),
        ([0, 1, 2], [False, True, False]),
        ([0, 0, 2], [True, True, False]),
    ):
        originals = Originals(features, pictures, None if labels is None else np.array(labels))
        assert originals.alike(left, right).tolist() == expected
        assert originals.count_alike() == sum(expected)
    assert correlations(np.full((1, 192), 9, np.uint8), pictures).tolist() == [[0.0, 0.0, 0.0]]


def test_without_a_false_pair_nothing_is_measured() -> None:
    both, originals = copied(8, 0.1)
    assert judged(both, Originals(originals, np.tile(thumbs(1), (8, 1))), "euclidean", 0) is None
    assert judged(both, Originals(originals, thumbs(8), np.zeros(8, np.int64)), "euclidean", 0) is None
    assert judged(both, Originals(originals[:1], thumbs(1)), "euclidean", 0) is None
    one = PlantedCopies(both.features[[0, 0, 8, 9]], np.zeros(2, np.int64), planted(2))
    assert judged(one, Originals(originals, thumbs(8)), "euclidean", 0) is None


def test_copies_are_planted_into_pictures_that_are_unlike() -> None:
    pictures = thumbs(5)[[0, 1, 0, 2, 0, 3, 4]]
    assert unlike(pictures, np.array([2, 1, 0, 3, 4, 5, 6]), 10).tolist() == [1, 2, 3, 5, 6]
    assert unlike(pictures, np.array([6, 0, 2]), 1).tolist() == [6]
    assert [kinds_each(n, 400) for n in (0, 4, 64, 200, 400, 900)] == [9, 9, 6, 2, 1, 1]
    with pytest.raises(ValueError, match="3 originals"):
        PlantedCopies(np.zeros((5, 2)), np.arange(3), planted(3))


def test_several_copies_of_one_picture_are_in_one_half() -> None:
    rng = np.random.default_rng(0)
    n, each = 12, 3
    originals = rng.normal(size=(n, 4)).astype(np.float32)
    owners = np.repeat(np.arange(n), each)
    own = originals[owners]
    far = own + np.where(owners[:, None] % 2 == 0, 0.01, 9.0).astype(np.float32)
    found = judged(
        PlantedCopies(np.concatenate([own, far]), owners, planted(n * each)),
        Originals(originals, thumbs(n)),
        "euclidean",
        0,
    )
    assert found is not None
    assert round(found.held_out["recall"] * 6, 9) % 1 == 0, "six whole pictures are held out"
