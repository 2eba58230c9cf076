"""What a distance is worth: checked against its plain meaning, and against how often it is right on other queries."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.evaluation.calibration import Calibration, calibrated, threshold_curve


def found(queries: int, k: int, seed: int, per_label: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances, right or not, labels; an item at distance d is right with probability (1 - d)^2."""
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.random((queries, k)), axis=1)
    return distances, rng.random((queries, k)) < (1 - distances) ** 2, np.arange(queries) // per_label


def learned(queries: int, k: int, seed: int) -> Calibration:
    curve = calibrated(*found(queries, k, seed))
    assert curve is not None
    return curve


def test_it_is_the_share_of_right_items_and_falls_with_the_distance() -> None:
    curve = learned(400, 10, seed=0)
    assert (np.diff(curve.probability) <= 0).all()
    assert (np.diff(curve.distances) > 0).all()
    assert ((curve.low <= curve.probability) & (curve.probability <= curve.high)).all()
    at = np.linspace(0.02, 0.98, 49)
    assert np.abs(curve.at(at)[:, 0] - (1 - at) ** 2).max() < 0.1
    distances, right, _ = found(400, 10, seed=0)
    assert curve.at(distances)[..., 0].mean() == pytest.approx(right.mean(), abs=1e-12), "steps are means"


def test_its_intervals_hold_the_truth() -> None:
    at = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    truth = (1 - at) ** 2
    inside = []
    for seed in range(60):
        read = learned(200, 5, seed).at(at)
        inside.append((read[:, 1] <= truth) & (truth <= read[:, 2]))
    assert np.mean(inside) > 0.85, "a step is a mean over distances of which one is asked"


def test_what_was_not_found_has_no_probability_and_what_lies_far_has_the_last() -> None:
    curve = learned(100, 5, seed=1)
    read = curve.at(np.array([[0.0, np.inf, 99.0]]))
    assert np.isnan(read[0, 1]).all()
    assert read[0, 0, 0] == curve.probability[0]
    assert read[0, 2, 0] == curve.probability[-1]


def test_few_queries_or_one_label_claim_nothing() -> None:
    distances, right, labels = found(100, 5, seed=2)
    assert calibrated(distances[:10], right[:10], labels[:10]) is None
    assert calibrated(np.full((100, 5), np.inf), right, labels) is None
    curve = calibrated(distances, right, np.zeros(100, int))
    assert curve is not None
    assert (curve.low == 0).all()
    assert (curve.high == 1).all()
    with pytest.raises(ValueError, match="NaN"):
        calibrated(np.full((100, 5), np.nan), right, labels)
    with pytest.raises(ValueError, match="do not fit"):
        calibrated(distances, right[:, :2], labels)


def test_a_perfect_method_is_not_called_certain() -> None:
    distances = np.tile(np.array([0.1, 0.9]), (60, 1))
    curve = calibrated(distances, np.tile([True, False], (60, 1)), np.arange(60))
    assert curve is not None
    assert curve.probability.tolist() == [1.0, 0.0]
    assert curve.low[0] < 0.97
    assert curve.high[1] > 0.03


def test_a_threshold_does_what_its_curve_says() -> None:
    rng = np.random.default_rng(3)
    nearest, labels = rng.random(300).astype(np.float32), np.arange(300) // 3
    answerable = rng.random(300) < 0.8
    right = answerable & (rng.random(300) < 1 - nearest)
    nearest[:2], right[:2] = np.inf, False
    curve = threshold_curve(nearest, right, answerable, labels)
    assert 50 < len(curve.thresholds) <= 101
    for threshold in (float(curve.thresholds[0]), 0.25, 0.5, 2.0):
        step = curve.at(threshold)
        answered = nearest <= curve.thresholds[step]
        assert curve.answered[step] == pytest.approx(answered.mean())
        assert curve.precision[step, 0] == pytest.approx(right[answered].mean())
        assert curve.recall[step, 0] == pytest.approx((right & answered).sum() / answerable.sum())
    assert (np.diff(curve.recall[:, 0]) >= 0).all()
    with pytest.raises(ValueError, match="0 queries"):
        threshold_curve(nearest[:0], right[:0], answerable[:0], labels[:0])


def test_where_nothing_is_found_or_answered_there_is_no_precision() -> None:
    nothing = threshold_curve(np.full(3, np.inf), np.zeros(3, bool), np.ones(3, bool), np.arange(3))
    assert nothing.answered.tolist() == [0.0]
    assert np.isnan(nothing.precision).all()
    assert nothing.recall[0, 0] == 0
