"""Classifiers: each against its plain scikit-learn twin, and all of them on what features can look like."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from retrieval_bench.classifiers import fit_classifier, judge_classifier, linear
from retrieval_bench.classifiers.model_selection import chosen, hold_out
from retrieval_bench.classifiers.preprocessing import Scale, unit
from retrieval_bench.core import BenchError
from retrieval_bench.linalg.blocked import blocked_principal_axes, blocked_projection, corner, gram, mixed
from retrieval_bench.registry import CLASSIFIERS

NAMES = [entry.name for entry in CLASSIFIERS.own()]
every = pytest.mark.parametrize("name", NAMES)


def flowers(seed: int, each: int = 12, labels: int = 5, d: int = 24, noise: float = 0.25, steps: tuple[int, ...] = ()):
    """(n, d) float32 around one centre a label, and their labels 0, 2, 4, ...; the centres are those of seed 0."""
    centres = np.random.default_rng(0).normal(size=(labels, d))
    random = np.random.default_rng([1, seed])
    places = np.repeat(np.arange(labels), steps or each)
    return (centres[places] + noise * random.normal(size=(len(places), d))).astype(np.float32), places * 2


def scaled(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """What Scale is to do, in float64: rows of length 1, the mean of train at 0, its mean squared length 1."""
    rows = [np.float64(each) / np.linalg.norm(np.float64(each), axis=1, keepdims=True) for each in (train, *others)]
    mean = rows[0].mean(axis=0)
    length = np.sqrt(np.square(rows[0] - mean).sum(axis=1).mean())
    return [(each - mean) / length for each in rows]


def test_the_five_of_them():
    assert sorted(NAMES) == ["knn", "logistic", "mlp", "svm", "tree"]


@every
@pytest.mark.parametrize("d", [6, 24, 300])
def test_learns_what_can_be_told_apart(name, d):
    features, labels = flowers(0, d=d, noise=0.1)
    asked, right = flowers(1, d=d, noise=0.1)
    head = fit_classifier(name, features, labels, seed=0, threads=2)
    assert head.classes.tolist() == [0, 2, 4, 6, 8]
    assert head.classes.dtype == np.int64
    scores = head.scores(asked)
    assert scores.shape == (60, 5)
    assert scores.dtype == np.float64
    predicted = head.predict(asked)
    np.testing.assert_array_equal(predicted, head.classes[scores.argmax(axis=1)])
    assert (predicted == right).mean() >= 0.95


@pytest.mark.slow(reason="learns each classifier several times")
@every
@pytest.mark.parametrize("d", [24, 1100])
def test_same_bits_for_every_number_of_threads_and_every_run(name, d):
    features, labels = flowers(0, d=d, each=120 if d > 1000 else 12, noise=1.0)
    asked, _ = flowers(1, d=d, noise=1.0)
    one, two, three = (fit_classifier(name, features, labels, seed=3, threads=threads) for threads in (1, 2, 3))
    np.testing.assert_array_equal(one.scores(asked), two.scores(asked))
    np.testing.assert_array_equal(one.scores(asked), three.scores(asked))
    assert dict(one.chosen) == dict(two.chosen) == dict(three.chosen)


@pytest.mark.parametrize("name", ["tree", "mlp"])
def test_another_seed_is_another_head(name):
    features, labels = flowers(0, noise=1.5)
    asked, _ = flowers(1, noise=1.5)
    first, second = (fit_classifier(name, features, labels, seed=seed, threads=1).scores(asked) for seed in (0, 1))
    assert (first != second).any()


@every
def test_arguments_are_left_as_they_were(name):
    features, labels = flowers(0)
    before = features.copy(), labels.copy()
    head = fit_classifier(name, features, labels, seed=0, threads=1)
    head.scores(features)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert all(isinstance(value, (bool, int, float, str, list)) for value in head.chosen.values())


@pytest.mark.parametrize("d", [10, 200])
@pytest.mark.parametrize("labels", [2, 5])
def test_svm_equals_scikit_learns_on_the_rows(d, labels):
    features, right = flowers(0, d=d, labels=labels, noise=1.0)
    asked, _ = flowers(1, d=d, labels=labels, noise=1.0)
    head = fit_classifier("svm", features, right, seed=0, threads=2)
    rows, points = scaled(features, asked)
    scores = head.scores(asked)
    for column, label in enumerate(head.classes):
        twin = SVC(C=head.chosen["C"], kernel="linear", tol=1e-6).fit(rows, right == label)
        np.testing.assert_allclose(scores[:, column], twin.decision_function(points), atol=1e-2)


def test_svm_of_many_rows_equals_liblinear(monkeypatch):
    monkeypatch.setattr(linear, "GRAM_ROWS", 50)
    monkeypatch.setattr(linear, "_ITERATIONS", 100_000)
    features, right = flowers(0, d=10, noise=0.5)
    asked, _ = flowers(1, d=10, noise=0.5)
    head = fit_classifier("svm", features, right, seed=0, threads=2)
    rows, points = scaled(features, asked)
    twin = LinearSVC(C=1.0, loss="hinge", dual=True, max_iter=100_000, random_state=1).fit(rows, right)
    assert head.chosen == {"C": 1.0, "solver": "liblinear", "converged": True}
    np.testing.assert_allclose(head.scores(asked), twin.decision_function(points), atol=1e-2)


def test_a_solver_that_gives_up_says_so(monkeypatch):
    monkeypatch.setattr(linear, "GRAM_ROWS", 50)
    monkeypatch.setattr(linear, "_ITERATIONS", 2)
    features, right = flowers(0, noise=2.0)
    assert fit_classifier("svm", features, right, seed=0, threads=1).chosen["converged"] is False
    assert fit_classifier("logistic", features, right, seed=0, threads=1).chosen["converged"] is False


@pytest.mark.parametrize("d", [10, 200])
@pytest.mark.parametrize("labels", [2, 5])
def test_logistic_equals_scikit_learns_on_the_rows(d, labels):
    features, right = flowers(0, d=d, labels=labels, noise=1.0)
    asked, _ = flowers(1, d=d, labels=labels, noise=1.0)
    head = fit_classifier("logistic", features, right, seed=0, threads=2)
    rows, points = scaled(features, asked)
    twin = LogisticRegression(C=head.chosen["C"], max_iter=300).fit(rows, right)
    scores = head.scores(asked)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), twin.predict_proba(points), atol=2e-3)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_knn_equals_scikit_learns(k):
    """Where the vote is decided: of equal votes scikit-learn takes the lower label, we the nearer."""
    features, right = flowers(0, each=k if k < 9 else 12, noise=2.0)
    asked, _ = flowers(1, each=40, noise=2.0)
    head = fit_classifier("knn", features, right, seed=0, threads=2)
    assert head.chosen == {"neighbours": k, "distance": "cosine"}
    twin = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(features, right)
    shares = twin.predict_proba(asked)
    decided = (shares == shares.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert decided.sum() > 50
    np.testing.assert_array_equal(head.predict(asked)[decided], twin.predict(asked)[decided])
    np.testing.assert_array_equal(np.floor(head.scores(asked)), np.round(shares * k))


def test_knn_of_equal_votes_takes_the_nearest():
    features = np.float32([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3]])
    head = fit_classifier("knn", features, np.array([5, 3, 3, 5]), seed=0, threads=1)
    assert head.chosen["neighbours"] == 2
    assert head.predict(np.float32([[1, 0.0]])).tolist() == [5]
    assert head.predict(np.float32([[1, 0.16]])).tolist() == [3]


@pytest.mark.parametrize("name", ["svm", "logistic", "tree", "mlp", "knn"])
@pytest.mark.parametrize("factor", [1e-38, 1e-20, 1e20, 3e37])
def test_length_does_not_matter(name, factor):
    features, labels = flowers(0)
    asked, right = flowers(1)
    head = fit_classifier(name, features * np.float32(factor), labels, seed=0, threads=1)
    assert (head.predict(asked * np.float32(factor)) == right).mean() >= 0.95


@every
@pytest.mark.parametrize("d", [1, 3, 40])
def test_one_image_a_label(name, d):
    features = np.random.default_rng(0).normal(size=(6, d)).astype(np.float32)
    head = fit_classifier(name, features, np.arange(6) * 3, seed=0, threads=2)
    assert head.scores(features).shape == (6, 6)
    if d == 40 and name != "mlp":
        assert head.predict(features).tolist() == [0, 3, 6, 9, 12, 15]


@every
@pytest.mark.parametrize("steps", [(1, 1), (1, 9), (2, 5), (30, 30)])
def test_two_labels(name, steps):
    features, labels = flowers(0, labels=2, steps=steps, noise=0.05)
    head = fit_classifier(name, features, labels, seed=0, threads=2)
    assert head.scores(features).shape == (sum(steps), 2)
    if name == "knn":
        head.scores(features)
    elif sum(steps) > 6:
        assert (head.predict(features) == labels).all()


@every
@pytest.mark.parametrize("kind", ["all zero", "all equal", "some zero", "one column", "duplicates", "one apart"])
def test_what_features_can_look_like(name, kind):
    features, labels = flowers(0)
    if kind == "all zero":
        features[:] = 0
    elif kind == "all equal":
        features[:] = features[0]
    elif kind == "some zero":
        features[::3] = 0
    elif kind == "one column":
        features = np.ascontiguousarray(features[:, :1])
    elif kind == "duplicates":
        features = features[np.zeros(60, np.int64) + np.repeat([0, 12, 24], 20)]
    else:
        features[1:] = features[1]
    asked = np.concatenate([np.zeros_like(features[:1]), flowers(1)[0][:, : features.shape[1]]])
    head = fit_classifier(name, features, labels, seed=0, threads=2)
    assert np.isfinite(head.scores(asked)).all()
    assert np.isin(head.predict(asked), labels).all()
    assert head.scores(asked[:0]).shape == (0, 5)


@every
def test_packed_codes(name):
    features, labels = flowers(0, d=64)
    asked, right = flowers(1, d=64)
    codes, queries = (np.packbits(rows > 0, axis=1) for rows in (features, asked))
    head = fit_classifier(name, codes, labels, seed=0, threads=1, bits=True)
    assert (head.predict(queries) == right).mean() > 0.8
    signs = [np.float32(np.unpackbits(each, axis=1)) * 2 - 1 for each in (codes, queries)]
    twin = fit_classifier(name, signs[0], labels, seed=0, threads=1)
    np.testing.assert_allclose(head.scores(queries), twin.scores(signs[1]), atol=0.05)


def test_bad_input_is_one_sentence():
    features, labels = flowers(0)
    with pytest.raises(BenchError, match=r"'forest'.*knn"):
        fit_classifier("forest", features, labels, seed=0, threads=1)
    with pytest.raises(BenchError, match=r"all train images have one label; .* at least two labels"):
        fit_classifier("svm", features, np.full(60, 4), seed=0, threads=1)
    with pytest.raises(BenchError, match="the train split holds no image"):
        fit_classifier("svm", features[:0], labels[:0], seed=0, threads=1)
    for bad in (np.nan, np.inf):
        wrong = features.copy()
        wrong[7, 2] = bad
        with pytest.raises(BenchError, match="features of train image 7 are not finite"):
            fit_classifier("svm", wrong, labels, seed=0, threads=1)
        with pytest.raises(BenchError, match="features of query image 7 are not finite"):
            fit_classifier("knn", features, labels, seed=0, threads=1).scores(wrong)


@pytest.mark.parametrize("bits", [False, True])
def test_our_own_mistakes_keep_their_traceback(bits):
    features, labels = flowers(0)
    features = np.packbits(features > 0, axis=1) if bits else features

    def fit(rows: np.ndarray, places: np.ndarray = labels, threads: int = 1):
        return fit_classifier("knn", rows, places, seed=0, threads=threads, bits=bits)

    with pytest.raises(ValueError, match="labels have shape"):
        fit(features, labels[1:])
    with pytest.raises(ValueError, match="features are"):
        fit(features[0])
    with pytest.raises(ValueError, match="features are"):
        fit(features[:, :0])
    with pytest.raises(ValueError, match="features are"):
        fit(features.astype(np.int64))
    with pytest.raises(ValueError, match="must be at least 1"):
        fit(features, threads=0)
    with pytest.raises(ValueError, match="learned from rows of"):
        fit(features).scores(features[:, 1:])


@pytest.mark.parametrize("labels", [[0.5, 1.2, 1.7, 0.1], [0, 1, np.nan, 0], [0, 1, -1, 0], ["0", "1", "1", "0"]])
def test_labels_that_a_cast_would_change_are_refused(labels):
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=r"labels .* expected whole numbers from 0"):
        fit_classifier("knn", rows, labels, seed=0, threads=1)
    with pytest.raises(ValueError, match=r"expected labels .* expected whole numbers from 0"):
        judge_classifier(labels, np.eye(4)[:, :2], [0, 1])


def test_hidden_values_are_not_read():
    rows, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 1, 0])
    hidden = np.ma.masked_array(rows, rows > 0), np.ma.masked_array(labels, labels > 0)
    for given in ((hidden[0], labels), (rows, hidden[1])):
        with pytest.raises(BenchError, match="is a masked array"):
            fit_classifier("knn", *given, seed=0, threads=1)
    with pytest.raises(BenchError, match="query features is a masked array"):
        fit_classifier("knn", rows, labels, seed=0, threads=1).scores(hidden[0])


def test_hold_out_takes_a_quarter_of_each_label_and_leaves_it_some():
    places = np.repeat([0, 1, 2, 3], [1, 2, 8, 11])
    kept, held = hold_out(places, 5)
    assert np.bincount(places[held], minlength=4).tolist() == [0, 1, 2, 2]
    assert sorted([*kept, *held]) == list(range(22))
    np.testing.assert_array_equal(held, hold_out(places, 5)[1])
    assert any((hold_out(places, 5)[1] != hold_out(places, seed)[1]).any() for seed in range(3))
    assert len(hold_out(np.arange(4), 0)[1]) == 0


def test_the_first_of_the_best_is_chosen():
    assert chosen("C", (1.0, 3.0, 10.0), [0.5, 0.7, 0.7], 1.0)["C"] == 3.0
    assert chosen("C", (1.0, 3.0), [], 10.0) == {"C": 10.0, "tried": [], "held_out_accuracy": []}


@pytest.mark.parametrize("shape", [(30, 700), (1300, 40)])
def test_rows_and_their_products(shape):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows = unit(features, bits=False)
    np.testing.assert_allclose(rows, features / np.linalg.norm(features, axis=1, keepdims=True), rtol=1e-6)
    rows = Scale.of(rows).apply(rows)
    np.testing.assert_allclose(rows, scaled(features)[0], atol=2e-6)
    inner = gram(rows, 2)
    np.testing.assert_allclose(inner, np.float64(rows) @ rows.T, atol=1e-5)
    np.testing.assert_array_equal(inner, inner.T)
    lower = corner(inner)
    np.testing.assert_allclose(lower @ lower.T, inner, atol=1e-4)
    np.testing.assert_array_equal(lower, np.tril(lower))
    weights = np.random.default_rng(1).normal(size=(3, len(rows)))
    np.testing.assert_allclose(mixed(weights, rows), weights @ np.float64(rows), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(30, 700), (1300, 40)])
@pytest.mark.slow(reason="wide arrays")
def test_principal_axes_equal_those_of_the_singular_values(shape):
    random = np.random.default_rng(0)
    rows = (random.normal(size=shape) * np.geomspace(1, 0.01, shape[1])).astype(np.float32)
    rows -= rows.mean(axis=0)
    basis = blocked_principal_axes(rows, 2, 8)
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-4)
    _, _, axes = np.linalg.svd(np.float64(rows), full_matrices=False)
    np.testing.assert_allclose(np.abs(np.sum(axes[:8].T * basis, axis=0)), 1, atol=1e-4)
    np.testing.assert_allclose(blocked_projection(rows, basis, 2), rows @ basis, atol=1e-5)
    assert blocked_principal_axes(np.zeros((4, 6), np.float32), 1, 3).tolist() == [[0.0]] * 6
    assert blocked_principal_axes(np.zeros((6, 4), np.float32), 1, 3).tolist() == [[0.0]] * 4


def test_one_photo_a_product_is_no_warning():
    """Labels of a catalogue are many, which scikit-learn takes for a regression: a warning fails this test."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 8)).astype(np.float32)
    assert len(fit_classifier("logistic", rows, np.arange(40), seed=0, threads=1).classes) == 40
