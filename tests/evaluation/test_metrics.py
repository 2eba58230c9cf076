"""Every metric: computed by hand, and against scikit-learn, trec_eval and pytorch-metric-learning."""

import inspect
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from retrieval_bench.core import Judged, Ranking
from retrieval_bench.evaluation.metrics import (
    GRADED,
    ceilings,
    class_means_of,
    class_weights,
    describe,
    left_out,
    per_query,
    scores,
)
from retrieval_bench.evaluation.relevance import count_relevant, judge
from retrieval_bench.records.schema import MetricFacts
from retrieval_bench.registry import METRICS

KS = (1, 3, 10)


def metric(name: str, judged: Judged, k: int | None = None) -> np.ndarray:
    return METRICS[name].build(judged, k)


@pytest.fixture
def by_hand() -> Judged:
    """Label 7 at ranks 1 and 4, third never among the five; label 8 first at rank 2, alone; label 9 at rank 7 only."""
    return Judged(
        expected=np.array([7, 8, 9]),
        retrieved=np.array([[7, 8, 8, 7, 9], [7, 8, 7, 9, -1], [7, 7, 8, 8, -1]]),
        n_relevant=np.array([3, 1, 1]),
        relevant_ranks=np.array([[0, 3, 9], [1, -1, -1], [6, -1, -1]]),
    )


def test_by_hand(by_hand):
    assert_allclose(metric("accuracy", by_hand), [1, 0, 0])
    assert_allclose(metric("hit_rate", by_hand, 1), [1, 0, 0])
    assert_allclose(metric("hit_rate", by_hand, 5), [1, 1, 0])
    assert_allclose(metric("precision", by_hand, 4), [2 / 4, 1 / 4, 0])
    assert_allclose(metric("recall", by_hand, 4), [2 / 3, 1, 0])
    assert_allclose(metric("f1", by_hand, 4), [2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3), 2 * (1 / 4) / (1 / 4 + 1), 0])
    assert_allclose(metric("map@r", by_hand), [1 / 3, 0, 0])
    assert_allclose(metric("map", by_hand), [(1 + 2 / 4 + 3 / 10) / 3, 1 / 2, 1 / 7])
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert_allclose(metric("ndcg", by_hand, 4), [(1 + 1 / math.log2(5)) / ideal, 1 / math.log2(3), 0])
    assert_allclose(metric("ndcg", by_hand, 1), [1, 0, 0])
    assert_allclose(metric("mrr", by_hand), [1, 1 / 2, 1 / 7])


def test_f1_ceiling_with_four_relevant_and_ten_places():
    perfect = Judged(np.array([5]), np.array([[5] * 4 + [6] * 6]), np.array([4]), np.arange(4)[None])
    assert metric("f1", perfect, 10)[0] == pytest.approx(0.571, abs=5e-4)
    whole = {"accuracy", "map@r", "map", "mrr"}
    assert {name: value for name, value in scores(perfect, [4]).items() if value != 1.0} == {}
    assert whole <= set(scores(perfect, [4]))


def test_vote_by_hand():
    judged = Judged(
        expected=np.array([1, 2, 4, 4, 2]),
        retrieved=np.array(
            [
                [2, 1, 1, 2, 3],  # 2 and 1 twice each: 2 stands nearer
                [1, 2, 2, 3, 3],  # 2 stands nearer than 3
                [4, 4, -1, -1, -1],  # padding does not vote
                [-1, -1, -1, -1, -1],  # nothing retrieved: a wrong answer
                [9, 9, 9, 2, 2],  # a label that no query has
            ]
        ),
        n_relevant=np.full(5, 2),
    )
    assert_array_equal(metric("knn_accuracy", judged, 5), [0, 1, 1, 0, 0])
    assert_array_equal(metric("knn_accuracy", judged, 3), [1, 1, 1, 0, 0])
    assert_array_equal(metric("knn_accuracy", judged, 1), metric("accuracy", judged))
    # Votes at 5: 2, 2, 4, none, 9. Right, predicted, expected: label 1: 0, 0, 1; label 2: 1, 2, 2; label 4: 1, 1, 2.
    assert metric("macro_precision", judged, 5) == pytest.approx((0 + 1 / 2 + 1) / 3)
    assert metric("macro_recall", judged, 5) == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)
    assert metric("macro_f1", judged, 5) == pytest.approx((0 + 2 / 4 + 2 / 3) / 3)


