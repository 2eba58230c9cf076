"""Runs in which queries and gallery have texts: rows kept apart, texts in the fingerprint, what lacks one counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.contracts.extractor import check
from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.datasets.products import products
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load_rankings
from retrieval_bench.records.schema import find_row
from retrieval_bench.system.cache import FeatureCache
from tests.support.runs import plan
from tests.support.shop import shop

pytest.importorskip("bm25s", reason='needs pip install "retrieval-bench[text]"')

WORDS = ("red mug stripes", "green bowl", "blue cup dots", "yellow plate")


def shop_with_texts(**changes) -> Dataset:
    data = shop()
    splits = {}
    for name, split in data.splits.items():
        texts = tuple(f"{WORDS[label]} {name}" for label in split.labels)
        splits[name] = replace(split, texts=changes.get(name, texts))
    return data.with_splits(splits)


def test_pictures_texts_and_both_in_one_table(tmp_path: Path) -> None:
    names = ("hsv", "bm25", "tfidf", "hsv+tfidf", "hsv+bm25", "hsv+bm25+rrf", "hsv+tfidf+early")
    record = run(plan(shop_with_texts(), *names), tmp_path / "a")
    assert [row.status for row in record.rows] == ["ok"] * len(names)
    assert {row.method: (row.query, row.gallery) for row in record.rows} == {
        name: ("image", "image") if name == "hsv" else (("text",) * 2 if "+" not in name else ("image+text",) * 2)
        for name in names
    }
    assert find_row(record.rows, "bm25").scores["accuracy"] == 1.0
    assert find_row(record.rows, "tfidf").scores["accuracy"] == 1.0
    text_times = find_row(record.rows, "bm25").times
    assert "decode_p50" not in text_times
    assert text_times["extract_throughput"].unit == "texts/s"
    assert not record.violations
    again = run(plan(shop_with_texts(), *names), tmp_path / "b")
    first, second = (load_rankings(tmp_path / name, one) for name, one in (("a", record), ("b", again)))
    for name in names:
        np.testing.assert_array_equal(first[f"{name}/indices"], second[f"{name}/indices"])
    assert [row.scores for row in record.rows] == [row.scores for row in again.rows]


def test_methods_that_all_compare_in_a_way_of_their_own_are_added_up(tmp_path: Path) -> None:
    record = run(plan(shop_with_texts(), "bm25+bm25:k1=2", "bm25+hsv", k=(1,)), tmp_path)
    assert [row.error and row.error.sentence for row in record.rows] == [None, None]
    assert record.rows[0].scores["accuracy"] == 1.0


def test_texts_are_in_the_fingerprint_where_a_method_reads_them_and_only_there() -> None:
    told, otherwise = shop_with_texts(), shop_with_texts(query=("something else",) * 12)
    assert prepare(plan(told, "hsv")).fingerprint == prepare(plan(shop(), "hsv")).fingerprint
    assert prepare(plan(told, "bm25")).fingerprint != prepare(plan(otherwise, "bm25")).fingerprint


def test_who_lacks_a_text_is_counted_and_given_away_answers_are_told() -> None:
    lacking = shop_with_texts(gallery=("", *[f"{WORDS[label]} gallery" for label in shop().gallery.labels][1:]))
    notices = prepare(plan(lacking, "bm25")).dataset.notices
    assert any("1 of 12 in gallery" in notice for notice in notices)
    same = tuple(WORDS[label] for label in shop().gallery.labels)
    notices = prepare(plan(shop_with_texts(gallery=same, query=same), "bm25")).dataset.notices
    assert any("12 of 12 queries have, word for word, the text of a gallery item" in notice for notice in notices)


def test_a_dataset_without_texts_ends_in_one_sentence() -> None:
    with pytest.raises(BenchError, match="'bm25' reads texts and dataset shop has none"):
        prepare(plan(shop(), "hsv", "bm25"))


def test_what_was_learned_from_texts_belongs_to_these_texts(tmp_path: Path) -> None:
    """A cache that knew images alone would hand the pieces of one wording to another."""
    cache = FeatureCache(tmp_path / "cache")
    first = run(replace(plan(shop_with_texts(), "tfidf"), cache=cache), tmp_path / "a")
    other = shop_with_texts(train=tuple(f"zq{label} xw" for label in shop().train.labels))
    second = run(replace(plan(other, "tfidf"), cache=cache), tmp_path / "b")
    assert first.rows[0].scores["accuracy"] == 1.0
    assert second.rows[0].features.zero_rows > 0
    assert second.rows[0].features.fit == "learned"


@pytest.mark.parametrize("name", ["bm25", "tfidf"])
def test_the_contract_holds(name: str) -> None:
    broken = [verdict for verdict in check(name) if verdict.verdict == "broken"]
    assert not broken


def test_products_have_listings_and_queries_of_three_difficulties() -> None:
    data = products(None)
    assert data.query.texts[0] != data.gallery.texts[0]
    assert set(data.query.attributes["text_difficulty"].tolist()) == {"easy", "medium", "hard"}
    assert "text_difficulty" not in data.without_texts().query.attributes
    assert data.without_texts().fingerprint != data.fingerprint
    assert products(None).fingerprint == data.fingerprint
