"""What queries and the gallery are: read from names, refused where nobody reads it, kept apart."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Bundle, Sides
from retrieval_bench.methods.fusion import VECTOR, ByRanks, Early, Member, Scores
from retrieval_bench.methods.modalities import split_suffix
from retrieval_bench.methods.parse import parse_method, with_sides
from retrieval_bench.search.reference import NumpyIndex

BOTH = "image+text"


@pytest.mark.parametrize(
    ("name", "sides", "written"),
    [
        ("color", ("image", "image"), "color"),
        ("tfidf", ("text", "text"), "tfidf"),
        ("tfidf[text]", ("text", "text"), "tfidf"),
        ("color+tfidf+rrf", (BOTH, BOTH), "color+tfidf+rrf"),
        ("color+tfidf+rrf[image+text]", (BOTH, BOTH), "color+tfidf+rrf"),
        ("color[ image ]", ("image", "image"), "color"),
        ("color[image-to-image]", ("image", "image"), "color"),
    ],
)
def test_a_name_says_what_is_compared(name: str, sides: tuple[str, str], written: str) -> None:
    method = parse_method(name)
    assert tuple(method.sides) == sides
    assert str(method) == written
    assert parse_method(written) == parse_method(str(method))


def test_a_suffix_is_that_of_sides_alone() -> None:
    assert split_suffix("clip:a[text-to-image]") == ("clip:a", Sides("text", "image"))
    assert split_suffix("resnet50[untrained]") == ("resnet50[untrained]", None)
    assert str(Sides("text", BOTH)) == "text-to-image+text"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("color[text]", "color reads pictures, and the queries would be texts"),
        ("tfidf[text-to-image]", "tfidf reads texts, and the gallery would be pictures"),
        ("color[image+text]", "nothing in it reads the texts of the queries; add a method that does, for example bm25"),
        ("tfidf+color[text]", "color reads pictures"),
    ],
)
def test_what_nothing_reads_is_refused_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        parse_method(name)


def test_each_method_is_asked_with_all_that_it_can_read() -> None:
    methods = [parse_method(name) for name in ("color", "tfidf", "color+tfidf+rrf")]
    assert [str(method) for method in with_sides(methods, ("image", "text", BOTH), None)] == list(map(str, methods))
    assert list(map(str, with_sides(methods[:1], None, None))) == ["color"]
    with pytest.raises(BenchError, match="color reads pictures, and the queries would be texts"):
        with_sides(methods, ("text",), None)


# --- items without a text ---------------------------------------------------------------------------------------------

N, Q = 40, 6


def data():
    """Pictures and texts of as many dimensions, of eight products; rows 3 and 7 of the gallery have no text."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((8, 12)).astype(np.float32) + 1  # texts have a mean far from 0
    labels = np.arange(N) % 8
    pictures, texts = (centres[labels] + 0.4 * rng.standard_normal((N, 12)).astype(np.float32) for _ in range(2))
    texts[[3, 7]] = 0
    asked = [centres[:Q] + 0.4 * rng.standard_normal((Q, 12)).astype(np.float32) for _ in range(2)]
    return pictures.astype(np.float32), texts.astype(np.float32), [one.astype(np.float32) for one in asked], labels


def members(pictures, texts):
    return [Member("picture", "cosine", pictures), Member("text", "cosine", texts, may_lack=True)]


def ranked(join, gallery, queries, k=N):
    def build(name, features):
        return NumpyIndex(features, join.distance if name == VECTOR else "cosine")

    asked = Bundle(join.combine(queries))
    searcher = join.searcher(Bundle(join.combine(gallery)), build)
    return searcher(asked.arrays.get(VECTOR, asked), k)


@pytest.mark.parametrize("make", [Scores, lambda: Early(8, 1.0), lambda: ByRanks(N, lambda ranks: 1 / (61.0 + ranks))])
def test_an_item_without_a_text_is_not_scored_zero(make) -> None:
    """It comes about where its picture alone would place it: with others of its label, not behind all."""
    pictures, texts, asked, labels = data()
    join = make()
    join.fit(members(pictures, texts), labels)
    ranking = ranked(join, members(pictures, texts), members(*asked))
    place = ranking.indices[3].tolist().index(3)  # query 3 and item 3 are of one label; five items are
    assert place < 5


def test_in_a_sum_a_missing_text_is_as_near_as_a_pair_in_the_mean() -> None:
    pictures, texts, asked, labels = data()
    join = Scores()
    join.fit(members(pictures, texts), labels)
    join.weights = {"picture": 0.0, "text": 1.0}
    ranking = ranked(join, members(pictures, texts), members(*asked))
    for row in range(Q):
        near = dict(zip(ranking.indices[row].tolist(), ranking.distances[row].tolist(), strict=True))
        others = [distance for item, distance in near.items() if item not in (3, 7)]
        assert near[3] == near[7] == 0
        assert min(others) < 0 < max(others)


def test_in_ranks_it_earns_with_a_blind_member_what_it_earns_with_the_others() -> None:
    pictures, texts, asked, _ = data()
    join = ByRanks(N, lambda ranks: 1 / (61.0 + ranks))
    ranking = ranked(join, members(pictures, texts), members(*asked))
    by_picture = NumpyIndex(pictures, "cosine")(asked[0], N).indices
    for row in range(Q):
        place = by_picture[row].tolist().index(3)
        at = ranking.indices[row].tolist().index(3)
        assert ranking.distances[row, at] == pytest.approx(1 - (2 / (61 + place)) / (2 / 61), abs=1e-6)


@pytest.mark.parametrize("make", [Scores, lambda: ByRanks(N, lambda ranks: 1 / (61.0 + ranks))])
def test_a_query_without_a_text_is_answered_by_its_picture(make) -> None:
    pictures, texts, asked, labels = data()
    join = make()
    join.fit(members(pictures, texts), labels)
    if isinstance(join, Scores):
        join.weights = {"picture": 0.5, "text": 0.5}
    asked[1][2] = 0
    ranking = ranked(join, members(pictures, texts), members(*asked))
    np.testing.assert_array_equal(ranking.indices[2], NumpyIndex(pictures, "cosine")(asked[0][2:3], N).indices[0])
