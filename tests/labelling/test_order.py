"""The order in which a person looks: far from all first, as the slow twin says, then the doubtful ones."""

from __future__ import annotations

import numpy as np

from retrieval_bench.labelling.order import by_usefulness, farthest_first


def slowly(points: np.ndarray, begin: list[int], rows: list[int], count: int) -> list[int]:
    have, chosen = list(begin), []
    for _ in range(count):
        apart = {row: min(float(((points[row] - points[one]) ** 2).sum()) for one in have) for row in rows}
        best = max((row for row in rows if row not in chosen), key=lambda row: (round(apart[row], 3), -row))
        chosen.append(best)
        have.append(best)
    return chosen


def test_it_chooses_as_the_slow_twin() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    found = farthest_first(points, np.array([0, 1]), np.arange(2, 40), 8)
    assert found.tolist() == slowly(points, [0, 1], list(range(2, 40)), 8)


def test_every_image_without_a_label_comes_once() -> None:
    random = np.random.default_rng(1)
    known = np.where(np.arange(60) < 10, 0, -1)
    sure = random.random(60)
    for features, distance in ((random.normal(size=(60, 4)), "cosine"), (random.integers(0, 256, (60, 2)), "hamming")):
        kind = np.uint8 if distance == "hamming" else np.float32
        order = by_usefulness(features.astype(kind), distance, known, sure)  # type: ignore[arg-type]
        assert sorted(order.tolist()) == list(range(10, 60))
        assert (np.diff(sure[order[10:]]) >= 0).all()


def test_without_labels_and_among_copies() -> None:
    order = by_usefulness(np.ones((12, 3), np.float32), "euclidean", np.full(12, -1), np.zeros(12))
    assert sorted(order.tolist()) == list(range(12))
