"""Joining methods: against what the words say, and rank fusion against the loop that the paper describes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from retrieval_bench.core import BenchError, Bundle, Distance, Ranking, Searcher
from retrieval_bench.methods.fusion import VECTOR, Concatenation, Join, Member, Scores, as_vectors, tuned
from retrieval_bench.registry import BACKENDS, JOINS

RNG = np.random.default_rng(5)
LABELS = np.arange(60) % 6


def rows(n: int, signal: float, seed: int, dim: int = 24) -> np.ndarray:
    """(n, dim) float32: the label's direction, `signal` strong, in noise."""
    directions = np.random.default_rng(99).standard_normal((6, dim))
    noise = np.random.default_rng(seed).standard_normal((n, dim))
    return (signal * directions[LABELS[:n]] + noise).astype(np.float32)


def member(name: str, distance: Distance, features: np.ndarray) -> Member:
    return Member(name, distance, features)


def search(join: Join, gallery: list[Member], queries: list[Member], k: int) -> Ranking:
    def build(name: str, features: np.ndarray) -> Searcher:
        distance = {one.name: one.distance for one in gallery}.get(name, join.distance)
        return BACKENDS["numpy"].build(features, distance)

    held, asked = Bundle(join.combine(gallery)), Bundle(join.combine(queries))
    searcher = join.searcher(held, build)
    return searcher(asked.arrays.get(VECTOR, asked), k)


def test_the_product_of_vectors_is_the_similarity() -> None:
    floats, codes = rows(9, 1, 1), RNG.integers(0, 256, (9, 5), dtype=np.uint8)
    floats[4] = 0
    for distance, features in (("cosine", floats), ("inner_product", floats), ("hamming", codes)):
        vectors = as_vectors(member("a", distance, features))
        found = BACKENDS["numpy"].build(features, distance)(features, 9)
        expected = np.empty((9, 9))
        np.put_along_axis(expected, found.indices, found.distances, axis=1)
        similarity = {"cosine": 1 - expected, "inner_product": -expected, "hamming": 1 - 2 * expected / 40}[distance]
        assert_allclose(vectors @ vectors.T, similarity, atol=2e-5)


def test_scores_rank_by_the_weighted_sum_of_similarities() -> None:
    train = [member("a", "cosine", rows(60, 1.0, 1)), member("b", "hamming", np.packbits(rows(60, 1.0, 2) > 0, axis=1))]
    asked = [
        member("a", "cosine", rows(20, 1.0, 3)),
        member("b", "hamming", np.packbits(rows(20, 1.0, 4) > 0, axis=1)),
    ]
    join = Scores().fit(train, LABELS)
    assert set(join.weights) == {"a", "b"}
    assert sum(join.weights.values()) == pytest.approx(1)
    total = np.zeros((20, 60))
    for held, query in zip(train, asked, strict=True):
        similarity = as_vectors(query).astype(np.float64) @ as_vectors(held).astype(np.float64).T
        total += join.weights[held.name] / join.scales_[held.name] * similarity
    found = search(join, train, asked, 60)
    assert_allclose(np.take_along_axis(total, found.indices, axis=1), -np.sort(-total, axis=1), atol=1e-5)
    assert_allclose(-found.distances, -np.sort(-total, axis=1), atol=1e-5)


def test_weights_go_to_the_member_that_finds_labels() -> None:
    strong, noise = rows(60, 3.0, 1), rows(60, 0.0, 2)
    join = Scores().fit([member("noise", "cosine", noise), member("strong", "cosine", strong)], LABELS)
    assert join.weights["strong"] >= 0.7
    even = Scores().fit([member("a", "cosine", strong), member("b", "cosine", strong)], LABELS)
    assert even.weights == {"a": 0.5, "b": 0.5}


def test_the_weights_are_the_best_of_the_grid_by_map_at_r() -> None:
    """Every tenth by a loop: average precision within the first R of each image's ranking of the others."""
    features = [rows(30, 0.8, 1), rows(30, 1.2, 2)]
    similarities = [
        as_vectors(member("x", "cosine", one)) @ as_vectors(member("x", "cosine", one)).T for one in features
    ]
    labels = LABELS[:30]

    def judged(weight: float) -> float:
        total = weight * similarities[0] + (1 - weight) * similarities[1]
        values = []
        for row in range(30):
            order = [one for one in np.argsort(-total[row], kind="stable") if one != row]
            relevant = labels[order] == labels[row]
            r = relevant.sum()
            values.append(sum(relevant[: i + 1].mean() * relevant[i] for i in range(r)) / r)
        return float(np.mean(values))

    weights = tuned(similarities, labels, np.arange(30))
    assert judged(weights[0]) == pytest.approx(max(judged(tenth / 10) for tenth in range(11)))


def test_more_than_three_members_are_tuned_one_by_one() -> None:
    members = [member(str(i), "cosine", rows(60, signal, i)) for i, signal in enumerate((0.0, 2.0, 0.0, 2.0))]
    join = Scores().fit(members, LABELS)
    assert sum(join.weights.values()) == pytest.approx(1)
    assert join.weights["1"] + join.weights["3"] > 0.6


