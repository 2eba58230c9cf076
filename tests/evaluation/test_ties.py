"""Worst, expected and best over equal distances: against every order written out, shuffles, scikit-learn and scipy."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import hypergeom, nhypergeom
from sklearn.metrics import ndcg_score

from retrieval_bench.core import Judged
from retrieval_bench.evaluation import ties as module
from retrieval_bench.evaluation.metrics import CLASS_MEANS, GRADED, per_query, scores
from retrieval_bench.evaluation.relevance import count_relevant, judge, rank_gallery
from retrieval_bench.evaluation.ties import EXPECTED, Bounds, tie_bounds, tie_bounds_per_query
from retrieval_bench.registry import METRICS
from retrieval_bench.search.index import ExactIndex

KS = (1, 2, 3, 7, 50)
Groups = list[tuple[int, int]]  # (items, relevant items) of each distance, nearest first


def told(*queries: Groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n_relevant, tie_starts, tie_sizes, by loops."""
    rows = []
    for groups in queries:
        start, row = 0, []
        for size, relevant in groups:
            row += [(start, size)] * relevant
            start += size
        rows.append(row)
    table = np.full((len(rows), max(map(len, rows)), 2), -1)
    for filled, row in zip(table, rows, strict=True):
        filled[: len(row)] = row
    return np.array([len(row) for row in rows]), table[:, :, 0], table[:, :, 1]


def judged_rows(relevant: np.ndarray) -> Judged:
    """Rankings of a whole gallery as rows of 0 and 1, all with the same number of ones."""
    ranks = np.nonzero(relevant)[1].reshape(len(relevant), -1)
    padded = np.pad(np.where(relevant, 1, 0), ((0, 0), (0, max(KS))), constant_values=-1)
    return Judged(np.ones(len(relevant), np.int64), padded, np.full(len(relevant), ranks.shape[1]), ranks)


def orders(groups: Groups) -> np.ndarray:
    """Every order of the items within every group: the slow obvious twin."""
    items = [[1] * relevant + [0] * (size - relevant) for size, relevant in groups]
    each = itertools.product(*(itertools.permutations(group) for group in items))
    return np.array([list(itertools.chain(*order)) for order in each])


def unkept(told_ties: tuple, name: str) -> np.ndarray:
    """(q,) the closed form of "recall@10", say, before it is kept within its bounds."""
    metric = name if name in EXPECTED else name.rpartition("@")[0]
    return EXPECTED[metric](module._Ties(*told_ties), 1 if metric == name else int(name.rpartition("@")[2]))


def named(query: int, bounds: dict) -> dict[str, list[float]]:
    return {name: [values[query] for values in three] for name, three in bounds.items()}


def check_against(rows: np.ndarray, bounds: dict[str, list[float]]) -> None:
    values = per_query(judged_rows(rows), KS)
    assert bounds.keys() == {name for name in values if not name.startswith("knn")}
    for name, (worst, expected, best) in bounds.items():
        right = [values[name].min(), values[name].mean(), values[name].max()]
        assert_allclose([worst, expected, best], right, rtol=0, atol=1e-12, err_msg=name)


@st.composite
def few_orders(draw) -> Groups:
    """Groups of up to five with at least one relevant item, in at most some thousand orders."""
    groups, count = [], 1
    for size in draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)):
        count *= math.factorial(size)
        if count <= 3000:
            groups.append((size, draw(st.integers(0, size))))
    if not any(relevant for _, relevant in groups):
        groups.append((1, 1))
    return groups


@pytest.mark.slow(reason="every order of every tie")
@given(few_orders())
def test_against_every_order(groups):
    bounds = named(0, tie_bounds_per_query(*told(groups), KS))
    check_against(orders(groups), bounds)
    for name, (_, expected, _) in bounds.items():
        assert unkept(told(groups), name)[0] == pytest.approx(expected, abs=1e-12)


def test_queries_of_different_size_side_by_side():
    queries = [
        [(4, 2), (1, 0), (3, 2)],  # the cut at R = 4 falls on the end of a group
        [(2, 0), (5, 3)],  # ... into a group that holds everything
        [(1, 1)],
        [(3, 3), (2, 2)],  # nothing else in the gallery
        [(6, 1)],  # all at one distance
        [(1, 0), (2, 1), (1, 1), (4, 1), (1, 0)],
        [(3, 0), (2, 0), (3, 2)],
    ]
    bounds = tie_bounds_per_query(*told(*queries), KS)
    for query, groups in enumerate(queries):
        check_against(orders(groups), named(query, bounds))
    for name, mean in tie_bounds(*told(*queries), KS).items():
        assert isinstance(mean, Bounds)
        assert all(type(value) is float for value in mean)
        assert mean == tuple(values.mean() for values in bounds[name])
    some = tie_bounds_per_query(*(array[[4, 0, 0]] for array in told(*queries)), KS)
    for name in bounds:
        assert_allclose(some[name], np.array(bounds[name])[:, [4, 0, 0]], rtol=1e-14, err_msg=name)


