"""Re-ranking by a network over pictures and texts: its tokens, its training, and what it leaves as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_bench.core import BenchError, Bundle, Dataset, Distance, Searcher, Setup
from retrieval_bench.experiment.runner import run
from retrieval_bench.extractors.text import hashed_words
from retrieval_bench.extractors.text.hashed_words import GRAMS, WORDS, HashedWords, bucket_rows, grams_of
from retrieval_bench.indexing.methods import refuse_what_describes_nothing
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import FieldSearcher, Pipeline
from retrieval_bench.methods.reranking.cross import Cross
from retrieval_bench.methods.reranking.cross_network import ItemTokens, cross_network
from retrieval_bench.methods.reranking.cross_training import first_scores, shortened
from retrieval_bench.records.files import load_rankings
from retrieval_bench.registry import BACKENDS, STEPS
from retrieval_bench.system.progress import silent
from tests.support.runs import plan
from tests.support.shop import shop

COMPARED: Mapping[str, Distance] = {"vector": "cosine"}
OWN = "cross"
NAMES = ("red mug stripes", "green bowl", "blue cup dots", "yellow plate")


def items(n: int, seed: int, texts: bool = True) -> Bundle:
    vectors = np.random.default_rng(seed).standard_normal((n, 12)).astype(np.float32)
    words = HashedWords().transform_texts([f"thing {row % 5} of {seed}" if texts else "" for row in range(n)])
    return Bundle({"vector": vectors, OWN: words})


def search_of(gallery: Bundle) -> Searcher:
    return FieldSearcher("vector", BACKENDS["numpy"].build(gallery.arrays["vector"], "cosine"))


def untrained() -> Cross:
    step = STEPS["cross"].build(shortlist=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        step.network_ = cross_network((12,)).eval()
    return step


def stirred() -> Cross:
    """A network that changes orders."""
    step = untrained()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        step.network_.out.weight.data.normal_(std=3.0)
    return step


class TestWords:
    def test_a_misspelt_word_shares_most_of_its_letters_with_the_right_one(self) -> None:
        right, wrong, other = (set(grams_of(word)) for word in ("backpack", "backpak", "umbrella"))
        assert len(right & wrong) >= 5
        assert not right & other

    def test_rows_hold_the_first_words_and_nothing_for_no_text(self) -> None:
        rows = bucket_rows(HashedWords().transform_texts(["a b", "", "w " * 100, "x" * 500, "\u0000<b></b>"]))
        assert rows.shape == (5, WORDS, GRAMS)
        assert [(row > 0).any(axis=1).sum() for row in rows] == [2, 0, WORDS, 1, 0]
        assert rows[0, 0, 0] == grams_of("a")[0]
        assert rows.max() < hashed_words.BUCKETS

    def test_pictures_are_refused(self) -> None:
        with pytest.raises(BenchError, match="words are read of texts"):
            HashedWords().transform([np.zeros((4, 4, 3), np.uint8)])


def test_scores_are_those_of_a_plain_loop_and_padding_scores_nothing() -> None:
    distances = np.array([[0.1, 0.4, 0.7], [0.5, 0.9, np.inf], [np.inf] * 3, [0.2] * 3], np.float32)
    expected = []
    for row in distances.astype(float):
        real = [one for one in row if np.isfinite(one)]
        mean, deviation = (float(np.mean(real)), float(np.std(real))) if real else (0.0, 0.0)
        expected.append([(mean - one) / max(deviation, 1e-9) if np.isfinite(one) else 0.0 for one in row])
    np.testing.assert_allclose(first_scores(distances), expected, atol=1e-5)


def test_an_untrained_network_keeps_the_order() -> None:
    gallery, queries = items(20, 1), items(5, 2)
    inner = search_of(gallery)
    before = inner(queries, 20)
    after = untrained().searcher(inner, gallery, COMPARED, OWN)(queries, 20)
    np.testing.assert_array_equal(after.indices, before.indices)


def test_only_the_short_list_moves_and_nobody_is_lost() -> None:
    gallery, queries = items(20, 1), items(5, 2)
    inner = search_of(gallery)
    before, after = inner(queries, 20), stirred().searcher(inner, gallery, COMPARED, OWN)(queries, 20)
    assert (after.indices[:, :6] != before.indices[:, :6]).any()
    np.testing.assert_array_equal(np.sort(after.indices[:, :6]), np.sort(before.indices[:, :6]))
    np.testing.assert_array_equal(after.indices[:, 6:], before.indices[:, 6:])
    assert (np.diff(after.distances) >= 0).all()


def test_a_query_has_the_same_bits_alone_and_among_others_on_any_number_of_threads() -> None:
    gallery, queries = items(20, 1), items(5, 2)
    searcher = stirred().searcher(search_of(gallery), gallery, COMPARED, OWN)
    whole = searcher(queries, 10)
    was = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        alone = [searcher(queries[np.array([query])], 10) for query in range(5)]
        np.testing.assert_array_equal(np.concatenate([one.distances for one in alone]), whole.distances)
        np.testing.assert_array_equal(np.concatenate([one.indices for one in alone]), whole.indices)
    torch.set_num_threads(was)


def test_items_without_text_or_vector_are_read_by_what_they_have() -> None:
    gallery, queries = items(20, 1, texts=False), items(5, 2, texts=False)
    gallery.arrays["vector"][3] = 0
    queries.arrays["vector"][0] = 0
    found = stirred().searcher(search_of(gallery), gallery, COMPARED, OWN)(queries, 20)
    assert np.isfinite(found.distances).all()
    assert all(set(row) == set(range(20)) for row in found.indices.tolist())


def test_excluded_rows_are_not_read_either() -> None:
    gallery = items(8, 1)
    found = stirred().searcher(search_of(gallery), gallery, COMPARED, OWN)(gallery, 8, np.arange(8))
    assert not (found.indices == np.arange(8)[:, None]).any()


@pytest.mark.slow(reason="trains a network twice")
def test_what_holds_for_all_labels_is_learned_and_helps_labels_that_were_held_out() -> None:
    """The nearest are the wrong ones here, which the score itself tells."""
    labels = np.repeat(np.arange(20), 3)
    vectors = np.random.default_rng(0).standard_normal((60, 12)).astype(np.float32)
    trap = np.random.default_rng(1).standard_normal((3, 12)).astype(np.float32)
    vectors = 0.3 * vectors + 2 * trap[np.arange(60) % 3]  # those of one label lie in three clusters
    train = Bundle({"vector": vectors, OWN: items(60, 5, texts=False).arrays[OWN]})
    step: Cross = STEPS["cross"].build(epochs=6)
    step.fit(search_of(train), train, COMPARED, OWN, labels, 0, silent)
    assert step.epoch_ > 0
    assert not step.said
    again: Cross = STEPS["cross"].build(epochs=6)
    again.fit(search_of(train), train, COMPARED, OWN, labels, 0, silent)
    assert all(
        torch.equal(one, other) for one, other in zip(*(s.network_.parameters() for s in (step, again)), strict=True)
    )
    rows = np.arange(60)

    def hits(searcher: Searcher) -> float:
        found = searcher(train, 10, rows)
        return float((labels[found.indices] == labels[:, None]).mean())

    assert hits(step.searcher(search_of(train), train, COMPARED, OWN)) > hits(search_of(train)) + 0.02


def test_texts_are_cut_while_they_ask_and_pictures_hidden() -> None:
    known = ItemTokens.of({"vector": np.ones((200, 12), np.float32)}, items(200, 1).arrays[OWN])
    cut = shortened(known, np.random.default_rng(0))
    assert ((cut.words == known.words) | (cut.words == 0)).all()
    assert 0.05 < float((cut.words[known.words > 0] == 0).float().mean()) < 0.6
    assert 0.2 < float((cut.vectors[0] == 0).all(1).float().mean()) < 0.4


class TestTheStep:
    @pytest.mark.parametrize(
        ("method", "sentence"),
        [
            ("color+cross", "cross reads texts beside what is compared, and the queries have none; add a method that"),
            ("tfidf+cross=1", "shortlist=1 must be at least 2"),
            ("tfidf+cross:epochs=0", "epochs=0"),
        ],
    )
    def test_what_cannot_be_is_one_sentence(self, method: str, sentence: str) -> None:
        with pytest.raises(BenchError, match=sentence) as error:
            Pipeline(parse_method(method), Setup(), "numpy")
        assert "\n" not in str(error.value)

    def test_an_index_does_not_keep_it(self) -> None:
        with pytest.raises(BenchError, match="an index cannot keep what cross learns from train; leave cross out"):
            refuse_what_describes_nothing(Pipeline(parse_method("tfidf+cross"), Setup(), "numpy"))

    def test_a_run_repeats_itself_and_says_that_it_learned(self, tmp_path: Path) -> None:
        method = "hsv+tfidf+cross=5:epochs=1"  # the shop has too few labels to hold some out: the order stays
        first, second = (run(plan(with_texts(), method), tmp_path / name) for name in "ab")
        (row,) = first.rows
        assert row.status == "ok"
        assert row.notices == (
            "cross was not clearly better on held-out labels after any epoch, so the order before it stays",
        )
        assert row.times["fit"].value is not None
        arrays = [load_rankings(tmp_path / name, record) for name, record in (("a", first), ("b", second))]
        for name in ("indices", "distances"):
            np.testing.assert_array_equal(*(one[f"{row.method}/{name}"] for one in arrays))

    def test_without_train_it_is_one_sentence(self, tmp_path: Path) -> None:
        data = with_texts()
        record = run(plan(data.with_splits({"train": data.train.take([])}), "tfidf+cross=5"), tmp_path / "a")
        (row,) = record.rows
        assert row.error is not None
        assert "learns from train images and this dataset has none" in row.error.sentence


def with_texts() -> Dataset:
    data = shop()
    told = {
        name: replace(split, texts=tuple(f"{NAMES[label]} {name}" for label in split.labels))
        for name, split in data.splits.items()
    }
    return data.with_splits(told)
