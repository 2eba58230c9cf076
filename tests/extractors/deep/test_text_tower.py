"""`clip:NAME` reads texts into the space of its pictures: held against open_clip's own tokenizer and text tower."""

from __future__ import annotations

import functools
import json
import logging
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import retrieval_bench.extractors  # noqa: F401 - registers the methods
from retrieval_bench.core import BenchError, Dataset, Extractor, Setup
from retrieval_bench.experiment.runner import run
from retrieval_bench.extractors.deep import text_tower, weights
from retrieval_bench.extractors.deep.text_tower import CHARACTERS, EVERY_TOWER_HAS, text_sha256, without_pictures
from retrieval_bench.records.files import load_rankings
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.timing import pinned
from tests.support.pictures import photo_of
from tests.support.runs import plan
from tests.support.shop import shop
from tests.support.splits import a_split

open_clip = pytest.importorskip("open_clip", reason="needs pip install 'retrieval-bench[clip]'")

pytestmark = [
    pytest.mark.slow(reason="loads open_clip, which loads timm"),
    pytest.mark.filterwarnings("ignore"),  # the library's own
]

SEED = 5
RANDOM = Setup(seed=SEED, weights="random")
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
TINY = {
    "tiny-plain": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT},
    "tiny-custom": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT, "custom_text": True},
    "tiny-coca": {
        "embed_dim": 32,
        "vision_cfg": VISION
        | {"attentional_pool": True, "attn_pooler_queries": 8, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
        "custom_text": True,
    },
    "tiny-hub": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT | {"hf_tokenizer_name": "bert-base-uncased"}},
}
SAMPLES = (
    "a red mug with stripes",
    "Red Running SHOES, size 42!",
    "two   spaces\nand a line",
    "it's the baker's jar",
    "crème brûlée, 12 €",
    "漢字と仮名",
    "a red t-shirt 👟🏽",
    "حذاء جري أحمر",
    "<b>Tom &amp; Jerry</b>",
    "word " * 200,
)
EMPTY = ("", " ", "\n\t \r", "\u00a0\u3000\u2028")
NASTY = (
    *SAMPLES,
    *EMPTY,
    "👩‍👩‍👧" * 30,
    "נעלי ריצה \u202eאדומות\u202c to the right",
    "bell\x07 and nul\x00 and escape\x1b[31m shoes",
    "\x00\x01\x02",
    "half of a pair \ud83d of shoes \udc5f",
    "\udcff\ud800",
    "<start_of_text> <end_of_text> [SEP] </s>",
    "z" + "\u0316\u0301" * 40,
    "a red mug with stripes",
)


@pytest.fixture(scope="module", autouse=True)
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Models of open_clip that are small enough for tests, known to it by their names as its own are."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in TINY.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    yield
    paths = open_clip.factory._MODEL_CONFIG_PATHS
    paths.remove(folder)
    for name in TINY:
        open_clip.factory._MODEL_CONFIGS.pop(name)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a run; and no folder of weights but those that a test names."""
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)
    with pinned(1):
        yield


def built(method: str, setup: Setup = RANDOM) -> Any:
    return parse(EXTRACTORS, method).build(setup)


@functools.cache
def tiny() -> Any:
    """One for all tests that only ask it for rows."""
    return built("clip:tiny-plain")


def whole_model(name: str, seed: int = SEED) -> Any:
    """open_clip's own, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.create_model(name, pretrained=None).eval()


def of_open_clip(model: Any, name: str, texts: tuple[str, ...]) -> np.ndarray:
    """What the library makes of texts, by its own functions, all in one batch."""
    with torch.inference_mode():
        return model.encode_text(open_clip.get_tokenizer(name)(list(texts)), normalize=True).numpy()


@pytest.mark.parametrize("name", ["tiny-plain", "tiny-custom", "tiny-coca"])
def test_rows_are_those_of_open_clip(name: str) -> None:
    found = built(f"clip:{name}").transform_texts(SAMPLES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, of_open_clip(whole_model(name), name, SAMPLES), atol=1e-5)


@pytest.mark.long(reason="a model of full size, twice")
def test_rows_of_a_model_of_full_size_are_those_of_open_clip() -> None:
    extractor = built("clip:ViT-B-32")
    texts = SAMPLES[:3]
    found = extractor.transform_texts(texts)
    np.testing.assert_allclose(found, of_open_clip(whole_model("ViT-B-32"), "ViT-B-32", texts), atol=1e-5)
    assert found.shape == (3, extractor.dimensions)