@pytest.mark.parametrize("n", [1, 2])
def test_where_no_training_image_has_a_fellow_all_count_alike(n: int) -> None:
    join = Scores().fit([member(name, "cosine", rows(n, 1, 1)) for name in "ab"], np.arange(n))
    assert join.weights == {"a": 0.5, "b": 0.5}
    assert all(
        np.isfinite(array).all()
        for array in join.combine([member(name, "cosine", rows(3, 1, 2)) for name in "ab"]).values()
    )


def test_a_join_of_blank_members_is_finite() -> None:
    blank = np.zeros((12, 8), np.float32)
    for join in (Scores(), Concatenation(4, 0.5)):
        members = [member("a", "cosine", blank), member("b", "cosine", rows(12, 1, 1, 8))]
        combined = join.fit(members, LABELS[:12]).combine(members)[VECTOR]
        assert np.isfinite(combined).all()
        both = [member("a", "cosine", blank), member("b", "cosine", blank)]
        assert not join.fit(both, LABELS[:12]).combine(both)[VECTOR].any()


def test_a_member_that_saw_nothing_leaves_the_other_to_decide() -> None:
    train = [member("a", "cosine", rows(60, 1, 1)), member("b", "cosine", rows(60, 1, 2))]
    asked = [member("a", "cosine", np.zeros((10, 24), np.float32)), member("b", "cosine", rows(10, 1, 3))]
    join = Scores().fit(train, LABELS)
    alone = BACKENDS["numpy"].build(train[1].features, "cosine")(asked[1].features, 60)
    assert_array_equal(search(join, train, asked, 60).indices[:, :5], alone.indices[:, :5])


def test_concatenation_is_whitened_and_of_equal_parts() -> None:
    train = [member("a", "cosine", rows(60, 1, 1)), member("b", "euclidean", rows(60, 1, 2) * 100 + 7)]
    join = Concatenation(8, 0.5).fit(train, LABELS)
    combined = join.combine(train)[VECTOR]
    assert combined.shape == (60, 16)
    assert combined.dtype == np.float32
    for part in (combined[:, :8], combined[:, 8:]):
        assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)


def fused_by_loop(lists: list[np.ndarray], points: list[float], n: int) -> list[int]:
    earned = dict.fromkeys(range(n), 0.0)
    for ranked in lists:
        for rank, item in enumerate(ranked[: len(points)]):
            earned[int(item)] += points[rank]
    front = sorted((item for item in earned if earned[item] > 0), key=lambda item: (-earned[item], item))
    return front + [int(item) for item in lists[0] if earned[int(item)] == 0]


@pytest.mark.parametrize(
    ("name", "options", "points"),
    [
        ("rrf", {}, lambda rank: 1 / (61 + rank)),
        ("rrf", {"depth": 7, "constant": 1}, lambda rank: 1 / (2 + rank)),
        ("vote", {"depth": 4}, lambda rank: 1 + 1 / (610 + 10 * rank)),
    ],
)
def test_fusion_of_ranks_is_that_of_the_loop(name: str, options: dict[str, int], points) -> None:
    held = [member("a", "cosine", rows(60, 1, 1)), member("b", "hamming", np.packbits(rows(60, 1, 2) > 0, axis=1))]
    asked = [member("a", "cosine", rows(9, 1, 3)), member("b", "hamming", np.packbits(rows(9, 1, 4) > 0, axis=1))]
    join = JOINS[name].build(**options)
    depth = min(options.get("depth", 1000), 60)
    lists = [
        BACKENDS["numpy"].build(one.features, one.distance)(query.features, 60).indices
        for one, query in zip(held, asked, strict=True)
    ]
    for k in (1, 10, 60, 70):
        found = search(join, held, asked, k)
        for row in range(9):
            expected = fused_by_loop([each[row] for each in lists], [points(rank) for rank in range(depth)], 60)
            assert found.indices[row].tolist() == (expected + [-1] * 10)[:k]
        assert (np.diff(found.distances[:, :60], axis=1) >= 0).all()
        assert np.isinf(found.distances[:, 60:]).all()


def test_what_is_hidden_from_a_query_earns_no_points() -> None:
    held = [member("a", "cosine", rows(20, 1, 1)), member("b", "cosine", rows(20, 1, 2))]
    join = JOINS["rrf"].build(depth=5)
    searcher = join.searcher(
        Bundle(join.combine(held)), lambda name, features: BACKENDS["numpy"].build(features, "cosine")
    )
    found = searcher(Bundle(join.combine(held)), 20, np.arange(20))
    assert not (found.indices == np.arange(20)[:, None]).any()
    assert (found.indices[:, -1] == -1).all()
    assert (found.indices[:, :-1] >= 0).all()


def test_euclidean_distances_cannot_be_added_up() -> None:
    with pytest.raises(BenchError, match=r"moments is compared by euclidean distance.*join it by \+concat"):
        Scores().fit([member("moments", "euclidean", rows(9, 1, 1))], LABELS[:9])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("concat", {"dims": 0}),
        ("concat", {"level": 2.0}),
        ("rrf", {"depth": 0}),
        ("rrf", {"constant": -1}),
        ("vote", {"depth": 0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(BenchError, match=f"^{name}: "):
        JOINS[name].build(**options)
