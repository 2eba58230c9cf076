"""The mean of GloVe vectors, against means by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from retrieval_bench.extractors.text import glove
from tests.support.text_models import built

THE = (0.418, 0.24968, -0.41242, 0.1217)
"""The first numbers of the vector of "the", as the first line of glove.6B.50d.txt has them."""


@functools.cache
def table() -> dict[str, np.ndarray]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    built("glove")  # or skipped
    vectors = np.load(glove.VECTORS.find("test"))
    words = parquet.read_table(glove.WORDS.find("test")).column("index").to_pylist()
    return dict(zip(words, vectors, strict=True))


def by_hand(*words: str) -> np.ndarray:
    mean = np.sum([table()[word].astype(np.float64) for word in words], axis=0) / len(words)
    return mean / np.sqrt((mean**2).sum())


def test_the_vectors_are_glove() -> None:
    assert len(table()) == 400_000
    np.testing.assert_allclose(table()["the"][:4], THE, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the", ["the"]),
        ("Red  SHOES", ["red", "shoes"]),
        ("red, red shoes!", ["red", "red", "shoes"]),
        ("a t-shirt", ["a", "t-shirt"]),
        ("purplish-red", ["purplish", "red"]),
        ("shoes.Boots", ["shoes", "boots"]),
        ("size 4.5", ["size", "4.5"]),
        ("snake_case", ["snake", "case"]),
        ("<b>red</b>", ["b", "red", "b"]),
        ("red qqzzxxyyww shoes", ["red", "shoes"]),
        ("cafe\u0301", ["café"]),
        ("ＲＥＤ", ["red"]),
        ("shoes 👟 red", ["shoes", "red"]),
        ("red \ud800shoes", ["red", "shoes"]),
    ],
)
def test_a_row_is_the_mean_by_hand(text: str, words: list[str]) -> None:
    assert set(words) <= set(table())
    np.testing.assert_allclose(built("glove").transform_texts([text])[0], by_hand(*words), atol=1e-7)


@pytest.mark.parametrize("text", ["qqzzxxyyww", "👟", "\x00", "...", "_", "漢字かな"])
def test_a_text_of_unknown_words_gives_zeros(text: str) -> None:
    assert not built("glove").transform_texts([text]).any()


def test_a_text_longer_than_the_window_is_cut_there() -> None:
    window = built("glove").window
    fits, longer, shorter = built("glove").transform_texts(
        ["a " * window, "a " * window + "shoe", "a " * (window - 1) + "shoe"]
    )
    np.testing.assert_array_equal(longer, fits)
    assert (shorter != fits).any()


def test_words_of_one_kind_are_nearer() -> None:
    one, other, far = built("glove").transform_texts(["apple banana", "orange pear", "engine gearbox"])
    assert one @ other > one @ far + 0.2