@pytest.mark.parametrize("name", ["tiny-plain", "tiny-custom", "tiny-coca"])
def test_pictures_are_those_of_open_clip(name: str) -> None:
    model, picture = whole_model(name), photo_of(40, 32)
    with torch.inference_mode():
        pixels = built(f"clip:{name}").preprocess(np.asarray(picture))[None]
        wanted = torch.nn.functional.normalize(model.encode_image(pixels), dim=1).numpy()
    np.testing.assert_allclose(built(f"clip:{name}").transform([np.asarray(picture)]), wanted, atol=1e-5)


def test_it_says_what_it_reads() -> None:
    extractor = tiny()
    assert isinstance(extractor, Extractor)
    assert EXTRACTORS["clip"].facts["modalities"] == ("image", "text")
    assert "modalities" not in EXTRACTORS["timm"].facts
    assert not hasattr(built("resnet18"), "transform_texts")
    assert tiny().transform_texts([]).shape == (0, 32)


def test_rows_are_of_length_1_or_zero() -> None:
    rows = tiny().transform_texts(NASTY)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    nothing = [row for row, text in enumerate(NASTY) if text in (*EMPTY, "\x00\x01\x02")]
    assert not rows[nothing].any()
    assert (np.abs(np.delete(lengths, nothing) - 1) < 1e-6).all()
    np.testing.assert_array_equal(rows[0], rows[-1])


def test_a_row_depends_on_its_text_alone() -> None:
    expected = tiny().transform_texts(NASTY)
    order = np.random.default_rng(3).permutation(len(NASTY))
    np.testing.assert_array_equal(tiny().transform_texts([NASTY[row] for row in order]), expected[order])
    for row, text in enumerate(NASTY):
        np.testing.assert_array_equal(tiny().transform_texts([text])[0], expected[row])


def test_threads_may_begin_at_once() -> None:
    """None of them has loaded the tower or filled the tokenizer's memory before."""
    expected = tiny().transform_texts(NASTY)
    extractor = built("clip:tiny-plain")
    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(lambda _: extractor.transform_texts(NASTY), range(8)):
            np.testing.assert_array_equal(rows, expected)


def test_threads_that_load_two_models_draw_the_numbers_of_one() -> None:
    extractors = [built("clip:tiny-plain"), built("clip:tiny-custom")] * 2
    wanted = [of_open_clip(whole_model(name), name, SAMPLES[:1]) for name in ("tiny-plain", "tiny-custom")] * 2
    with ThreadPoolExecutor(4) as pool:
        for rows, own in zip(pool.map(lambda one: one.transform_texts(SAMPLES[:1]), extractors), wanted, strict=True):
            np.testing.assert_allclose(rows, own, atol=1e-5)


@pytest.mark.parametrize("unit", ["red shoes ", "a", "漢", "<b>", "\ud800 shoe ", "😀", "\ufdfa", "&amp;amp;"])
def test_a_megabyte_of_text_is_cut(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    began = time.perf_counter()
    (row,) = tiny().transform_texts([text])
    assert time.perf_counter() - began < 20  # bounded; on an idle core it is less than 1
    np.testing.assert_array_equal(row, tiny().transform_texts([text[:CHARACTERS]])[0])


def test_the_tokenizer_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tiny().transform_texts(NASTY)
    monkeypatch.setattr(text_tower, "KNOWN_WORDS", 3)
    extractor = built("clip:tiny-plain")
    np.testing.assert_array_equal(extractor.transform_texts(NASTY), expected)
    _, tokenizer, _ = extractor.backbone.texts._ready()
    assert len(tokenizer.cache) <= 3
    np.testing.assert_array_equal(extractor.transform_texts(NASTY), expected)


def test_random_weights_are_the_same_every_time_and_are_told() -> None:
    first, second, other = (built("clip:tiny-plain", replace(RANDOM, seed=seed)) for seed in (SEED, SEED, 6))
    np.testing.assert_array_equal(first.transform_texts(SAMPLES), second.transform_texts(SAMPLES))
    assert not np.array_equal(first.transform_texts(SAMPLES), other.transform_texts(SAMPLES))
    assert first.mark == "untrained"
    told = dict(second.weights)
    assert told == first.weights
    assert told["text_sha256"] != other.weights["text_sha256"]
    tower, _, _ = first.backbone.texts._ready()
    assert text_sha256(tower) == told["text_sha256"]


def test_loading_gives_the_root_logger_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    built("clip:tiny-plain").transform_texts(["red"])
    assert logging.getLogger().handlers == []


def test_pictures_do_not_load_the_text_tower() -> None:
    extractor = built("clip:tiny-plain")
    extractor.transform([np.asarray(photo_of(40, 32))])
    assert extractor.backbone.texts._loaded is None


def with_module(state: dict[str, Any]) -> dict[str, Any]:
    return {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}


def in_the_other_layout(state: dict[str, Any]) -> dict[str, Any]:
    """The names of the text tower behind `text.`, as open_clip writes them of its custom models."""
    beside = ("visual.", "logit_scale")
    return {name if name.startswith(beside) else f"text.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("tiny-plain", in_the_other_layout),  # the other two are written so already
        *((name, wrap) for name in ("tiny-plain", "tiny-custom", "tiny-coca") for wrap in (dict, with_module)),
    ],
)
def test_a_file_of_weights_fills_both_towers(name: str, wrap: Any, tmp_path: Path) -> None:
    model = whole_model(name, 77)
    torch.save(wrap(model.state_dict()), tmp_path / f"{name}-mine.pt")
    extractor = built(f"clip:{name}", Setup(weights=str(tmp_path)))
    np.testing.assert_allclose(extractor.transform_texts(SAMPLES), of_open_clip(model, name, SAMPLES), atol=1e-5)
    assert (extractor.mark, extractor.weights["source"]) == ("", f"{name}-mine.pt from weights directory")
    assert extractor.weights["unwrapped"].startswith("image tower: ")
    assert "text_sha256" not in extractor.weights
    same = built(f"clip:{name}:weights={tmp_path / f'{name}-mine.pt'}")
    np.testing.assert_array_equal(same.transform_texts(SAMPLES), extractor.transform_texts(SAMPLES))


