"""The parts of a training on pairs: tokens of any text, misspelling, losses against slow twins, settings."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval_bench.core import BenchError
from retrieval_bench.pair_training.loop import mean_average_precision
from retrieval_bench.pair_training.losses import hardest_triplets, infonce, pair_loss, violating_triplets
from retrieval_bench.pair_training.misspell import FEW_LETTERS, MOST_READ, changed, misspelt
from retrieval_bench.pair_training.settings import PairSettings
from retrieval_bench.pair_training.tokenise import (
    MOST_LETTERS,
    MOST_TOKENS,
    PieceTokens,
    WordTokens,
    learn_tokens,
    read_words,
    tokens_from,
)
from retrieval_bench.pair_training.towers import Batch, TowerShape, text_vector, towers
from retrieval_bench.pair_training.word_vectors import start_from, width_of
from retrieval_bench.training_loop.holdout import hold_out_labels

TEXTS = ("Honey mug, olive with a band.", "honey MUG olive", "Solis bottle in teal")


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", []),
            (" \t\n\x00\x07\x1b[31m", ["31m"]),
            ("!?.,;--", []),
            ("Mug 'Honey' in olive.", ["mug", "honey", "in", "olive"]),
            ("STRASSE straße", ["strasse", "strasse"]),
            ("ﬁne Ⅻ ½", ["fine", "xii", "1", "2"]),
            ("<b>mug</b>&amp;", ["mug"]),
            ("כוס אדומה", ["כוס", "אדומה"]),
            ("\u202eكوب\u202c أحمر", ["كوب", "أحمر"]),
            ("हिन्दी कप", ["हिन्दी", "कप"]),
            ("红色杯子", ["红色", "色杯", "杯子"]),
            ("mug 👍🏽❤️", ["mug", "👍", "❤"]),
            ("\u0301e\u0301", ["é"]),
            ("a\ud800b", ["a", "b"]),
        ],
    )
    def test_any_text_has_defined_words(self, text: str, words: list[str]) -> None:
        assert read_words(text) == words

    def test_a_megabyte_is_read_as_far_as_said(self) -> None:
        assert len(read_words("mug " * 250_000)) == MOST_TOKENS
        assert read_words("x" * 1_000_000) == ["x" * MOST_LETTERS]

    def test_decomposed_letters_are_the_composed_ones(self) -> None:
        assert read_words("cafe\u0301") == read_words("café")


class TestTokens:
    def test_a_misspelt_word_shares_most_rows_with_the_right_one(self) -> None:
        tokens = WordTokens.learned(TEXTS)
        right, wrong, other = (set(tokens.tokens([word])[0]) for word in ("bottle", "botttle", "teal"))
        assert len(right & wrong) > 0.6 * len(wrong) > len(right & other)

    def test_the_vocabulary_is_of_train_and_orders_itself(self) -> None:
        tokens = WordTokens.learned(TEXTS)
        assert tokens.vocabulary[:3] == ("honey", "mug", "olive")
        assert WordTokens.learned(reversed(TEXTS)) == tokens
        assert all(row >= len(tokens.vocabulary) for row in tokens.tokens(["unheard"])[0])

    def test_pieces_are_the_words_again(self) -> None:
        tokens = PieceTokens.learned(TEXTS)
        for word in ("honey", "mug", "hoeny", "bottlemug"):
            assert "".join(tokens.pieces(word)).rstrip("\x03") == word
        assert len(tokens.pieces("honey")) == 1, "it is frequent"
        assert len(tokens.pieces("hoeny")) > 1
        assert tokens.tokens(["כוס"])[0] == (0,), "letters that train does not have"

    def test_the_next_merge_is_the_most_frequent_pair(self) -> None:
        """Against the obvious way, which counts all pairs anew for each merge."""
        counts = {"abab": 3, "abc": 2, "bcbc": 2, "cab": 1}
        texts = [word for word, count in counts.items() for _ in range(count)]
        words = {word: [*word, "\x03"] for word in counts}
        for found in PieceTokens.learned(texts).merges:
            pairs: dict[tuple[str, str], int] = {}
            for word, parts in words.items():
                for pair in pairwise(parts):
                    pairs[pair] = pairs.get(pair, 0) + counts[word]
            assert found == min(pairs, key=lambda pair: (-pairs[pair], pair))
            for word, parts in words.items():
                at = 0
                while at < len(parts) - 1:
                    if (parts[at], parts[at + 1]) == found:
                        parts[at : at + 2] = [parts[at] + parts[at + 1]]
                    at += 1
                words[word] = parts

    @pytest.mark.parametrize("kind", ["words", "pieces"])
    def test_data_bring_them_back(self, kind: str) -> None:
        tokens = learn_tokens(kind, TEXTS)  # type: ignore[arg-type]
        again = tokens_from(tokens.data)
        assert again == tokens
        assert again.sha256 == tokens.sha256 != learn_tokens(kind, TEXTS[:1]).sha256  # type: ignore[arg-type]
        assert all(0 <= row < tokens.size for token in tokens.tokens(["honey", "ξένο"]) for row in token)

    @pytest.mark.parametrize("kind", ["words", "pieces"])
    def test_one_word_is_a_vocabulary(self, kind: str) -> None:
        tokens = learn_tokens(kind, ["a"])  # type: ignore[arg-type]
        assert len(tokens.tokens(["a"])) == 1 or kind == "pieces"
        assert learn_tokens(kind, []).size > 0  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("data", "sentence"),
        [
            ({"kind": "words", "rules": 0, "vocabulary": []}, "follow rules 0 and this program knows 1"),
            ({"kind": "words", "rules": 1, "vocabulary": [3]}, "holds no vocabulary"),
            ({"kind": "pieces", "rules": 1, "letters": ["a"], "merges": [["a"]]}, "holds no vocabulary"),
            ({"kind": "bytes", "rules": 1}, "holds no vocabulary"),
        ],
    )
    def test_other_data_are_refused(self, data: dict, sentence: str) -> None:
        with pytest.raises(BenchError, match=sentence):
            tokens_from(data)


def test_misspelling_makes_one_mistake_and_leaves_short_words() -> None:
    rng = np.random.default_rng(0)
    versions = {misspelt("honey", "xyz", rng) for _ in range(300)}
    assert all(abs(len(word) - 5) <= 1 for word in versions)
    assert {"ohney", "hney", "hhoney", "xoney"} <= versions
    assert misspelt("mug", "xyz", rng) == "mug"
    assert FEW_LETTERS == 3


def test_a_text_that_is_cut_down_keeps_a_word_and_unchanged_is_unchanged() -> None:
    rng = np.random.default_rng(0)
    assert changed(["one"], "x", 0.0, 1.0, rng) == ["one"]
    words = [f"word{number}" for number in range(20)]
    assert changed(words, "x", 0.0, 0.0, rng) == words
    long = [str(number) for number in range(100)]
    some = [int(word) for word in changed(long, "x", 0.0, 0.0, rng)]
    assert some == list(range(some[0], some[0] + MOST_READ))
    for _ in range(50):
        assert 2 <= len(set(changed(words, "x", 0.0, 1.0, rng)) & set(words)) <= 7


def unit_rows(n: int, seed: int) -> torch.Tensor:
    rows = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=1)


LABELS = torch.tensor([0, 1, 2, 0, 1, 3, 0])


def test_infonce_is_what_its_definition_says() -> None:
    first, second = unit_rows(7, 1), unit_rows(7, 2)
    total = 0.0
    for rows, columns in ((first, second), (second, first)):
        for i in range(7):
            against = [j for j in range(7) if j == i or LABELS[j] != LABELS[i]]
            sums = sum(math.exp(5 * float(rows[i] @ columns[j])) for j in against)
            total -= math.log(math.exp(5 * float(rows[i] @ columns[i])) / sums)
    assert float(infonce(first, second, LABELS, 5.0)) == pytest.approx(total / 14)


def test_triplets_are_what_their_definition_says() -> None:
    first, second = unit_rows(7, 1), unit_rows(7, 2)
    total = 0.0
    for rows, columns in ((first, second), (second, first)):
        for i in range(7):
            hardest = max(float(rows[i] @ columns[j]) for j in range(7) if LABELS[j] != LABELS[i])
            total += max(0.0, 0.2 - float(rows[i] @ columns[i]) + hardest)
    assert float(hardest_triplets(first, second, LABELS)) == pytest.approx(total / 14)


def test_triplets_begin_with_all_that_violate_the_margin() -> None:
    first, second = unit_rows(7, 1), unit_rows(7, 2)
    hinges = []
    for rows, columns in ((first, second), (second, first)):
        for i in range(7):
            for j in range(7):
                hinge = 0.2 - float(rows[i] @ columns[i]) + float(rows[i] @ columns[j])
                hinges += [hinge] if LABELS[j] != LABELS[i] and hinge > 0 else []
    assert float(violating_triplets(first, second, LABELS)) == pytest.approx(sum(hinges) / len(hinges))
    for done, loss in ((0.0, violating_triplets), (0.9, hardest_triplets)):
        assert pair_loss("triplet", first, second, LABELS, 5.0, done) == loss(first, second, LABELS)


def test_a_batch_of_one_label_has_no_negatives() -> None:
    first, second = unit_rows(3, 1).requires_grad_(), unit_rows(3, 2)
    alike = torch.zeros(3)
    losses = [
        infonce(first, second, alike, 5.0),
        *(f(first, second, alike) for f in (hardest_triplets, violating_triplets)),
    ]
    for loss in losses:
        assert float(loss.detach()) == pytest.approx(0)
        (gradient,) = torch.autograd.grad(loss, first)
        assert bool(gradient.isfinite().all())


def test_average_precision_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(3)
    scores, relevant = rng.random((5, 9)), rng.random((5, 9)) < 0.4
    relevant[2] = False
    known = []
    for row in (0, 1, 3, 4):
        ranked = sorted(range(9), key=lambda column: -scores[row, column])
        ranks = [rank for rank, column in enumerate(ranked, 1) if relevant[row, column]]
        known.append(sum(hit / rank for hit, rank in enumerate(ranks, 1)) / len(ranks))
    assert mean_average_precision(scores, relevant) == pytest.approx(np.mean(known))
    assert mean_average_precision(scores, relevant & False) == 0


@pytest.mark.parametrize("kind", ["gru", "lstm", "transformer"])
def test_padding_changes_a_text_by_rounding_alone(kind: str) -> None:
    """While it is learned from; a finished tower reads one text at a time."""
    tokens = WordTokens.learned(TEXTS)
    both = towers(TowerShape(kind, tokens.size, 16, 8, 2, 5, 16)).eval()  # type: ignore[arg-type]
    texts = [tokens.tokens(read_words(text)) for text in TEXTS]
    with torch.no_grad():
        beside = both["text"](Batch.of(texts)).numpy()
    alone = np.stack([text_vector(both, text, 16) for text in texts])
    np.testing.assert_allclose(beside, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)
    assert not text_vector(both, [], 16).any()


@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 3, 3, 4], [7, 7, 8], [5] * 4, []])
def test_held_out_products_are_whole_products(labels: list[int]) -> None:
    column = np.array(labels, np.int64)
    rows, held = hold_out_labels(column, 0.3, 0)
    assert sorted([*rows, *held]) == list(range(len(labels)))
    assert not set(column[rows]) & set(column[held])
    assert len(set(column[held])) == (2 if len(set(labels)) >= 4 else 0)
    assert not len(hold_out_labels(column, 0.0, 0)[1])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"text_tower": "rnn"}, "--text-tower 'rnn' is not one of gru, lstm, transformer"),
        ({"epochs": 0}, "--epochs 0 is not between 1 and"),
        ({"dims": 4}, "--dims 4 is not between 8 and 1024"),
        ({"lr": 0.0}, "--lr 0 must be a number above 0"),
        ({"holdout": 0.95}, "--holdout 0.95 must be at least 0 and below 0.9"),
        ({"patience": 3, "holdout": 0.0}, "--patience 3 needs products to choose by"),
        ({"text_tower": "transformer", "hidden": 30}, "--hidden 30 of a transformer must be divisible by 4"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        PairSettings(**given)


class TestWordVectors:
    def test_known_words_start_there_and_others_do_not(self, tmp_path: Path) -> None:
        file = tmp_path / "glove.txt"
        file.write_text("".join(f"{word} {' '.join(['3'] * 8)}\n" for word in ("mug", "xylophone", "Teal")))
        tokens = WordTokens.learned(TEXTS)
        start = start_from(file, tokens, width_of(file))
        known = {word for row, word in enumerate(tokens.vocabulary) if np.isfinite(start[row]).all()}
        assert known == {"mug", "teal"}
        np.testing.assert_allclose(np.linalg.norm(start[np.isfinite(start[:, 0])], axis=1), 1, atol=1e-6)

    def test_bad_files_are_one_sentence(self, tmp_path: Path) -> None:
        tokens = WordTokens.learned(TEXTS)
        file = tmp_path / "glove.txt"
        with pytest.raises(BenchError, match=r"glove.txt: cannot be read \(No such file"):
            width_of(file)
        file.write_text("mug 1 2 3\n")
        with pytest.raises(BenchError, match="its first line is no word with 8 to 1024 numbers"):
            width_of(file)
        file.write_text("mug 1 2 x\n")
        with pytest.raises(BenchError, match="line 1 does not hold 8 finite numbers"):
            start_from(file, tokens, 8)
        file.write_text("xylophone 1 2\n")
        with pytest.raises(BenchError, match="none of the words of train is in it"):
            start_from(file, tokens, 8)
        with pytest.raises(BenchError, match="are of words and not of pieces"):
            start_from(file, PieceTokens.learned(TEXTS), 8)
