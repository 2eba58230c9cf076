"""Every metric against two libraries, to 1e-9: on rankings with ties, padding, lone queries, k > R.

Rankings are judged by ranx, trec_eval, ir-measures and pytorch-metric-learning; the votes and their means over labels,
which no retrieval library has, by scikit-learn and pycm.

Ties are put in order here as the house does (lower gallery row first), since every library has another rule of its own;
what is then compared is what each makes of one and the same ranking.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable

import numpy as np
import pytest

from retrieval_bench import search
from retrieval_bench.core import Judged, Ranking
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import count_relevant, judge, rank_gallery
from retrieval_bench.registry import BACKENDS

CLOSE = 1e-9
KS = (1, 3, 10, 20)
AVERAGED = (*(f"recall@{k}" for k in KS), "map@r")
"""What class means average."""

assert search  # importing it fills the registry

Values = dict[str, np.ndarray]


def case(seed: int) -> tuple[Judged, np.ndarray]:
    """Rankings of a whole gallery by few distinct distances, and (q, n) gallery labels in the order found, -1 padded.

    Leave-one-out, so that every row ends in padding; the queries whose label nothing else has are left out.
    """
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.choice(8, 38, p=np.arange(1, 9) / 36), [8]])  # label 8 is alone
    codes = (labels[:, None] % 4 + rng.integers(0, 3, (len(labels), 2))).astype(np.uint8)
    own = np.arange(len(labels))
    n_relevant = count_relevant(labels, labels, own)
    assert (n_relevant == 0).any(), "a lone query"
    kept = np.flatnonzero(n_relevant)
    index = BACKENDS["numpy"].build(codes, "hamming")
    depth = len(labels)
    ranking, relevant = rank_gallery(index, codes[kept], labels[kept], labels, depth, exclude=own[kept])
    assert relevant is not None
    assert (relevant.tie_sizes > 1).any(), "ties"
    assert (ranking.indices[:, -1] == -1).all(), "padding"
    assert (n_relevant[kept] < max(KS)).any(), "k > R"
    judged = judge(labels[kept], labels, Ranking(ranking.indices, ranking.distances), n_relevant[kept], relevant.ranks)
    return judged, judged.retrieved


def trec(judged: Judged) -> tuple[dict, dict]:
    """qrels and run of trec_eval's kind; a score falls by one a rank, and padding is not in the run."""
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for query, (expected, found) in enumerate(zip(judged.expected, judged.retrieved, strict=True)):
        places = [place for place, label in enumerate(found) if label >= 0]
        qrels[f"q{query}"] = {f"d{place}": int(found[place] == expected) for place in places}
        run[f"q{query}"] = {f"d{place}": float(len(found) - place) for place in places}
    return qrels, run


def by_ranx(judged: Judged) -> Values:
    ranx = pytest.importorskip("ranx", reason="ranx comes with the development tools")
    qrels, run = trec(judged)
    relevant = {query: {doc: hit for doc, hit in docs.items() if hit} for query, docs in qrels.items()}
    names = {"accuracy": "precision@1", "map": "map", "mrr": "mrr"}
    for k in KS:
        names |= {f"{ours}@{k}": f"{ours}@{k}" for ours in ("hit_rate", "precision", "recall", "f1", "ndcg")}
    held = ranx.Run(run)
    ranx.evaluate(ranx.Qrels(relevant), held, sorted(set(names.values())))
    queries = [f"q{query}" for query in range(len(judged))]
    found = {ours: np.array([held.scores[theirs][query] for query in queries]) for ours, theirs in names.items()}
    # MAP@R is average precision over the first R: its library function, at each query's own cutoff.
    found["map@r"] = np.array(
        [ranx.evaluate(ranx.Qrels({q: relevant[q]}), ranx.Run({q: run[q]}), f"map@{len(relevant[q])}") for q in queries]
    )
    return found | class_means(judged, {name: found[name] for name in AVERAGED})