def test_a_file_of_safetensors_fills_both_towers(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    model = whole_model("tiny-plain", 77)
    safetensors.save_file(model.state_dict(), tmp_path / "tiny-plain.safetensors")
    found = built("clip:tiny-plain", Setup(weights=str(tmp_path))).transform_texts(SAMPLES)
    np.testing.assert_allclose(found, of_open_clip(model, "tiny-plain", SAMPLES), atol=1e-5)


def refused(method: str, setup: Setup = RANDOM) -> str:
    """The sentence with which it refuses texts, after it has described a picture."""
    extractor = built(method, setup)
    extractor.fit(shop().train)
    assert extractor.transform([np.asarray(photo_of(40, 32))]).any()
    with pytest.raises(BenchError) as caught:
        extractor.transform_texts(["red"])
    sentence = str(caught.value)
    assert sentence.startswith(("clip:tiny-", "weights file "))
    assert "\n" not in sentence
    return sentence


def test_files_without_a_text_tower_that_fits_are_refused(tmp_path: Path) -> None:
    state, file = whole_model("tiny-plain", 77).state_dict(), tmp_path / "some.pt"
    method = f"clip:tiny-plain:weights={file}"
    torch.save({name: value for name, value in state.items() if name.startswith("visual.")}, file)
    assert "cannot read texts: weights file some.pt holds no text tower; give" in refused(method)
    torch.save({name: value for name, value in state.items() if name != "ln_final.bias"}, file)
    assert "weights file some.pt lacks ln_final.bias" in refused(method)
    torch.save(state | {EVERY_TOWER_HAS: state[EVERY_TOWER_HAS][:100]}, file)
    assert f"weights file some.pt: {EVERY_TOWER_HAS} has shape (100, 32), this network needs (49408, 32)" in refused(
        method
    )
    torch.save(state | {"ln_final.bias": torch.full((32,), torch.nan)}, file)
    assert "weights file some.pt: ln_final.bias holds NaN or inf" in refused(method)


def test_a_file_that_changes_before_the_first_text_is_refused(tmp_path: Path) -> None:
    """The record has the sha256 of the one that the pictures went through."""
    file = tmp_path / "some.pt"
    torch.save(whole_model("tiny-plain", 77).state_dict(), file)
    extractor = built(f"clip:tiny-plain:weights={file}")
    torch.save(whole_model("tiny-plain", 78).state_dict(), file)
    with pytest.raises(BenchError, match=r"weights file some\.pt was changed while it was in use"):
        extractor.transform_texts(["red"])


def test_a_tokenizer_of_a_hub_is_refused_and_pictures_are_not() -> None:
    sentence = refused("clip:tiny-hub")
    assert "cannot read texts here: open_clip has its tokenizer, bert-base-uncased, from a model hub; take" in sentence
    assert "text_sha256" not in built("clip:tiny-hub").weights


def test_a_model_that_open_clip_cannot_build_ends_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_hub(*_: Any, **__: Any) -> None:
        raise RuntimeError("Please `pip install transformers`\nand more")

    monkeypatch.setattr(open_clip, "create_model", on_a_hub)
    with pytest.raises(BenchError, match=r"^clip:tiny-plain cannot be built: Please `pip install transformers`$"):
        built("clip:tiny-plain")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("whiten=4", "whiten=4: that is learned from pictures"),
        ("centre=yes", "centre=yes: that is learned from pictures"),
        ("tune=head", "tune=head: that is learned from pictures"),
        ("dtype=bits", "dtype=bits: that is learned from pictures"),
        ("centre=yes:tune=head", "centre=yes, tune=head: that is learned .*; leave them out"),
        ("pool=avg", "pool=avg: only what the network gives at its end lies in one space"),
        ("layer=transformer.resblocks.0", r"layer=transformer\.resblocks\.0: only what the network gives at its end"),
    ],
)
def test_options_that_leave_no_common_space_are_refused(options: str, named: str) -> None:
    assert re.search(f"^clip:tiny-plain cannot read texts with {named}", refused(f"clip:tiny-plain:{options}"))


