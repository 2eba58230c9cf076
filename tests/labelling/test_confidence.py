"""How sure proposals are: the promise is kept on images that were not asked, and nothing is promised of too few."""

from __future__ import annotations

import numpy as np

from retrieval_bench.labelling.confidence import confidence_of
from retrieval_bench.labelling.spreading import graph_of, spread
from retrieval_bench.labelling.suspects import suspects


def shop(labels: int, each: int, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(labels, 16)) * apart
    truth = np.repeat(np.arange(labels), each)
    return (centres[truth] + random.normal(size=(len(truth), 16))).astype(np.float32), truth


def known_of(truth: np.ndarray, each: int, without: int = 0) -> np.ndarray:
    known = np.full(len(truth), -1)
    for label in np.unique(truth)[without:]:
        known[np.flatnonzero(truth == label)[:each]] = label
    return known


def test_what_is_accepted_is_right_as_often_as_was_promised() -> None:
    right_ones = accepted = hidden = 0
    for seed in range(3):
        features, truth = shop(80, 12, 1.2, seed)
        known = known_of(truth, 5)
        graph = graph_of(features, "euclidean")
        arrived = spread(graph, known)
        found = confidence_of(graph, known, arrived, 0.95)
        right = arrived.labels[:, 0] == truth
        assert right[known < 0].mean() < 0.95  # else nothing would have to be left to a person
        assert found.threshold is not None
        assert 0.95 <= found.low <= found.precision
        assert found.held_out == 400
        taken = (known < 0) & (found.sure >= found.threshold)
        right_ones += int(right[taken].sum())
        accepted += int(taken.sum())
        hidden += int((known < 0).sum())
    assert right_ones / accepted >= 0.95
    assert accepted / hidden > 0.3


def test_images_of_new_products_are_counted_and_mostly_left_to_a_person() -> None:
    features, truth = shop(40, 12, 1.2, 3)
    known = known_of(truth, 5, without=8)
    graph = graph_of(features, "euclidean")
    arrived = spread(graph, known)
    found = confidence_of(graph, known, arrived, 0.95)
    new = (known < 0) & (truth < 8)
    share = new.sum() / (known < 0).sum()
    assert abs(found.new_share - share) < 0.12
    assert found.threshold is not None
    assert (found.sure[new] >= found.threshold).mean() < 0.2


def test_of_too_few_labels_nothing_is_promised() -> None:
    features, truth = shop(4, 6, 4.0, 0)
    graph = graph_of(features, "euclidean")
    for each, sentence in ((1, "only 0 labels can be held out"), (5, "label more")):
        known = known_of(truth, each)
        found = confidence_of(graph, known, spread(graph, known), 0.95)
        assert found.threshold is None
        assert sentence in found.why_not
        assert ((found.sure >= 0) & (found.sure <= 1)).all()


def test_planted_errors_are_found() -> None:
    """Precision and recall over 5 % wrong labels; docs/labelling.md states those of real data."""
    right = found = planted = 0
    for seed in range(3):
        features, truth = shop(30, 12, 1.5, seed)
        random = np.random.default_rng(seed)
        wrong = random.choice(len(truth), 18, replace=False)
        known = truth.copy()
        known[wrong] = (known[wrong] + random.integers(1, 30, 18)) % 30
        rows = suspects(known, spread(graph_of(features, "euclidean"), known))
        right += int(np.isin(rows, wrong).sum())
        found += len(rows)
        planted += 18
    assert right / found >= 0.95
    assert right / planted >= 0.75


def test_a_label_of_one_image_is_no_suspect() -> None:
    features, truth = shop(5, 8, 3.0, 0)
    known = truth.copy()
    known[0] = 9
    assert 0 not in suspects(known, spread(graph_of(features, "euclidean"), known))