def by_trec_eval(judged: Judged) -> Values:
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="pytrec_eval comes with the development tools")
    qrels, run = trec(judged)
    cuts = ",".join(map(str, KS))
    measures = {"map", "recip_rank", *(f"{name}.{cuts}" for name in ("P", "recall", "success", "ndcg_cut"))}
    all_rs = ",".join(map(str, sorted(set(judged.n_relevant.tolist()))))
    measures.add(f"map_cut.{all_rs}")
    told = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    rows = [told[f"q{query}"] for query in range(len(judged))]
    names = {"accuracy": "P_1", "map": "map", "mrr": "recip_rank"}
    for k in KS:
        names |= {f"hit_rate@{k}": f"success_{k}", f"precision@{k}": f"P_{k}", f"recall@{k}": f"recall_{k}"}
        names |= {f"ndcg@{k}": f"ndcg_cut_{k}"}
    found = {ours: np.array([row[theirs] for row in rows]) for ours, theirs in names.items()}
    found["map@r"] = np.array([row[f"map_cut_{r}"] for row, r in zip(rows, judged.n_relevant, strict=True)])
    return found | class_means(judged, {name: found[name] for name in AVERAGED})


def by_scikit_learn(judged: Judged) -> Values:
    """Of the votes and the means over labels; and F1, of what is and what should be among the first k."""
    from sklearn import metrics as sk

    found: Values = {}
    for k in KS:
        votes = voted(judged, k)
        options = {"labels": np.unique(judged.expected), "average": "macro", "zero_division": 0}
        found[f"knn_accuracy@{k}"] = np.array([sk.accuracy_score(judged.expected, votes)])
        found[f"macro_precision@{k}"] = np.array([sk.precision_score(judged.expected, votes, **options)])
        found[f"macro_recall@{k}"] = np.array([sk.recall_score(judged.expected, votes, **options)])
        found[f"macro_f1@{k}"] = np.array([sk.f1_score(judged.expected, votes, **options)])
        found[f"f1@{k}"] = np.array([set_f1(sk.f1_score, judged, query, k) for query in range(len(judged))])
    return found


def set_f1(f1_score: Callable[..., float], judged: Judged, query: int, k: int) -> float:
    """F1 of "is among the first k" as a prediction of "is relevant", over all that can be found."""
    found = judged.retrieved[query]
    relevant = (found == judged.expected[query])[found >= 0]
    return f1_score(relevant, np.arange(len(relevant)) < k, zero_division=0)


def by_pycm(judged: Judged) -> Values:
    """The votes and their means over labels, from pycm's figures of each class."""
    pycm = pytest.importorskip("pycm", reason="pycm comes with the development tools")
    found: Values = {}
    labels = np.unique(judged.expected).tolist()
    for k in KS:
        table = pycm.ConfusionMatrix(judged.expected.tolist(), voted(judged, k).tolist(), digit=15)
        found[f"knn_accuracy@{k}"] = np.array([table.Overall_ACC])
        for ours, of_class in (("precision", table.PPV), ("recall", table.TPR), ("f1", table.F1)):
            values = [0.0 if of_class[label] == "None" else of_class[label] for label in labels]
            found[f"macro_{ours}@{k}"] = np.array([np.mean(values)])
    return found


def by_ir_measures(judged: Judged) -> Values:
    ir = pytest.importorskip("ir_measures", reason="ir_measures comes with the development tools")
    qrels, run = trec(judged)
    names = {"accuracy": ir.P @ 1, "map": ir.AP, "mrr": ir.RR}
    for k in KS:
        names |= {f"precision@{k}": ir.P @ k, f"recall@{k}": ir.R @ k, f"hit_rate@{k}": ir.Success @ k}
        names |= {f"ndcg@{k}": ir.nDCG @ k}
    found = {name: np.empty(len(judged)) for name in names}
    ours = {measure: [name for name in names if names[name] == measure] for measure in names.values()}
    for told in ir.iter_calc(list(ours), qrels, run):
        for name in ours[told.measure]:
            found[name][int(told.query_id[1:])] = told.value
    return found


