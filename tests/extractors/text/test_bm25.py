"""`bm25`: its scores by hand and by bm25s itself; words of any script; what has no words is found by nobody."""

from __future__ import annotations

import builtins
import math

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.texts.words import MOST_CHARACTERS, words_of
from tests.support.shop import shop

bm25s = pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')

GALLERY = ["red mug with stars", "blue mug", "a red red shirt", "", "stars and stripes"]


def searcher(gallery, name="bm25"):
    extractor = parse_method(name).members[0].build(Setup())
    extractor.fit(shop().train)
    return extractor, extractor.searcher(extractor.transform_texts(gallery))


def by_hand(query: str, gallery: list[str], k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's formula, word by word."""
    texts = [text.split() for text in gallery]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for words in texts:
        score = 0.0
        for word in query.split():
            holding = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            count = words.count(word)
            score += idf * count / (count + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["red mug", "stars", "red red", "stripes unknown", "unknown"])
def test_scores_by_hand_and_by_bm25s(query: str) -> None:
    _, search = searcher(GALLERY)
    ours = search.scores(words_of(query))
    assert ours == pytest.approx(by_hand(query, GALLERY), abs=1e-9)
    theirs = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    theirs.index([text.split() for text in GALLERY], show_progress=False)
    assert ours == pytest.approx(theirs.get_scores(query.split()), abs=1e-6)


def test_the_nearest_come_first_equal_ones_by_row_and_excluded_ones_not_at_all() -> None:
    extractor, search = searcher(GALLERY)
    queries = extractor.transform_texts(["red mug", "", "stars"])
    ranking = search(queries, 4)
    assert ranking.indices[0, :2].tolist() == [0, 2]
    assert ranking.indices[1].tolist() == [0, 1, 2, 3]
    assert (ranking.distances[1] == 0).all()
    assert (np.diff(ranking.distances, axis=1) >= 0).all()
    without = search(queries, 5, np.array([[0, -1], [-1, -1], [4, 0]]))
    assert 0 not in without.indices[0]
    assert {0, 4}.isdisjoint(without.indices[2].tolist())
    assert without.indices[2].tolist()[3:] == [-1, -1]


@pytest.mark.parametrize("variant", ["lucene", "robertson", "atire"])
def test_each_variant_is_that_of_bm25s(variant: str) -> None:
    _, search = searcher(GALLERY, f"bm25:k1=1.2:b=0.5:variant={variant}")
    theirs = bm25s.BM25(k1=1.2, b=0.5, method=variant)
    theirs.index([text.split() for text in GALLERY], show_progress=False)
    assert search.scores(["red", "mug"]) == pytest.approx(theirs.get_scores(["red", "mug"]), abs=1e-5)


def test_a_gallery_without_words_is_searched_without_a_complaint() -> None:
    extractor, search = searcher(["", " ", "\u200b"])
    ranking = search(extractor.transform_texts(["red"]), 2)
    assert ranking.indices.tolist() == [[0, 1]]
    assert search.bytes == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Rotes T-Shirt, Größe M", ["rotes", "t", "shirt", "grösse", "m"]),
        ("קומקום אדום", ["קומקום", "אדום"]),
        ("赤いマグ mug", ["赤い", "いマ", "マグ", "mug"]),
        ("杯", ["杯"]),
        ("मग हिन्दी", ["मग", "हिन्दी"]),
        ("קוֹמקום", ["קוֹמקום"]),
        ("cafe\u0301", ["café"]),
        ("red_mug", ["red", "mug"]),
        ("⭐ star 🎉🎉", ["⭐", "star", "🎉", "🎉"]),
        ("<b>red</b>&nbsp;mug<br/>", ["red", "mug"]),
        ("a\x00b\x1bc", ["a", "b", "c"]),
        ("\ud800broken", ["broken"]),
        ("ＦＵＬＬ", ["full"]),
        ("", []),
        (" \n\t", []),
        ("1 < 2 > 1", ["1", "2", "1"]),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_of_a_megabyte_the_beginning_is_read() -> None:
    extractor, search = searcher(["mug " * 300_000, "shirt"])
    assert len(words_of("mug " * 300_000)) == MOST_CHARACTERS // 4
    assert search(extractor.transform_texts(["shirt"]), 1).indices.tolist() == [[1]]


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch) -> None:
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "bm25s":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BenchError, match=r'pip install "retrieval-bench\[text\]"'):
        parse_method("bm25").members[0].build(Setup())