def random_case(seed: int, q: int = 40, n: int = 60, labels: int = 9) -> tuple[Judged, np.ndarray]:
    """Judgements of random rankings of a whole gallery, unevenly labelled, and (q, n) bool relevance in rank order."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, labels + 1)
    gallery = np.concatenate([np.arange(labels), rng.choice(labels, n - labels, p=weights / weights.sum())])
    expected = rng.integers(0, labels, q)
    # Some order in the disorder, or every number would be near zero.
    wish = rng.random((q, n)) - 0.3 * (gallery == expected[:, None])
    order = np.argsort(wish, axis=1)
    relevant = gallery[order] == expected[:, None]
    ranks = np.full((q, relevant.sum(axis=1).max()), -1)
    for query, row in enumerate(relevant):
        ranks[query, : row.sum()] = np.flatnonzero(row)
    ranking = Ranking(order, np.sort(wish, axis=1).astype(np.float32))
    return judge(expected, gallery, ranking, count_relevant(expected, gallery), ranks), relevant


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed):
    from sklearn import metrics as sk

    judged, relevant = random_case(seed)
    n = relevant.shape[1]
    falling = -np.arange(n, dtype=float)
    assert_allclose(metric("map", judged), [sk.average_precision_score(row, falling) for row in relevant])
    assert metric("accuracy", judged).mean() == sk.accuracy_score(judged.expected, judged.retrieved[:, 0])
    for k in KS:
        chosen = np.arange(n) < k
        for name, judge_of in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            assert_allclose(metric(name, judged, k), [judge_of(row, chosen, zero_division=0) for row in relevant])
        assert_allclose(metric("ndcg", judged, k), [sk.ndcg_score([row], [falling], k=k) for row in relevant])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", KS)
def test_votes_against_scikit_learn(seed, k):
    from sklearn import metrics as sk

    judged, _ = random_case(seed)
    judged = judged.take(np.flatnonzero(judged.expected != 0))  # label 0, the most frequent, is found but never asked
    votes = []
    for row in judged.retrieved[:, :k].tolist():
        votes.append(max(sorted(set(row), key=row.index), key=row.count))
    assert 0 in votes
    options = {"labels": np.unique(judged.expected), "average": "macro", "zero_division": 0}
    assert metric("macro_precision", judged, k) == pytest.approx(sk.precision_score(judged.expected, votes, **options))
    assert metric("macro_recall", judged, k) == pytest.approx(sk.recall_score(judged.expected, votes, **options))
    assert metric("macro_f1", judged, k) == pytest.approx(sk.f1_score(judged.expected, votes, **options))
    assert metric("knn_accuracy", judged, k).mean() == pytest.approx(sk.accuracy_score(judged.expected, votes))


def test_odd_votes_against_nearest_neighbour_classifier():
    """Two labels and an odd k leave no ties, so that scikit-learn's own rule for them does not matter."""
    from sklearn import neighbors

    rng = np.random.default_rng(0)
    gallery, queries = rng.standard_normal((50, 3)), rng.standard_normal((30, 3))
    labels, expected = rng.integers(0, 2, 50), rng.integers(0, 2, 30)
    order = np.argsort(((queries[:, None] - gallery) ** 2).sum(axis=2), axis=1)
    judged = Judged(expected, labels[order], count_relevant(expected, labels))
    for k in (1, 3, 7):
        right = neighbors.KNeighborsClassifier(k).fit(gallery, labels).predict(queries) == expected
        assert_array_equal(metric("knn_accuracy", judged, k), right)


def trec(relevant: np.ndarray) -> tuple[dict, dict]:
    """The same rankings as trec_eval's dictionaries; score = -rank, since libraries order ties differently."""
    qrels = {f"q{q}": {f"d{rank}": int(hit) for rank, hit in enumerate(row)} for q, row in enumerate(relevant)}
    run = {f"q{q}": {f"d{rank}": -float(rank) for rank in range(len(row))} for q, row in enumerate(relevant)}
    return qrels, run


@pytest.mark.parametrize("seed", range(3))
def test_against_trec_eval(seed):
    ir = pytest.importorskip("ir_measures", reason="ir_measures comes with the development tools")
    judged, relevant = random_case(seed)
    ours = {ir.AP: metric("map", judged), ir.RR: metric("mrr", judged), ir.P @ 1: metric("accuracy", judged)}
    for k in KS:
        ours |= {
            ir.P @ k: metric("precision", judged, k),
            ir.R @ k: metric("recall", judged, k),
            ir.Success @ k: metric("hit_rate", judged, k),
            ir.nDCG @ k: metric("ndcg", judged, k),
        }
    theirs = {measure: np.zeros(len(judged)) for measure in ours}
    for value in ir.iter_calc(list(ours), *trec(relevant)):
        theirs[value.measure][int(value.query_id[1:])] = value.value
    for measure in ours:
        assert_allclose(ours[measure], theirs[measure], atol=1e-12, err_msg=str(measure))


