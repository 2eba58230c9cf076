"""Encoders against slow obvious twins and against scikit-learn; nothing to encode is zeros, never NaN."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from retrieval_bench.extractors.local.bow import BagOfWords
from retrieval_bench.extractors.local.codebook import Vocabulary, learn_words
from retrieval_bench.extractors.local.encoders import power_law
from retrieval_bench.extractors.local.fisher import (
    NEGLIGIBLE,
    Fisher,
    _with_squares,
    gathered,
    learn_mixture,
    log_shares,
)
from retrieval_bench.extractors.local.vlad import Vlad
from retrieval_bench.linalg.pca import principal_axes, projected
from retrieval_bench.linalg.rows import unit

ENCODERS = [BagOfWords(8), BagOfWords(8, soft=3), Vlad(8), Vlad(8, intra=False), Fisher(8)]


def descriptors(n: int, seed: int = 0, d: int = 6) -> np.ndarray:
    """(n, d) float32 around five centres; every fifth is a copy of the first."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(5, d))[rng.integers(0, 5, n)] + 0.3 * rng.normal(size=(n, d))
    rows[::5] = rows[:1]
    return rows.astype(np.float32)


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
def test_encoded_vectors_have_length_one_and_nothing_is_zeros(encoder):
    learned = encoder.fit([descriptors(200), descriptors(0), descriptors(50, 1)], seed=0)
    assert set(learned) == set(encoder.learned)
    vector = encoder.encode(descriptors(30, 2), learned)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    nothing = encoder.encode(descriptors(0), learned)
    assert_array_equal(nothing, np.zeros_like(vector))


@pytest.mark.parametrize("encoder", ENCODERS, ids=str)
@pytest.mark.parametrize("sample", ["one", "equal", "fewer", "far"])
def test_poor_samples_give_finite_vectors(encoder, sample):
    """A single descriptor, equal ones, fewer than words; and descriptors far from all that was learned."""
    given = {"one": descriptors(1), "equal": np.ones((40, 6), np.float32), "fewer": descriptors(7)}
    learned = encoder.fit([given.get(sample, descriptors(100))], seed=0)
    scale = 1e4 if sample == "far" else 1.0
    vector = encoder.encode(np.float32(scale) * descriptors(20, 3), learned)
    assert np.isfinite(vector).all()
    assert all(np.isfinite(array).all() for array in learned.values())


def test_bag_of_words_by_hand():
    a, b, c = np.eye(3, dtype=np.float32)
    learned = BagOfWords(10).fit(
        [np.array([a, a, b]), np.array([a, c]), np.empty((0, 3), np.float32), np.array([a])], 0
    )
    assert_array_equal(learned["words"], np.eye(3)[::-1])  # fewer descriptors than words: the distinct ones, sorted
    idf = np.log(1 + 4 / np.array([1, 1, 3]))
    assert_allclose(learned["idf"], idf, rtol=1e-6)
    wanted = np.sqrt([0, 1, 4]) * idf
    found = BagOfWords(10).encode(np.array([a, a, b, a, a]), learned)
    assert_allclose(found, wanted / np.linalg.norm(wanted), rtol=1e-6)


def test_soft_assignment_shares_a_descriptor_out_by_distance():
    words = np.array([[0.0], [1.0], [5.0]], np.float32)
    learned = {"words": words, "idf": np.ones(3, np.float32), "spread": np.ones(1, np.float32)}
    found = BagOfWords(3, soft=2, power=1.0).encode(np.array([[0.25]], np.float32), learned)
    near, far = np.exp(-(0.25**2) / 2), np.exp(-(0.75**2) / 2)
    assert_allclose(found, np.array([near, far, 0]) / np.hypot(near, far), rtol=1e-5)


def test_nearest_words_are_those_of_all_distances():
    words, rows = learn_words(descriptors(300), 20, seed=0), descriptors(100, 4)
    distances = np.linalg.norm(rows[:, None].astype(np.float64) - words[None], axis=2)
    found = Vocabulary(words).nearest(rows, 3)
    assert_array_equal(found.indices, np.argsort(distances, axis=1, kind="stable")[:, :3])
    assert Vocabulary(words[:2]).nearest(rows, 5).indices.shape == (100, 2)


def test_words_do_not_depend_on_the_number_of_threads():
    with threadpool_limits(1):
        one = learn_words(descriptors(3000), 50, seed=0)
    with threadpool_limits(2):
        assert_array_equal(one, learn_words(descriptors(3000), 50, seed=0))
    assert not np.array_equal(one, learn_words(descriptors(3000), 50, seed=1))


@pytest.mark.parametrize("intra", [True, False])
def test_vlad_is_the_sum_of_differences_from_the_nearest_word(intra):
    encoder = Vlad(5, intra=intra)
    learned = encoder.fit([descriptors(200)], seed=0)
    sums = np.zeros((5, 6))
    for row in descriptors(40, 7).astype(np.float64):
        word = np.linalg.norm(learned["words"] - row, axis=1).argmin()
        sums[word] += row - learned["words"][word]
    if intra:
        sums = np.array([line / np.linalg.norm(line) if line.any() else line for line in sums])
    wanted = np.sign(sums.ravel()) * np.sqrt(np.abs(sums.ravel()))
    found = encoder.encode(descriptors(40, 7), learned)
    assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-4)


