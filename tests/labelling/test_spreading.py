"""Label spreading: against hiding each label for certain, against scikit-learn, and on images that are odd."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import Distance
from retrieval_bench.labelling.spreading import CANDIDATES, graph_of, spread


def blobs(labels: int, each: int, apart: float = 3.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 16) vectors around a centre for each label, and the labels."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(labels, 16)) * apart
    truth = np.repeat(np.arange(labels), each)
    return (centres[truth] + random.normal(size=(len(truth), 16))).astype(np.float32), truth


def some_known(truth: np.ndarray, each: int) -> np.ndarray:
    known = np.full(len(truth), -1)
    for label in np.unique(truth):
        known[np.flatnonzero(truth == label)[:each]] = label
    return known


def test_what_arrives_without_the_own_label_is_what_hiding_it_gives() -> None:
    features, truth = blobs(6, 12, apart=0.8)
    graph, known = graph_of(features, "euclidean"), some_known(truth, 4)
    arrived = spread(graph, known)
    for row in np.flatnonzero(known >= 0):
        hidden = known.copy()
        hidden[row] = -1
        alone = spread(graph, hidden)
        own = known[row]
        made_good = np.where(
            alone.labels[row] == own, 4 / 3, 1.0
        )  # the product of a hidden label has three left of four
        expected = alone.amounts[row] * made_good
        order = np.argsort(-expected, kind="stable")
        got = dict(zip(arrived.labels[row].tolist(), arrived.amounts[row].tolist(), strict=True))
        for label, amount in zip(alone.labels[row][order][:3].tolist(), expected[order][:3].tolist(), strict=True):
            assert got[label] == pytest.approx(amount, rel=1e-4)


def test_it_proposes_what_scikit_learn_proposes() -> None:
    from sklearn.semi_supervised import LabelSpreading

    features, truth = blobs(6, 20, apart=0.9)
    graph, known = graph_of(features, "euclidean"), some_known(truth, 4)
    walls = graph.matrix.toarray()
    theirs = LabelSpreading(kernel=lambda a, b=None: walls, alpha=0.8, max_iter=300, tol=1e-6)
    theirs.fit(features, known)
    ours = spread(graph, known)
    open_rows = known < 0
    same = ours.labels[open_rows, 0] == theirs.transduction_[open_rows]
    assert same.mean() > 0.93  # theirs walks on without an end
    assert (ours.labels[open_rows, 0] == truth[open_rows]).mean() > 0.7


@pytest.mark.parametrize("distance", ["cosine", "euclidean", "inner_product"])
def test_odd_images_get_no_nan(distance: Distance) -> None:
    features, truth = blobs(3, 12)
    features[:9] = features[0]  # copies, more than the scale looks at
    features[20:22] = 0
    known = some_known(truth, 3)
    known[15] = 7  # a label of one image
    arrived = spread(graph_of(features, distance), known)
    assert np.isfinite(arrived.amounts).all()
    assert (arrived.amounts >= 0).all()
    assert (np.diff(arrived.amounts, axis=1) <= 0).all()
    assert arrived.given[15] == 0


def test_packed_codes_and_fewer_images_than_neighbours() -> None:
    codes = np.array([[255, 0], [254, 0], [0, 255], [1, 255]], np.uint8)
    arrived = spread(graph_of(codes, "hamming"), np.array([0, -1, 1, -1]))
    assert arrived.labels[[1, 3], 0].tolist() == [0, 1]


def test_many_labels_are_spread_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features, truth = blobs(8, 6)
    graph, known = graph_of(features, "cosine"), some_known(truth, 2)
    whole = spread(graph, known)
    monkeypatch.setattr("retrieval_bench.labelling.spreading._LABELS_AT_ONCE", 3)
    parts = spread(graph, known)
    assert whole.labels.shape == (48, CANDIDATES)
    assert (whole.labels[:, 0] == parts.labels[:, 0]).all()
    np.testing.assert_allclose(whole.amounts, parts.amounts, rtol=1e-5)
    np.testing.assert_allclose(whole.total, parts.total, rtol=1e-5)


def test_without_any_label_nothing_arrives() -> None:
    features, truth = blobs(2, 5)
    arrived = spread(graph_of(features, "cosine"), np.full(len(truth), -1))
    assert (arrived.labels == -1).all()
    assert not arrived.total.any()
