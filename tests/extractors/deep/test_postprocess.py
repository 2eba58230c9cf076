"""What is done to vectors after pooling: learned from train alone, and honest about what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.deep.postprocess import PostProcess, itq_rotation


def rows(n: int = 60, d: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    return (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)


def applied(after: PostProcess, train: np.ndarray, some: np.ndarray) -> np.ndarray:
    learned = after.fit(train)
    assert tuple(learned) == after.learned
    out = np.stack([after.apply(row, learned) for row in some])
    assert out.shape[1] == after.width(some.shape[1], learned)
    assert out.dtype == after.dtype
    return out


def test_nothing_asked_nothing_done() -> None:
    after = PostProcess()
    assert after.learned == ()
    np.testing.assert_array_equal(applied(after, rows(), rows(seed=1)), rows(seed=1))


def test_whitening_is_that_of_scikit_learn() -> None:
    train, some = rows(), rows(seed=1)
    judge = PCA(5, whiten=True).fit(train.astype(np.float64)).transform(some)
    judge /= np.linalg.norm(judge, axis=1, keepdims=True)
    ours = applied(PostProcess(whiten=5), train, some)
    np.testing.assert_allclose(ours * np.sign(ours[0]) * np.sign(judge[0]), judge, rtol=1e-3, atol=1e-4)


def test_level_0_leaves_the_lengths_of_the_axes() -> None:
    train, some = rows(), rows(seed=1)
    judge = PCA(5).fit(train.astype(np.float64)).transform(some)
    ours = applied(PostProcess(whiten=5, level=0.0), train, some)
    judge /= np.linalg.norm(judge, axis=1, keepdims=True)
    np.testing.assert_allclose(ours @ ours.T, judge @ judge.T, atol=1e-4)


def test_centring_subtracts_the_mean_of_train() -> None:
    train, some = rows(), rows(seed=1)
    wanted = some - train.mean(axis=0)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(applied(PostProcess(centre=True), train, some), wanted, rtol=1e-4, atol=1e-6)


def test_the_power_law_comes_first() -> None:
    some = rows(seed=1)
    wanted = np.sign(some) * np.abs(some) ** 0.5
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(applied(PostProcess(power=0.5), rows(), some), wanted, rtol=1e-4, atol=1e-6)


def test_float16_and_int8_point_where_float32_points() -> None:
    train, some = rows(), rows(seed=1)
    exact = applied(PostProcess(whiten=8), train, some)
    for kept, most in (("float16", 1e-6), ("int8", 1e-3)):
        kept_rows = applied(PostProcess(whiten=8, kept=kept), train, some).astype(np.float64)
        cosine = (kept_rows * exact).sum(axis=1) / np.linalg.norm(kept_rows, axis=1)
        assert (cosine > 1 - most).all()
    codes = applied(PostProcess(kept="int8"), train, some)
    assert (np.abs(codes.astype(int)).max(axis=1) == 127).all()


def test_bits_are_the_signs_of_the_rotated_components() -> None:
    train, some = rows(), rows(seed=1)
    after = PostProcess(whiten=10, level=0.0, kept="bits")
    learned = after.fit(train)
    assert after.distance == "hamming"
    turned = (some - learned["mean_"]) @ learned["axes_"] @ learned["rotation_"]
    np.testing.assert_array_equal(
        np.unpackbits(applied(after, train, some), axis=1)[:, :10], (turned >= 0).astype(np.uint8)
    )


def test_the_rotation_is_one_and_loses_less_than_a_random_one() -> None:
    components = rows(200, 8) * np.linspace(3, 0.3, 8, dtype=np.float32)
    components -= components.mean(axis=0)
    rotation = itq_rotation(components, 0).astype(np.float64)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(8), atol=1e-5)

    def lost(turned: np.ndarray) -> float:
        return float(np.square(np.where(turned >= 0, 1, -1) - turned).sum())

    drawn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))
    assert lost(components @ rotation) < lost(components @ drawn)


@pytest.mark.parametrize("kept", ["float32", "float16", "int8"])
@pytest.mark.parametrize("options", [{}, {"whiten": 4}, {"centre": True}, {"power": 0.5}])
def test_a_row_of_zeros_stays_one(kept: str, options: dict) -> None:
    out = applied(PostProcess(kept=kept, **options), rows(), np.zeros((1, 12), np.float32))
    assert not out.any()


def test_equal_training_rows_are_survived() -> None:
    same = np.repeat(rows(1), 5, axis=0)
    for after in (PostProcess(whiten=4), PostProcess(whiten=4, kept="bits"), PostProcess(centre=True, kept="int8")):
        assert np.isfinite(applied(after, same, rows(seed=1))).all()


@pytest.mark.parametrize("options", [{}, {"whiten": 16}, {"centre": True, "power": 0.8}])
def test_a_head_gives_the_class_scores_of_logistic_regression(options: dict) -> None:
    """Images of a label are near each other in the scores, although the vector is mostly about something else."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 4
    noise = random.normal(size=(240, 16)) * np.linspace(3, 0.2, 16)
    noise[:, -4:] += 2 * np.eye(4)[np.tile(labels, 2)]
    train, asked = noise[:120].astype(np.float32), noise[120:].astype(np.float32)
    after = PostProcess(tune="head", **options)
    learned = after.fit(train, labels)
    assert set(learned) == set(after.learned)
    scores = np.stack([after.apply(row, learned) for row in asked])
    assert scores.shape == (120, after.width(16, learned)) == (120, 4)
    np.testing.assert_allclose(np.linalg.norm(scores, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scores.sum(axis=1), 0, atol=1e-5)
    assert np.mean(scores.argmax(axis=1) == labels) > 0.9

    def nearest(rows: np.ndarray) -> float:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -2)
        return float(np.mean(labels[similarity.argmax(axis=1)] == labels))

    assert nearest(scores) > nearest(asked) + 0.2


def test_a_head_needs_two_labels() -> None:
    with pytest.raises(BenchError, match="at least two labels"):
        PostProcess(tune="head").fit(rows(), np.zeros(len(rows()), np.int64))