@pytest.mark.parametrize("seed", range(3))
def test_against_pytorch_metric_learning(seed):
    calculator = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator", reason='needs pip install "retrieval-bench[train]"'
    )
    import torch

    judged, _ = random_case(seed)
    # Its search is replaced by the ranking itself: the gallery is renamed for each query, so one query at a time.
    ours = {
        "precision_at_1": metric("accuracy", judged),
        "mean_average_precision_at_r": metric("map@r", judged),
        "mean_average_precision": metric("map", judged),
        "mean_reciprocal_rank": metric("mrr", judged),
    }
    for query in range(len(judged)):

        def as_ranked(asked, k, reference, includes_query):
            return torch.arange(k)[None].float(), torch.arange(k)[None]

        theirs = {}
        for k, include in (("max_bin_count", list(ours)[:2]), (None, list(ours)[2:])):
            judge_of = calculator.AccuracyCalculator(
                include=include, k=k, knn_func=as_ranked, device=torch.device("cpu")
            )
            labels = torch.tensor(judged.retrieved[query])
            theirs |= judge_of.get_accuracy(
                torch.zeros(1, 2), torch.tensor(judged.expected[[query]]), torch.zeros(len(labels), 2), labels, False
            )
        for name, values in ours.items():
            assert theirs[name] == pytest.approx(values[query], abs=1e-6), (name, query)


def test_scores_are_flat_finite_and_complete():
    judged, _ = random_case(0)
    flat = scores(judged, KS)
    expected = set()
    for entry in (entry for entry in METRICS.own() if entry.name not in GRADED):
        expected |= {f"{entry.name}@{k}" for k in KS} if entry.facts["at_k"] else {entry.name}
    assert set(flat) == expected
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in flat.values())
    assert next(iter(flat)) == "accuracy"
    json.dumps(flat, allow_nan=False)


def test_per_query_values_average_to_the_scores():
    judged, _ = random_case(0)
    flat, single = scores(judged, KS), per_query(judged, KS)
    votes = {f"macro_{name}@{k}" for name in ("precision", "recall", "f1") for k in KS}
    assert set(flat) - set(single) == votes | class_means_of(single).keys()
    for name, values in single.items():
        assert values.shape == (len(judged),)
        assert values.dtype == np.float64
        assert flat[name] == values.mean()


def test_class_means_weigh_every_label_the_same():
    """Label 0: recall 1/2 and 1; label 7: recall 0. Over queries that is 1/2, over labels (3/4 + 0) / 2."""
    judged = Judged(np.array([0, 7, 0]), np.array([[0, 7, 0], [0, 0, 7], [0, 0, 7]]), np.array([2, 1, 2]))
    assert metric("recall", judged, 2).mean() == 0.5
    assert metric("class_mean_recall", judged, 2) == 0.375
    assert metric("map@r", judged).tolist() == [0.5, 0.0, 1.0]
    assert metric("class_mean_map@r", judged) == 0.375


@pytest.mark.parametrize("seed", range(3))
def test_class_means_are_weighted_means_of_the_query_values(seed):
    judged, _ = random_case(seed)
    flat, single = scores(judged, KS), per_query(judged, KS)
    names = class_means_of(single)
    assert names == {f"class_mean_{of}": of for of in (*(f"recall@{k}" for k in KS), "map@r")}
    for name, of in names.items():
        labels = np.unique(judged.expected)
        by_label = [single[of][judged.expected == label].mean() for label in labels]
        assert flat[name] == pytest.approx(np.mean(by_label), abs=1e-12)
        assert flat[name] == pytest.approx(np.average(single[of], weights=class_weights(judged.expected)), abs=1e-12)
        assert abs(flat[name] - flat[of]) > 1e-4, "labels of different sizes tell the two apart"


def test_ceilings_are_the_scores_of_a_perfect_ranking_without_the_votes():
    perfect = Judged(
        np.array([1, 2]), np.array([[1, 1, -1], [2, -1, -1]]), np.array([2, 1]), np.array([[0, 1], [0, -1]])
    )
    highest = ceilings(perfect, [1, 3])
    assert highest.keys() == {name for name in scores(perfect, [1, 3]) if not name.startswith(("knn", "macro"))}
    assert highest["f1@3"] == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (3 + 1)) / 2)
    assert highest["map@r"] == highest["accuracy"] == 1.0


def test_a_metric_sees_each_query_alone():
    judged, _ = random_case(1)
    rows = np.array([3, 3, 0, 17])
    taken = per_query(judged.take(rows), KS)
    for name, values in per_query(judged, KS).items():
        assert_array_equal(taken[name], values[rows])


