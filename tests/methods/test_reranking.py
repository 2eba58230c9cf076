"""Re-ranking: expansion against its formula, k-reciprocal against dense matrices, and what all steps must keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import retrieval_bench.methods.fusion
import retrieval_bench.methods.reranking  # noqa: F401 - registers the joins and the steps
from retrieval_bench.core import BenchError, Bundle, Distance, Ranking, Searcher
from retrieval_bench.extractors.local.keypoints import KeypointBlocks
from retrieval_bench.methods.reranking.step import reordered
from retrieval_bench.registry import BACKENDS, JOINS, STEPS
from tests.support.blocks import blank, scene

DISTANCES: tuple[Distance, ...] = ("cosine", "inner_product", "euclidean", "hamming")


class Vectors:
    """The search of the arrays called "vector"."""

    bytes = 0

    def __init__(self, gallery: np.ndarray, distance: Distance) -> None:
        self.inner: Searcher = BACKENDS["numpy"].build(gallery, distance)

    def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
        return self.inner(queries.arrays["vector"], k, exclude)


def features(n: int, distance: Distance, seed: int) -> np.ndarray:
    """Five clusters."""
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(7).standard_normal((5, 16))[np.arange(n) % 5] + 0.8 * rng.standard_normal((n, 16))
    return np.packbits(points > 0, axis=1) if distance == "hamming" else points.astype(np.float32)


def stepped(name: str, gallery: np.ndarray, distance: Distance, **options: float) -> Searcher:
    step = STEPS[name].build(**options)
    return step.searcher(Vectors(gallery, distance), Bundle({"vector": gallery}), {"vector": distance}, name)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("name", ["qe", "reciprocal"])
@pytest.mark.parametrize("k", [1, 7, 40, 45])
def test_every_step_gives_a_whole_ranking(name: str, distance: Distance, k: int) -> None:
    gallery, queries = features(40, distance, 1), features(12, distance, 2)
    search = stepped(name, gallery, distance)
    found = search(Bundle({"vector": queries}), k)
    assert found.indices.shape == found.distances.shape == (12, k)
    assert found.distances.dtype == np.float32
    assert (np.diff(found.distances[:, :40], axis=1) >= 0).all()
    assert np.isinf(found.distances[:, 40:]).all()
    assert (found.indices[:, 40:] == -1).all()
    for row in found.indices[:, :40]:
        assert len(set(row.tolist())) == min(k, 40)
    for row in range(12):  # each query by itself, and the first k of more
        alone = search(Bundle({"vector": queries[row : row + 1]}), 40)
        assert_array_equal(alone.indices[0, : min(k, 40)], found.indices[row, :40])


@pytest.mark.parametrize("name", ["qe", "reciprocal"])
def test_a_hidden_row_is_never_found(name: str) -> None:
    gallery = features(30, "cosine", 1)
    found = stepped(name, gallery, "cosine")(Bundle({"vector": gallery}), 30, np.arange(30))
    assert not (found.indices == np.arange(30)[:, None]).any()
    assert (found.indices[:, -1] == -1).all()


@pytest.mark.parametrize("distance", ["cosine", "inner_product"])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_expansion_searches_with_the_weighed_mean(distance: Distance, alpha: float) -> None:
    gallery, queries = features(40, distance, 1), features(6, distance, 2)
    found = stepped("qe", gallery, distance, n=4, alpha=alpha)(Bundle({"vector": queries}), 40)
    for row, query in enumerate(queries.astype(np.float64)):
        length = np.linalg.norm if distance == "cosine" else lambda vector: 1.0
        held = [item.astype(np.float64) / length(item) for item in gallery]
        query = query / length(query)
        near = sorted(range(40), key=lambda item: -float(held[item] @ query))[:4]
        own = 1.0 if distance == "cosine" else query @ query
        mean = query + sum(max(held[item] @ query / own, 0) ** alpha * held[item] for item in near)
        order = sorted(range(40), key=lambda item: -float(held[item] @ mean))
        assert found.indices[row].tolist() == order


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_euclidean_expansion_is_a_place_among_the_found(alpha: float) -> None:
    gallery, queries = features(40, "euclidean", 1), features(6, "euclidean", 2)
    found = stepped("qe", gallery, "euclidean", n=4, alpha=alpha)(Bundle({"vector": queries}), 40)
    for row, query in enumerate(queries.astype(np.float64)):
        held = gallery.astype(np.float64)
        near = sorted(range(40), key=lambda item: float(np.linalg.norm(held[item] - query)))[:4]
        farthest = np.linalg.norm(held[near[-1]] - query)
        weights = [math.exp(-((np.linalg.norm(held[item] - query) / farthest) ** 2) / 2) ** alpha for item in near]
        mean = (query + sum(weight * held[item] for weight, item in zip(weights, near, strict=True))) / (
            1 + sum(weights)
        )
        away = np.linalg.norm(held - mean, axis=1)
        assert found.indices[row].tolist() == np.argsort(away, kind="stable").tolist()
        assert_allclose(found.distances[row], np.sort(away), rtol=1e-5)


def test_expansion_by_copies_of_the_query_changes_nothing() -> None:
    """All that is found is at distance 0, and nothing is divided by it."""
    gallery = np.repeat(features(2, "euclidean", 1), 3, axis=0)
    found = stepped("qe", gallery, "euclidean", n=3)(Bundle({"vector": gallery[:1]}), 6)
    again = BACKENDS["numpy"].build(gallery, "euclidean")(gallery[:1], 6)
    assert_array_equal(found.indices, again.indices)
    assert_array_equal(found.distances, again.distances)


def test_expansion_weighs_by_the_distance_of_what_is_compared_whatever_stood_before_it() -> None:
    """A step before it leaves scores from 0 to 1 behind, which are no inner products."""
    gallery, queries = features(40, "inner_product", 1), features(6, "inner_product", 2)
    rows, asked = Bundle({"vector": gallery}), Bundle({"vector": queries})
    compared: dict[str, Distance] = {"vector": "inner_product"}
    inner = Vectors(gallery, "inner_product")

    class Scored(Vectors):
        def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
            found = super().__call__(queries, k, exclude)
            return reordered(found, np.linspace(0, 1, k)[None].repeat(len(queries), axis=0))

    step = STEPS["qe"].build()
    plain = step.searcher(inner, rows, compared, "qe")(asked, 40)
    scored = step.searcher(Scored(gallery, "inner_product"), rows, compared, "qe")(asked, 40)
    assert_array_equal(plain.indices, scored.indices)
    assert not np.array_equal(plain.indices, inner(asked, 40).indices)


def test_each_joined_ranking_is_expanded_by_its_own_distance() -> None:
    distances: dict[str, Distance] = {"colour": "cosine", "moments": "euclidean", "hash": "hamming"}
    held = Bundle({name: features(40, distance, 1) for name, distance in distances.items()})
    asked = Bundle({name: features(6, distance, 2) for name, distance in distances.items()})

    def joined(gallery: Bundle) -> Searcher:
        join = JOINS["rrf"].build()
        return join.searcher(gallery, lambda name, rows: BACKENDS["numpy"].build(rows, distances[name]))

    found = STEPS["qe"].build(n=4).searcher(joined(held), held, distances, "qe")(asked, 40)
    near = joined(held)(asked, 4).indices
    expanded = {}
    for name, distance in distances.items():
        # Alone, and with a gallery of nothing but what all of them found, the step expands by just these.
        expanded[name] = np.concatenate(
            [captured(held.arrays[name][near[row]], asked.arrays[name][row : row + 1], distance) for row in range(6)]
        )
    again = joined(held)(Bundle(expanded), 40)
    assert_array_equal(found.indices, again.indices)
    assert_array_equal(found.distances, again.distances)
    assert not np.array_equal(found.indices, joined(held)(asked, 40).indices)


def captured(gallery: np.ndarray, query: np.ndarray, distance: Distance) -> np.ndarray:
    """What `qe` searches with in place of the query."""
    asked: list[np.ndarray] = []

    class Heard(Vectors):
        def __call__(self, queries: Bundle, k: int, exclude: np.ndarray | None = None) -> Ranking:
            asked.append(queries.arrays["vector"])
            ranked = np.arange(k)[None]  # as they stand, so that sums are made in the same order
            return Ranking(ranked, ranked.astype(np.float32))

    step = STEPS["qe"].build(n=len(gallery))
    step.searcher(Heard(gallery, distance), Bundle({"vector": gallery}), {"vector": distance}, "qe")(
        Bundle({"vector": query}), len(gallery)
    )
    return asked[-1]


def test_expanded_bits_are_those_of_the_majority() -> None:
    gallery, queries = features(40, "hamming", 1), features(6, "hamming", 2)
    found = stepped("qe", gallery, "hamming", n=4, alpha=0)(Bundle({"vector": queries}), 40)
    first = BACKENDS["numpy"].build(gallery, "hamming")(queries, 4)
    for row in range(6):
        votes = np.unpackbits(gallery[first.indices[row]], axis=1).sum(axis=0) + np.unpackbits(queries[row])
        expanded = np.packbits(votes * 2 > 5)  # five vote: never even
        again = BACKENDS["numpy"].build(gallery, "hamming")(expanded[None], 40)
        assert_array_equal(found.indices[row], again.indices[0])


def test_expansion_moves_towards_the_cluster() -> None:
    """What is wanted of it: neighbours of neighbours."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    centres = rng.standard_normal((10, 32))
    gallery = (centres[labels] + 1.4 * rng.standard_normal((200, 32))).astype(np.float32)
    queries = (centres[labels[:50]] + 1.4 * rng.standard_normal((50, 32))).astype(np.float32)

    def precision(search: Searcher) -> float:
        return float((labels[search(Bundle({"vector": queries}), 20).indices] == labels[:50, None]).mean())

    before = precision(Vectors(gallery, "cosine"))
    assert precision(stepped("qe", gallery, "cosine", n=5)) > before + 0.02
    assert precision(stepped("reciprocal", gallery, "cosine")) > before + 0.02


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_reciprocal_is_that_of_dense_matrices(leave_one_out: bool) -> None:
    """Zhong et al., step by step, for one query and the whole gallery, over (n, n) matrices.

    Of a query that lies in the gallery, no encoding holds its own row.
    """
    n, k1, k2, share = 50, 8, 3, 0.3
    gallery, queries = features(n, "cosine", 1), features(5, "cosine", 2)
    hidden = np.arange(10, 15) if leave_one_out else None
    if leave_one_out:
        queries = gallery[10:15]
    found = stepped("reciprocal", gallery, "cosine", shortlist=n, k1=k1, k2=k2, share=share)(
        Bundle({"vector": queries}), n - leave_one_out, hidden
    )
    searcher = BACKENDS["numpy"].build(gallery, "cosine")
    near = searcher(gallery, k1, np.arange(n))

    def mutual(indices: Sequence[int], distances: Sequence[float], among: int) -> set[int]:
        return {
            int(one)
            for one, distance in zip(indices[:among], distances[:among], strict=True)
            if distance <= near.distances[one][among - 1]
        }

    def encoded(indices: np.ndarray, distances: np.ndarray, own: int | None) -> np.ndarray:
        first = mutual(indices, distances, k1)
        wider = set(first)
        for one in first:
            theirs = mutual(near.indices[one], near.distances[one], k1 // 2)
            if len(theirs & first) >= 2 / 3 * len(theirs):
                wider |= theirs
        vector = np.zeros(n)
        spread = max(float(distances[k1 - 1] - distances[0]), 1e-12)
        for one in wider:
            place = np.flatnonzero(indices[:k1] == one)
            relative = (float(distances[place[0]]) - float(distances[0])) / spread if len(place) else 1.0
            vector[one] = np.exp(-relative)
        if own is not None:
            vector[own] = 1.0
        return vector / max(vector.sum(), 1e-12)

    encodings = np.stack([encoded(near.indices[row], near.distances[row], row) for row in range(n)])
    averaged = np.stack([encodings[[row, *near.indices[row, : k2 - 1]]].mean(axis=0) for row in range(n)])
    first = searcher(queries, n - leave_one_out, hidden)
    for row in range(5):
        indices, distances = first.indices[row], first.distances[row]
        own = np.concatenate([encoded(indices, distances, None)[None], averaged[indices[: k2 - 1]]]).mean(axis=0)
        theirs = averaged.copy()
        if hidden is not None:
            own[hidden[row]] = theirs[:, hidden[row]] = 0
        smaller, larger = np.minimum(own, theirs).sum(axis=1), np.maximum(own, theirs).sum(axis=1)
        jaccard = (1 - smaller / larger)[indices]
        scores = (1 - share) * jaccard + share * distances / distances.max()
        order = np.argsort(scores, kind="stable")
        assert_allclose(np.sort(scores), found.distances[row], atol=2e-4)
        assert_allclose(scores[order], scores[[list(indices).index(one) for one in found.indices[row]]], atol=1e-6)


def test_reordering_keeps_what_is_behind_and_what_is_equal() -> None:
    ranking = Ranking(np.array([[4, 2, 7, 1, -1], [3, 5, -1, -1, -1]]), np.zeros((2, 5), np.float32))
    result = reordered(ranking, np.array([[0.5, 0.1, 0.5], [0.9, 0.2, 0.0]]))
    assert result.indices.tolist() == [[2, 4, 7, 1, -1], [5, 3, -1, -1, -1]]
    assert (np.diff(result.distances[0, :4]) > 0).all()
    assert np.isinf(result.distances[0, 4])
    assert np.isinf(result.distances[1, 2:]).all()


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    around = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.9)
    return np.asarray(cv2.warpAffine(image, around, (width, height), borderValue=(255, 255, 255)))