def test_by_hand():
    """Two relevant among three at the least distance."""
    bounds = tie_bounds(*told([(3, 2), (2, 0)]), [1, 2])
    assert bounds["accuracy"] == pytest.approx((0, 2 / 3, 1))
    assert bounds["hit_rate@2"] == pytest.approx((1, 1, 1))
    assert bounds["recall@2"] == pytest.approx((1 / 2, 2 / 3, 1))
    assert bounds["map"] == pytest.approx(((1 / 2 + 2 / 3) / 2, (1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3, 1))
    assert bounds["mrr"] == pytest.approx((1 / 2, (1 + 1 + 1 / 2) / 3, 1))
    assert bounds["map@r"] == pytest.approx((1 / 4, (1 + 1 / 2 + 1 / 4) / 3, 1))


@pytest.mark.parametrize("seed", range(3))
def test_against_shuffles(seed):
    rng = np.random.default_rng(seed)
    groups = [(size := int(rng.integers(1, 60)), int(rng.binomial(size, 0.2))) for _ in range(6)] + [(9, 4)]
    keys = np.repeat(np.arange(len(groups)), [size for size, _ in groups])
    items = np.concatenate([np.arange(size) < relevant for size, relevant in groups])
    drawn = 3000
    shuffled = items[np.argsort(keys + rng.random((drawn, len(keys))), axis=1)]
    values = per_query(judged_rows(shuffled), KS)
    for name, (worst, expected, best) in named(0, tie_bounds_per_query(*told(groups), KS)).items():
        assert worst - 1e-12 <= values[name].min() <= values[name].max() <= best + 1e-12, name
        assert abs(values[name].mean() - expected) <= 5 * values[name].std() / math.sqrt(drawn) + 1e-12, name


def random_case(distance: str, seed: int = 0, q: int = 40, n: int = 200):
    """Queries out of the gallery. Bits: nine distances for 200 items; floats: none equal save twins."""
    rng = np.random.default_rng(seed)
    if distance == "hamming":
        gallery = rng.integers(0, 256, (n, 1), dtype=np.uint8)
    else:
        gallery = rng.normal(size=(n, 16)).astype(np.float32)
    labels = rng.integers(0, 9, n)
    own = rng.permutation(n)[:q]
    return ExactIndex(gallery, distance), gallery, labels, own


@pytest.mark.parametrize("hide", [False, True])
def test_ndcg_against_scikit_learn(hide):
    """Its DCG averages over ties, after the same paper."""
    search, gallery, labels, own = random_case("hamming")
    exclude = own if hide else None
    n_relevant = count_relevant(labels[own], labels, exclude)
    _, relevant = rank_gallery(search, gallery[own], labels[own], labels, 10, exclude)
    ours = tie_bounds_per_query(n_relevant, relevant.tie_starts, relevant.tie_sizes, KS)
    apart = np.unpackbits(gallery[own][:, None] ^ gallery[None], axis=2).sum(axis=2)
    for query, row in enumerate(own):
        seen = np.arange(len(labels)) != row if hide else slice(None)
        true, score = (labels == labels[row])[None, seen], -apart[query][None, seen].astype(float)
        for k in KS:
            assert ours[f"ndcg@{k}"].expected[query] == pytest.approx(ndcg_score(true, score, k=k), abs=1e-12)


@pytest.mark.parametrize(("start", "size", "relevant"), [(0, 30, 4), (3, 30, 30), (12, 700, 1), (6, 40, 39)])
def test_hit_rate_and_mrr_against_scipy(start, size, relevant):
    ties = tie_bounds(*told([(start, 0), (size, relevant)] if start else [(size, relevant)]), KS)
    for k in KS:
        drawn = min(max(k - start, 0), size)
        assert ties[f"hit_rate@{k}"].expected == pytest.approx(hypergeom.sf(0, size, relevant, drawn), abs=1e-12)
    places = np.arange(size - relevant + 1)
    chance = nhypergeom.pmf(places, size, size - relevant, 1)
    assert ties["mrr"].expected == pytest.approx((chance / (start + places + 1)).sum(), abs=1e-12)


@pytest.mark.parametrize("cells", [1, 100, 1 << 20])
def test_blocks_change_nothing(monkeypatch, cells):
    queries = [[(size, 1 + size // 3), (5, 2)] for size in (7, 1, 30, 7, 90, 2)]
    right = tie_bounds_per_query(*told(*queries), KS)["mrr"].expected
    monkeypatch.setattr(module, "_CELLS", cells)
    assert_allclose(tie_bounds_per_query(*told(*queries), KS)["mrr"].expected, right, rtol=1e-14)


@pytest.mark.parametrize(("start", "size", "relevant"), [(49_000, 1000, 1000), (49_990, 10, 3), (10, 49_000, 200)])
def test_average_precision_deep_in_a_large_gallery(start, size, relevant):
    """Differences of harmonic numbers must not lose digits: bounds that touch would cross."""
    told_ties = told([(start, 0), (size, relevant)])
    places = range(1, size + 1)
    slope = (relevant - 1) / (size - 1)
    right = math.fsum((1 + slope * (i - 1)) / (start + i) for i in places) / size  # R cancels: all in one group
    assert unkept(told_ties, "map")[0] == pytest.approx(right, rel=1e-13)
    worst, expected, best = tie_bounds(*told_ties, [1])["map"]
    assert worst <= expected <= best


@pytest.mark.parametrize("hide", [False, True])
def test_without_ties_there_is_one_value(hide):
    search, gallery, labels, own = random_case("cosine")
    queries = gallery[own] + np.float32(0.01)
    exclude = own if hide else None
    n_relevant = count_relevant(labels[own], labels, exclude)
    ranking, relevant = rank_gallery(search, queries, labels[own], labels, 50, exclude)
    assert (relevant.tie_sizes[relevant.ranks >= 0] == 1).all()
    right = scores(judge(labels[own], labels, ranking, n_relevant, relevant.ranks), KS)
    bounds = tie_bounds(n_relevant, relevant.tie_starts, relevant.tie_sizes, KS)
    assert list(bounds) == [name for name in right if not name.startswith(("knn", "macro", "class_mean"))]
    for name, three in bounds.items():
        assert_allclose(three, right[name], rtol=0, atol=1e-12, err_msg=name)
        closed = unkept((n_relevant, relevant.tie_starts, relevant.tie_sizes), name)
        assert closed.mean() == pytest.approx(right[name], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("hide", [False, True])
def test_the_rule_lies_within_its_bounds(seed, hide):
    search, gallery, labels, own = random_case("hamming", seed)
    exclude = own if hide else None
    n_relevant = count_relevant(labels[own], labels, exclude)
    ranking, relevant = rank_gallery(search, gallery[own], labels[own], labels, 50, exclude)
    rule = per_query(judge(labels[own], labels, ranking, n_relevant, relevant.ranks), KS)
    bounds = tie_bounds_per_query(n_relevant, relevant.tie_starts, relevant.tie_sizes, KS)
    for name, (worst, expected, best) in bounds.items():
        assert worst.shape == expected.shape == best.shape == (len(own),)
        assert (worst <= rule[name] + 1e-12).all(), name
        assert (rule[name] <= best + 1e-12).all(), name
        assert (worst <= expected).all(), name
        assert (expected <= best).all(), name
    assert (bounds["map"].worst < bounds["map"].best).any()


def test_when_nothing_is_told_apart_chance_decides():
    labels = np.array([0] * 12 + [1] * 28)
    gallery = np.zeros((40, 8), np.uint8)
    search = ExactIndex(gallery, "hamming")
    _, relevant = rank_gallery(search, gallery[:2], np.array([0, 1]), labels, 5, np.array([0, 39]))
    bounds = tie_bounds_per_query(np.array([11, 27]), relevant.tie_starts, relevant.tie_sizes, [5])
    assert_allclose(bounds["accuracy"].expected, [11 / 39, 27 / 39])
    assert_allclose(bounds["precision@5"].expected, [11 / 39, 27 / 39])
    assert_array_equal(bounds["accuracy"].worst, [0, 0])
    assert_array_equal(bounds["accuracy"].best, [1, 1])


def test_every_metric_but_the_votes_has_a_closed_form():
    """A new metric either gets one here, or says that no ranking is its best one, or averages one that has one."""
    assert set(CLASS_MEANS.values()) <= set(EXPECTED)
    wanted = {entry.name for entry in METRICS.own() if entry.facts["has_ceiling"]} - set(GRADED)
    assert set(EXPECTED) | set(CLASS_MEANS) == wanted


def test_arrays_as_they_are_saved_give_the_same():
    told_ties = told([(4, 2), (3, 1)], [(2, 0), (5, 3)])
    saved = [array.astype(np.int32) for array in told_ties]
    before = [array.copy() for array in saved]
    assert tie_bounds(*saved, KS) == tie_bounds(*told_ties, KS)
    for array, copy in zip(saved, before, strict=True):
        assert_array_equal(array, copy)


def test_refusals():
    n_relevant, starts, sizes = told([(4, 2)], [(3, 1)])
    with pytest.raises(ValueError, match="no query"):
        tie_bounds(n_relevant[:0], starts[:0], sizes[:0], KS)
    with pytest.raises(ValueError, match="a tie for every relevant item"):
        tie_bounds(n_relevant + 1, starts, sizes, KS)
    with pytest.raises(ValueError, match="a tie for every relevant item"):
        tie_bounds(np.array([2, 0]), starts, sizes, KS)
    with pytest.raises(ValueError, match="cutoff 0"):
        tie_bounds(n_relevant, starts, sizes, [5, 0])
    assert list(tie_bounds(n_relevant, starts, sizes, [])) == ["accuracy", "map@r", "map", "mrr"]