@pytest.mark.parametrize("options", ["flip=yes", "compute=fused", "pool=head", "size=32:crop=yes"])
def test_how_pictures_are_looked_at_does_not_change_texts(options: str) -> None:
    extractor = built(f"clip:tiny-plain:{options}")
    np.testing.assert_array_equal(extractor.transform_texts(SAMPLES), tiny().transform_texts(SAMPLES))


@pytest.mark.parametrize("options", ["dtype=float16", "dtype=int8", "power=0.5", "power=0.5:dtype=int8"])
def test_what_is_done_to_pictures_is_done_to_texts(options: str) -> None:
    extractor = built(f"clip:tiny-plain:{options}")
    rows = extractor.transform_texts(("red", ""))
    pictures = extractor.transform([np.asarray(photo_of(40, 32))])
    assert (rows.dtype, rows.shape[1]) == (pictures.dtype, pictures.shape[1])
    (plain,) = tiny().transform_texts(("red",)).astype(np.float64)
    powered = np.sign(plain) * np.abs(plain) ** (0.5 if "power" in options else 1)
    cosine = rows[0].astype(np.float64) @ powered / np.linalg.norm(rows[0].astype(np.float64)) / np.linalg.norm(powered)
    assert cosine > 0.9995
    assert not rows[1].any()


WORDS = ("red mug stripes", "green bowl", "blue cup dots", "yellow plate")


def shop_with_texts() -> Dataset:
    data = shop()
    texts = {name: tuple(f"{WORDS[label]} {name}" for label in split.labels) for name, split in data.splits.items()}
    texts["query"] = ("", *texts["query"][1:])
    return data.with_splits({name: replace(split, texts=texts[name]) for name, split in data.splits.items()})


def test_texts_find_pictures_in_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(whole_model("tiny-plain", 77).state_dict(), folder / "tiny-plain.pt")
    clip = "clip:tiny-plain"
    sides = {
        f"{clip}": ("image", "image"),
        f"{clip}[text-to-image]": ("text", "image"),
        f"{clip}[text]": ("text", "text"),
        f"{clip}[image+text]": ("image+text", "image+text"),
    }
    data = shop_with_texts()
    record = run(plan(data, *sides, weights=str(folder)), tmp_path / "a")
    assert [row.status for row in record.rows] == ["ok"] * len(sides)
    assert [(row.query, row.gallery) for row in record.rows] == list(sides.values())
    assert not record.violations
    assert record.rows[1].features.dim == 32
    extractor = built(clip, Setup(weights=str(folder)))
    pictures = extractor.transform([data.gallery.images[row] for row in range(len(data.gallery))])
    near = np.argsort(-extractor.transform_texts(data.query.texts) @ pictures.T, axis=1, kind="stable")
    found = load_rankings(tmp_path / "a", record)[f"{record.rows[1].method}/indices"]
    np.testing.assert_array_equal(found[1:, 0], near[1:, 0])
    again = run(plan(data, *sides, weights=str(folder)), tmp_path / "b")
    assert [row.scores for row in record.rows] == [row.scores for row in again.rows]


def test_a_run_says_in_one_sentence_why_texts_cannot_be_read(tmp_path: Path) -> None:
    names = ("clip:tiny-plain:whiten=4[text-to-image]", "clip:tiny-plain[text]")
    record = run(plan(shop_with_texts(), *names, weights="random"), tmp_path)
    assert [row.status for row in record.rows] == ["failed", "ok"]
    assert "cannot read texts with whiten=4" in record.rows[0].error.sentence
    assert "untrained" in record.rows[1].method


def test_fit_returns_self() -> None:
    assert tiny().fit(a_split("train", [0, 1])) is tiny()


def test_what_pictures_pass_through_is_let_go() -> None:
    names = {name.partition(".")[0] for name, _ in without_pictures(whole_model("tiny-coca")).named_parameters()}
    assert names == {"text"}