def test_verification_puts_the_turned_copy_first() -> None:
    pictures = [scene(seed, 200, 260) for seed in range(12)]
    queries = [turned(picture, 40) for picture in pictures]
    blocks = KeypointBlocks()
    rng = np.random.default_rng(0)
    gallery = Bundle({"vector": rng.standard_normal((12, 8)).astype(np.float32), "verify": blocks.transform(pictures)})
    asked = Bundle({"vector": rng.standard_normal((12, 8)).astype(np.float32), "verify": blocks.transform(queries)})
    step = STEPS["verify"].build()
    search = step.searcher(Vectors(gallery.arrays["vector"], "cosine"), gallery, {"vector": "cosine"}, "verify")
    assert_array_equal(search(asked, 12).indices[:, 0], np.arange(12))
    assert_array_equal(search(asked, 1).indices[:, 0], np.arange(12))
    assert search.bytes == gallery.arrays["verify"].nbytes


def test_what_a_step_keeps_of_the_gallery_counts_as_bytes() -> None:
    vectors, codes = features(30, "cosine", 1), features(30, "hamming", 2)
    gallery = Bundle({"vector": vectors, "code": codes, "unused": vectors})
    compared: dict[str, Distance] = {"vector": "cosine", "code": "hamming"}
    inner = Vectors(vectors, "cosine")
    expanded = STEPS["qe"].build().searcher(inner, gallery, compared, "")
    assert expanded.bytes == inner.bytes + vectors.nbytes + codes.nbytes
    reciprocal = STEPS["reciprocal"].build(k1=10).searcher(inner, gallery, {"vector": "cosine"}, "")
    # Ten neighbours of each (int64), two distances, and an encoding of at least itself (int64, float64).
    assert reciprocal.bytes >= inner.bytes + 30 * (10 * 8 + 2 * 4 + 16)


def test_where_nothing_is_verified_the_order_stays() -> None:
    blocks = KeypointBlocks().transform([blank(40, 40)] * 9)
    vectors = features(9, "cosine", 1)
    rows = Bundle({"vector": vectors, "verify": blocks})
    inner = Vectors(vectors, "cosine")
    search = STEPS["verify"].build(shortlist=5).searcher(inner, rows, {"vector": "cosine"}, "verify")
    assert_array_equal(search(rows, 9).indices, inner(rows, 9).indices)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qe", {"n": 0}),
        ("qe", {"alpha": -1.0}),
        ("reciprocal", {"shortlist": 0}),
        ("reciprocal", {"k1": 0}),
        ("reciprocal", {"share": 1.5}),
        ("verify", {"shortlist": 0}),
        ("verify", {"ratio": 0.0}),
        ("verify", {"least": 0}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(BenchError, match=f"^{name}: "):
        STEPS[name].build(**options)