def by_metric_learning(judged: Judged) -> Values:
    """Means over queries; what AccuracyCalculator makes of the labels found, without the search before it.

    Its reciprocal rank is of single precision, so it is not asked for.
    """
    theirs = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator", reason='needs pip install "retrieval-bench[train]"'
    )
    import torch

    labels, counts = np.unique(judged.expected, return_counts=True)
    assert (counts - 1 == [judged.n_relevant[judged.expected == label][0] for label in labels]).all(), "leave-one-out"
    found, expected = torch.tensor(judged.retrieved), torch.tensor(judged.expected)[:, None]
    known = (torch.tensor(labels)[:, None], torch.tensor(counts))
    plain = (False, False, theirs.EQUALITY)  # no mean over labels, none of each label
    got = {f"precision@{k}": theirs.precision_at_k(found, expected, k, *plain) for k in KS}
    got["accuracy"] = got["knn_accuracy@1"] = got["precision@1"]
    got["macro_recall@1"] = theirs.precision_at_k(found, expected, 1, True, False, theirs.EQUALITY)
    got["map"] = theirs.mean_average_precision(found, expected, True, known, *plain)
    got["map@r"] = theirs.mean_average_precision(found, expected, True, known, *plain, at_r=True)
    by_label = (True, False, theirs.EQUALITY)
    got["class_mean_map@r"] = theirs.mean_average_precision(found, expected, True, known, *by_label, at_r=True)
    return {name: np.array([value]) for name, value in got.items()}


def voted(judged: Judged, k: int) -> np.ndarray:
    """The k-NN vote by its definition, one query at a time."""
    votes = []
    for row in judged.retrieved[:, :k].tolist():
        there = [label for label in row if label >= 0]
        votes.append(max(sorted(set(there), key=there.index), key=there.count))
    return np.array(votes)


def class_means(judged: Judged, values: Values) -> Values:
    """The values of a judge that has no class means, averaged over the queries of each label, then over labels."""
    found: Values = {}
    for name, column in values.items():
        by_label: dict[int, list[float]] = {}
        for label, value in zip(judged.expected.tolist(), column.tolist(), strict=True):
            by_label.setdefault(label, []).append(value)
        found[f"class_mean_{name}"] = np.array([statistics.fmean(map(statistics.fmean, by_label.values()))])
    return found


JUDGES = (by_ranx, by_trec_eval, by_ir_measures, by_metric_learning, by_scikit_learn, by_pycm)
SLOWLY = pytest.mark.long(reason="it compiles its metrics for most of a minute")


@pytest.mark.slow(reason="other libraries compile their metrics")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "ask", [pytest.param(ask, id=ask.__name__, marks=SLOWLY if ask is by_ranx else ()) for ask in JUDGES]
)
def test_a_judge_agrees(ask: Callable[[Judged], Values], seed: int) -> None:
    judged, _ = case(seed)
    ours = metrics.per_query(judged, KS)
    means = metrics.scores(judged, KS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the judges' own: scikit-learn warns of a vote that no query has
        told = ask(judged)
    for name, values in told.items():
        if len(values) == 1:  # a mean: of all queries, or over labels
            assert means[name] == pytest.approx(float(values[0]), abs=CLOSE), name
        else:
            np.testing.assert_allclose(ours[name], values, rtol=0, atol=CLOSE, err_msg=name)


@pytest.mark.long(reason="other libraries compile their metrics")
def test_every_metric_has_two_libraries() -> None:
    judged, _ = case(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = [set(ask(judged)) for ask in JUDGES]
    for name in metrics.scores(judged, KS):
        assert sum(name in names for names in asked) >= 2, name
