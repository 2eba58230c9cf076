"""`tfidf`: scikit-learn's numbers, learned from train alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.methods.parse import parse_method
from tests.support.shop import shop

TEXTS = ["red mug with stars", "blue mug", "a red shirt", "stars and stripes"]


def fitted(texts=TEXTS, name="tfidf"):
    train = shop().train
    train = replace(train, texts=tuple((texts * len(train))[: len(train)]))
    return parse_method(name).members[0].build(Setup()).fit(train)


def test_its_rows_are_those_of_scikit_learn() -> None:
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    theirs.fit((TEXTS * len(shop().train))[: len(shop().train)])
    expected = theirs.transform(["red mugs", "strips"]).toarray()
    np.testing.assert_allclose(fitted().transform_texts(["red mugs", "strips"]), expected, atol=1e-6)


def test_a_misspelt_word_is_near_the_right_one_and_an_empty_text_is_zeros() -> None:
    rows = fitted().transform_texts(["shirt", "shrit", "stripes", "", "漢字"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    assert not rows[3:].any()
    np.testing.assert_allclose(np.linalg.norm(rows[:3], axis=1), 1, atol=1e-6)


def test_what_it_learned_can_be_restored_to_the_last_bit() -> None:
    first, again = fitted(), parse_method("tfidf").members[0].build(Setup())
    for name in again.learned:
        setattr(again, name, np.array(getattr(first, name)))
    np.testing.assert_array_equal(again.transform_texts(TEXTS), first.transform_texts(TEXTS))


def test_no_more_pieces_than_asked_for() -> None:
    assert fitted(name="tfidf:pieces=10").transform_texts(TEXTS).shape == (4, 10)


def test_train_without_letters_ends_in_one_sentence() -> None:
    with pytest.raises(BenchError, match=r"none of its .* items has a text with letters"):
        fitted(["", " ", "\x00"])