def test_without_the_whole_ranking(by_hand):
    short = Judged(by_hand.expected, by_hand.retrieved, by_hand.n_relevant)
    assert set(left_out(short)) == {"map"}
    assert left_out(by_hand) == {}
    assert set(scores(by_hand, [5])) - set(scores(short, [5])) == {"map"}
    assert_allclose(metric("map@r", short), metric("map@r", by_hand))
    assert_allclose(metric("mrr", short), [1, 1 / 2, 0])
    with pytest.raises(ValueError, match="not ranked whole"):
        metric("map", short)


def test_map_at_r_is_the_same_from_what_was_retrieved():
    for seed in range(5):
        judged, _ = random_case(seed)
        assert judged.retrieved.shape[1] >= judged.n_relevant.max()
        short = Judged(judged.expected, judged.retrieved, judged.n_relevant)
        assert_allclose(metric("map@r", short), metric("map@r", judged), rtol=1e-14)
    shallow = Judged(judged.expected, judged.retrieved[:, : judged.n_relevant.max() - 1], judged.n_relevant)
    with pytest.raises(ValueError, match="cutoff"):
        metric("map@r", shallow)
    most = int(judged.n_relevant.max())
    assert left_out(shallow)["map@r"] == f"needs the first R items, R is up to {most}, and {most - 1} were retrieved"
    assert "map@r" not in scores(shallow, [1])
    assert "map@r" in scores(short, [1])


def test_the_reciprocal_rank_of_a_query_that_found_nothing_is_0():
    nothing = Judged(np.array([1, 1]), np.array([[-1, -1], [2, 1]]), np.array([1, 1]))
    assert_array_equal(metric("mrr", nothing), [0, 1 / 2])
    whole = Judged(np.array([1]), np.array([[2, 2]]), np.array([1]), np.array([[2]]))
    assert_allclose(metric("mrr", whole), [1 / 3])
    assert metric("mrr", whole.take([])).shape == metric("mrr", nothing.take([])).shape == (0,)
    assert (
        metric("mrr", Judged(np.empty(0, int), np.empty((0, 2), int), np.empty(0, int), np.empty((0, 0), int))).size
        == 0
    )


def test_cutoff_beyond_what_was_retrieved_is_refused(by_hand):
    for entry in METRICS.own():
        if entry.facts["at_k"]:
            for k in (0, 6):
                with pytest.raises(ValueError, match=f"cutoff {k} with 5 items retrieved"):
                    entry.build(by_hand, k)


def test_no_query_has_no_score(by_hand):
    with pytest.raises(ValueError, match="no query"):
        scores(by_hand.take([]), [1])


@pytest.mark.parametrize("entry", METRICS.own(), ids=lambda entry: entry.name)
def test_contract(entry):
    facts = describe()[entry.name]
    assert set(facts) == set(MetricFacts.model_fields)
    assert facts["definition"]
    assert facts["higher_is_better"] is True
    assert list(inspect.signature(entry.build).parameters) == ["judged", "k"]
    json.dumps(facts)
    perfect = Judged(np.array([1, 2]), np.array([[1, 1], [2, 2]]), np.array([2, 2]), np.array([[0, 1], [0, 1]]))
    hopeless = Judged(np.array([1, 2]), np.array([[2, 2], [-1, -1]]), np.array([2, 2]), np.array([[8, 9], [98, 99]]))
    if entry.name in GRADED:
        none = np.zeros(2, np.int64)
        perfect = replace(perfect, grades=np.full((2, 2), 2), n_partly=none)
        hopeless = replace(hopeless, grades=np.zeros((2, 2), np.int64), n_partly=none)
    k = 2 if facts["at_k"] else None
    assert np.mean(entry.build(perfect, k)) == 1.0
    assert 0.0 <= np.mean(entry.build(hopeless, k)) < 0.1


def test_short_heads_are_distinct():
    heads = [entry.facts["short"] for entry in METRICS.own()]
    assert len(set(heads)) == len(heads)


def test_grades_that_contradict_the_hits_are_refused(by_hand):
    grades = np.where(by_hand.hits, 2, 0)
    partly = np.array([1, 1, 1])
    assert_array_equal(replace(by_hand, grades=grades, n_partly=partly).take([2, 0]).grades, grades[[2, 0]])
    for wrong in (np.where(by_hand.hits, 1, 0), grades + 1, np.where(grades == 0, 1, grades)):
        with pytest.raises(ValueError, match=r"grades must be 2|more items of grade 1"):
            replace(by_hand, grades=wrong, n_partly=partly)
    with pytest.raises(ValueError, match="belong together"):
        replace(by_hand, grades=grades)