def whole_shares_of(rows: np.ndarray, *mixture: np.ndarray) -> np.ndarray:
    """(n, g): what each Gaussian has of each descriptor, however little."""
    logs = log_shares(rows, *mixture).astype(np.float64)
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def shares_of(rows: np.ndarray, *mixture: np.ndarray) -> np.ndarray:
    """(n, g): the slow, obvious twin of what the compiled loop makes of the logarithms."""
    shares = whole_shares_of(rows, *mixture)
    shares[shares < NEGLIGIBLE * shares.max(axis=1, keepdims=True)] = 0
    return shares / shares.sum(axis=1, keepdims=True)


def test_shares_are_those_of_scikit_learn():
    weights, means, variances = learn_mixture(descriptors(500), 6, seed=0)
    peer = GaussianMixture(6, covariance_type="diag")
    peer.weights_, peer.means_, peer.covariances_ = (a.astype(np.float64) for a in (weights, means, variances))
    peer.weights_ /= peer.weights_.sum()
    peer.precisions_cholesky_ = 1 / np.sqrt(peer.covariances_)
    rows = descriptors(60, 8)
    assert_allclose(whole_shares_of(rows, weights, means, variances), peer.predict_proba(rows), atol=2e-5)


def test_gaussians_that_have_negligibly_little_of_a_descriptor_have_none():
    """Row by row, as the compiled loop sees it: `mass` of one descriptor is its shares."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((200, 3)).astype(np.float32)
    mixture = tuple(
        array.astype(np.float32)
        for array in (rng.dirichlet(np.ones(12)), rng.standard_normal((12, 3)), rng.uniform(0.1, 2, (12, 3)))
    )
    whole = whole_shares_of(rows, *mixture)
    found = np.array([gathered(row[None], *mixture)[0] for row in rows])
    relative = whole / whole.max(axis=1, keepdims=True)
    assert (relative < NEGLIGIBLE).any(axis=1).sum() > 100
    assert not found[relative < 0.999 * NEGLIGIBLE].any()
    assert (found[relative > 1.001 * NEGLIGIBLE] > 0).all()
    kept = np.where(found > 0, whole, 0)
    assert_allclose(found, kept / kept.sum(axis=1, keepdims=True), rtol=1e-5)
    assert np.abs(found - whole).max() < 12 * NEGLIGIBLE


@pytest.mark.parametrize(("n", "d", "g"), [(1, 1, 1), (300, 12, 1), (300, 3, 40), (70, 33, 9)])
def test_what_is_gathered_is_the_sum_over_shares(n, d, g):
    rng = np.random.default_rng(n + d)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    mixture = (rng.dirichlet(np.ones(g)), rng.standard_normal((g, d)), rng.uniform(0.1, 2, (g, d)))
    weights, means, variances = (array.astype(np.float32) for array in mixture)
    shares = shares_of(rows, weights, means, variances)
    mass, first, second = gathered(rows, weights, means, variances)
    assert_allclose(mass, shares.sum(axis=0), rtol=1e-4, atol=1e-4)
    assert_allclose(first, shares.T @ rows, rtol=1e-3, atol=1e-3)
    assert_allclose(second, shares.T @ (rows.astype(np.float64) ** 2), rtol=1e-3, atol=1e-3)


def test_a_mixture_does_not_depend_on_the_threads():
    rows = np.random.default_rng(0).standard_normal((9000, 6)).astype(np.float32)
    one, three = (learn_mixture(rows, 7, seed=0, threads=threads) for threads in (1, 3))
    for a, b in zip(one, three, strict=True):
        assert_array_equal(a, b)


def test_mixture_is_as_likely_as_that_of_scikit_learn():
    rows = np.delete(descriptors(2000), np.s_[::5], axis=0)  # without the copies of the first
    weights, means, variances = learn_mixture(rows, 5, seed=0)
    ours, theirs = (
        GaussianMixture(5, covariance_type="diag"),
        GaussianMixture(5, covariance_type="diag", random_state=0),
    )
    ours.weights_, ours.means_, ours.covariances_ = weights / weights.sum(), means, variances
    ours.precisions_cholesky_ = 1 / np.sqrt(variances)
    theirs.fit(rows.astype(np.float64))
    assert ours.score(rows) > theirs.score(rows) - 1.0


def test_fisher_vector_is_the_gradient_of_the_likelihood():
    """Against its definition, one descriptor and one Gaussian at a time (Sanchez et al., IJCV 2013, eqs. 16 to 18)."""
    encoder = Fisher(4)
    learned = encoder.fit([descriptors(400)], seed=0)
    weights, means, variances = (learned[name].astype(np.float64) for name in encoder.learned)
    rows = descriptors(25, 9)
    shares = shares_of(rows, *(learned[name] for name in encoder.learned))
    by_means, by_deviations = np.zeros_like(means), np.zeros_like(means)
    for row, share in zip(rows.astype(np.float64), shares, strict=True):
        for g in range(len(means)):
            offset = (row - means[g]) / np.sqrt(variances[g])
            by_means[g] += share[g] * offset / np.sqrt(weights[g])
            by_deviations[g] += share[g] * (offset**2 - 1) / np.sqrt(2 * weights[g])
    wanted = np.concatenate([by_means.ravel(), by_deviations.ravel()]) / len(rows)
    wanted = np.sign(wanted) * np.sqrt(np.abs(wanted))
    assert_allclose(encoder.encode(rows, learned), wanted / np.linalg.norm(wanted), atol=2e-3)


def fisher_vector_by_numpy(rows: np.ndarray, power: float, *mixture: np.ndarray) -> np.ndarray:
    """The plain twin of what the compiled loops make of the sums, in float32 and in the same order."""
    weights, means, variances = mixture
    mass, first, second = gathered(rows, *mixture)
    mass = mass[:, None]
    by_means = (first - mass * means) / np.sqrt(variances * weights[:, None])
    by_deviations = second - 2 * first * means + mass * (means * means - variances)
    by_deviations /= variances * np.sqrt(2 * weights)[:, None]
    gradient = np.concatenate([by_means.ravel(), by_deviations.ravel()]) / len(rows)
    return unit(power_law(gradient, power))


@pytest.mark.parametrize("power", [0.5, 0.3, 1.0])
@pytest.mark.parametrize(("n", "d", "g"), [(1, 1, 1), (300, 12, 1), (1500, 3, 40), (70, 33, 9)])
def test_fisher_vectors_have_the_bits_of_numpy(n, d, g, power):
    rng = np.random.default_rng(n + d)
    mixture = (rng.dirichlet(np.ones(g)), rng.standard_normal((g, d)), rng.uniform(0.1, 2, (g, d)))
    mixture = tuple(array.astype(np.float32) for array in mixture)
    for array in mixture:
        array.setflags(write=False)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    rows[: n // 2] = mixture[1][0]  # no gradient by the means
    encoder = Fisher(g, power=power)
    found = encoder.encode(rows, dict(zip(encoder.learned, mixture, strict=True)))
    wanted = fisher_vector_by_numpy(rows, power, *mixture)
    assert_array_equal(found, wanted)
    assert_array_equal(np.signbit(found), np.signbit(wanted))


def test_another_mixture_gives_another_vector():
    """What was found once for a mixture is not taken for a second one of the same shape."""
    rows, encoder = descriptors(30, 2), Fisher(4)
    for seed in (0, 1, 0):
        learned = encoder.fit([descriptors(200, seed)], seed)
        wanted = fisher_vector_by_numpy(rows, 0.5, *(learned[name] for name in encoder.learned))
        assert_array_equal(encoder.encode(rows, learned), wanted)


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (7, 24), (3, 33)])
def test_rows_and_their_squares_have_the_bits_of_numpy(shape):
    rows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert_array_equal(_with_squares(rows), np.concatenate([rows, rows * rows], axis=1))


@pytest.mark.parametrize(("n", "d"), [(200, 12), (9, 40)])
def test_principal_axes_are_those_of_scikit_learn(n, d):
    rows = (np.random.default_rng(n).normal(size=(n, d)) * np.arange(1, d + 1)).astype(np.float32)
    mean, axes = principal_axes(rows, 5)
    peer = PCA(5, svd_solver="full").fit(rows.astype(np.float64))
    assert_allclose(mean, peer.mean_, atol=1e-5)
    assert_allclose(np.abs(axes.T @ peer.components_.T), np.eye(5), atol=1e-4)
    assert_allclose(np.abs(projected(rows, mean, axes)), np.abs(peer.transform(rows)), atol=1e-2)
    whitened = projected(rows, *principal_axes(rows, 5, whiten=1.0))
    assert_allclose(whitened.std(axis=0), 1, rtol=1e-3)


def test_principal_axes_of_little():
    for rows in (np.ones((5, 3), np.float32), np.ones((1, 3), np.float32), np.eye(3, dtype=np.float32)[:2]):
        mean, axes = principal_axes(rows, 8, whiten=0.5)
        assert axes.shape == ((3, 1) if np.ptp(rows, axis=0).any() else (3, 3))
        assert np.isfinite(projected(rows, mean, axes)).all()


def test_unit_and_power_law():
    assert_array_equal(unit(np.zeros(3)), np.zeros(3, np.float32))
    assert_allclose(unit(np.array([3e-30, 4e-30])), [0.6, 0.8], rtol=1e-6)
    assert_allclose(power_law(np.array([-4.0, 0.0, 9.0]), 0.5), [-2, 0, 3])
