"""Words that made an item near: they add up to bm25's score, and a word that is not there adds nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import Setup
from retrieval_bench.experiment.runner import run
from retrieval_bench.explaining.clues import PartClues, Unexplained, WordPair
from retrieval_bench.explaining.explain import explain
from retrieval_bench.explaining.occlusion import occlusion_pairs, term_pairs
from retrieval_bench.explaining.picture import draw
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.records.files import load_rankings
from tests.support.runs import plan
from tests.support.shop import shop

pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')
GALLERY = ["red mug with stars", "blue mug", "a red red shirt", ""]


def test_what_words_add_is_the_score() -> None:
    bm25 = parse_method("bm25").members[0].build(Setup())
    searcher = bm25.searcher(bm25.transform_texts(GALLERY))
    query = "red mug mug tea"
    pairs = term_pairs(bm25, query, [GALLERY[2], GALLERY[0], GALLERY[3]], GALLERY)
    scores = searcher.scores(query.split())
    for pair, row in zip(pairs, (2, 0, 3), strict=True):
        assert sum(amount for _, amount in pair.words) == pytest.approx(scores[row])
        assert pair.distance == pytest.approx(-scores[row])
        assert [word for word, _ in pair.words] == ["red", "mug", "tea"]
        assert dict(pair.words)["tea"] == 0
    assert pairs[0].said.endswith("from 1 of 3 words")


def test_a_word_that_says_nothing_adds_nothing() -> None:
    known = {"red": (1.0, 0.0), "mug": (0.0, 1.0)}

    def describe(texts):
        return np.array([np.sum([known.get(word, (0.0, 0.0)) for word in text.split()], axis=0) for text in texts])

    (pair,) = occlusion_pairs(describe, "red mug please", np.array([[1.0, 0.0]]))
    amounts = dict(pair.words)
    assert amounts["please"] == pytest.approx(0)
    assert amounts["red"] == pytest.approx(np.sqrt(0.5))
    assert amounts["mug"] == pytest.approx(np.sqrt(0.5) - 1)
    assert pair.distance == pytest.approx(1 - np.sqrt(0.5))


def test_a_query_without_words_says_so() -> None:
    with pytest.raises(Unexplained, match="has no words"):
        occlusion_pairs(lambda texts: np.zeros((len(texts), 2)), " ", np.ones((1, 2)))


@pytest.mark.slow(reason="two runs' worth of drawing")
def test_text_rows_of_a_record_are_explained_and_drawn(tmp_path: Path) -> None:
    data = shop()
    words = ("crimson shirt", "emerald lamp", "dark blue mug", "mustard <clock> \u05d0")
    data = data.with_splits(
        {name: replace(one, texts=tuple(words[label] for label in one.labels)) for name, one in data.splits.items()}
    )
    asked = plan(data, "bm25", "hsv+tfidf+rrf", "hsv")
    record = run(asked, tmp_path)
    found = explain(
        "r", record, load_rankings(tmp_path, record), data, asked, ["bm25", "hsv+tfidf+rrf", "hsv"], None, 2
    )
    kinds = [[type(layer.clues[0]) for layer in band.layers] for band in found.bands]
    assert kinds[0] == [WordPair]
    assert kinds[1][1] is WordPair
    assert all(isinstance(layer, PartClues) for band in found.bands for layer in band.layers)
    assert found.query.text in words
    assert isinstance(draw(found), Image.Image)
