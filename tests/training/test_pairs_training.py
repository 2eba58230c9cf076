"""Whole trainings on pairs, tiny: the method that comes out, resuming, what is held out, and what cannot be done."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from retrieval_bench.contracts.extractor import check
from retrieval_bench.core import BenchError, Setup
from retrieval_bench.pair_training.file import KEY, TOKENS, read_pairs, written
from retrieval_bench.registry import EXTRACTORS, parse
from retrieval_bench.system.checkpoint import refuse_own_images
from retrieval_bench.system.timing import pinned
from retrieval_bench.training import pairs as training
from retrieval_bench.training.pairs import run_pairs
from retrieval_bench.training.train import checkpoint_of
from tests.support.pair_tasks import pair_task, shop_with_texts

TEXTS = ("red mug honey", "", "honey", "rde mgu", "كوب أحمر", "mug " * 300, "👍", "<p>blue carton</p>", "\x00\x01 . !")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pairs") / "shop.safetensors"
    run_pairs(pair_task("hsv:levels=1+moments", epochs=40, lr=0.02, holdout=0.0), out)
    return out


def method(file: Path, **setup: Any) -> Any:
    return parse(EXTRACTORS, f"pairs:{file}").build(Setup(**setup))


def changed(file: Path, out: Path, tensors: dict[str, Any] | None = None, **told: Any) -> Path:
    """A copy of a file with other tensors or another header."""
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()[KEY])
    save_file(load_file(file) | (tensors or {}), out, {KEY: json.dumps(header | told)})
    return out


class TestTheMethod:
    def test_pictures_and_texts_lie_in_one_space(self, file: Path) -> None:
        data, extractor = shop_with_texts(), method(file)
        pictures = extractor.transform([data.query.images[row] for row in range(len(data.query))])
        texts = extractor.transform_texts(data.query.texts)
        assert pictures.shape == texts.shape == (20, 16)
        assert pictures.dtype == texts.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(np.concatenate([pictures, texts]), axis=1), 1, atol=1e-6)
        nearest = (texts @ pictures.T).argmax(1)
        assert (data.query.labels[nearest] == data.query.labels).mean() > 0.8

    def test_a_text_counts_alone_to_the_last_bit(self, file: Path) -> None:
        extractor = method(file)
        together = extractor.transform_texts(TEXTS)
        for row, text in enumerate(TEXTS):
            assert np.array_equal(extractor.transform_texts([text])[0], together[row])
        assert np.array_equal(extractor.transform_texts(TEXTS[::-1])[::-1], together)
        with pinned(1), ThreadPoolExecutor(4) as pool:
            for found in pool.map(extractor.transform_texts, [TEXTS] * 8):
                assert np.array_equal(found, together)

    def test_texts_without_a_word_are_rows_of_zeros(self, file: Path) -> None:
        rows = method(file).transform_texts(TEXTS)
        assert [row for row, text in enumerate(TEXTS) if not rows[row].any()] == [1, 8]
        assert np.isfinite(rows).all()
        assert method(file).transform_texts([]).shape == method(file).transform([]).shape == (0, 16)

    @pytest.mark.slow(reason="draws pictures and describes them several times")
    def test_it_keeps_the_contract_of_extractors(self, file: Path) -> None:
        assert [one for one in check(f"pairs:{file}") if one.verdict == "broken"] == []

    def test_it_says_where_it_is_from(self, file: Path) -> None:
        extractor, data = method(file), shop_with_texts()
        assert EXTRACTORS["pairs"].facts["modalities"] == ("image", "text")
        assert extractor.weights["source"] == "shop.safetensors"
        assert extractor.weights["recipe"] == "gru over words, and a layer over hsv:levels=1+moments"
        assert extractor.trained_on["dataset"] == "shop"
        with pytest.raises(BenchError, match="1 of the query images are among the 20"):
            refuse_own_images(extractor.trained_on, [data.train.images.digest(3)], "pairs")
        refuse_own_images(extractor.trained_on, [data.query.images.digest(3)], "pairs")

    def test_what_an_extractor_had_learned_comes_from_the_file(self, file: Path) -> None:
        """The scale of moments was learned by another seed's eyes, and from no picture that is here."""
        image = shop_with_texts().query.images[0]
        assert np.array_equal(method(file).transform([image]), method(file, seed=7).transform([image]))


class TestTraining:
    @pytest.mark.parametrize("tower", ["gru", "lstm", "transformer"])
    @pytest.mark.parametrize("loss", ["infonce", "triplet"])
    def test_a_run_that_goes_on_ends_with_the_same_bytes(self, tmp_path: Path, tower: str, loss: str) -> None:
        task = pair_task(text_tower=tower, loss=loss, tokens="pieces" if loss == "triplet" else "words")
        whole = tmp_path / "whole.safetensors"
        run_pairs(task, whole)
        assert not checkpoint_of(whole).exists()

        def stop(line: Any) -> None:
            if line.epoch == 2:
                raise KeyboardInterrupt

        again = tmp_path / "again.safetensors"
        with pytest.raises(KeyboardInterrupt):
            run_pairs(task, again, on_epoch=stop)
        assert not again.exists()
        epochs: list[int] = []
        run_pairs(task, again, resume=True, on_epoch=lambda line: epochs.append(line.epoch))
        assert epochs == [3]
        assert again.read_bytes() == whole.read_bytes()

    def test_the_seed_decides_and_threads_do_not(self) -> None:
        task = pair_task()
        first = written(run_pairs(task, None).found)
        assert written(run_pairs(replace(task, setup=replace(task.setup, threads=1)), None).found) == first
        other = replace(task, settings=replace(task.settings, seed=1))
        assert written(run_pairs(other, None).found) != first

    def test_torchs_generator_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        run_pairs(pair_task(epochs=1), None)
        assert torch.equal(torch.get_rng_state(), before)

    def test_nothing_is_learned_of_held_out_products(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: dict[str, Any] = {}
        real = training.train_pairs

        def watched(pairs: Any, held: Any, tokens: Any, *args: Any, **more: Any) -> Any:
            seen.update(learned=pairs, held=held, tokens=tokens)
            return real(pairs, held, tokens, *args, **more)

        monkeypatch.setattr(training, "train_pairs", watched)
        data = shop_with_texts()
        found = run_pairs(pair_task(data=data, epochs=1), None).found
        names = found.facts["held_out"]
        assert len(names) == 2
        assert set(names) | set(found.facts["labels"]) == set(data.label_names)
        assert {data.label_names[label] for label in seen["held"].labels} == set(names)
        assert not set(seen["learned"].labels) & set(seen["held"].labels)
        assert not set(seen["learned"].texts) & set(seen["held"].texts)
        lettering = [text.split()[-1] for text in seen["held"].texts]
        assert not set(lettering) & set(seen["tokens"].vocabulary)
        assert len(found.images) == 20, "held-out pictures chose the epoch, so they count as seen"

    def test_early_stopping_keeps_the_best_epoch(self) -> None:
        outcome = run_pairs(pair_task(epochs=40, patience=2), None)
        scores = [line.accuracy for line in outcome.history]
        assert outcome.best == int(np.argmax(scores)) + 1  # type: ignore[arg-type]
        assert len(scores) == min(40, outcome.best + 2)

    def test_any_text_of_a_label_stands_in_for_a_missing_one(self, caplog: pytest.LogCaptureFixture) -> None:
        data = shop_with_texts()
        texts = tuple("" if row % 4 else text for row, text in enumerate(data.train.texts or ()))
        task = pair_task(data=data, epochs=1)
        run_pairs(replace(task, split=replace(task.split, texts=texts)), None)
        assert "15 of 20 train pictures have no text" in caplog.text

    def test_word_vectors_are_a_start(self, tmp_path: Path) -> None:
        glove = tmp_path / "glove.txt"
        glove.write_text(
            "".join(f"{word} {' '.join(['0.5'] * 12)}\n" for word in ("red", "mug", "blue", "solis", "tee"))
        )
        found = run_pairs(replace(pair_task(epochs=1), word_vectors=glove), None).found
        assert found.shape.width == 12


class TestRefusals:
    @pytest.mark.parametrize(
        ("texts", "sentence"),
        [
            (None, "--mode pairs needs a text beside each picture and dataset shop has none"),
            (("",) * 20, "no picture of the train split has a text with a word in it; there is no pair"),
            (("one",) * 4 + ("",) * 16, "needs pictures with texts of at least two labels to learn from"),
        ],
    )
    def test_no_pairs(self, texts: tuple[str, ...] | None, sentence: str) -> None:
        task = pair_task()
        with pytest.raises(BenchError, match=sentence):
            run_pairs(replace(task, split=replace(task.split, texts=texts)), None)

    def test_one_word_for_all_is_learned_from(self) -> None:
        task = pair_task(epochs=1)
        outcome = run_pairs(replace(task, split=replace(task.split, texts=("mug",) * 20)), None)
        assert np.isfinite(outcome.history[0].loss)

    @pytest.mark.parametrize(
        ("name", "sentence"),
        [
            ("oracle", "oracle does not give one vector of a picture alone"),
            ("resnet18", "over a network that has learned already, and there are no weights for it"),
            ("siftt", "did you mean"),
        ],
    )
    def test_extractors_that_do_not_fit(self, name: str, sentence: str) -> None:
        task = pair_task(name)
        with pytest.raises(BenchError, match=sentence):
            run_pairs(replace(task, setup=Setup(weights="random")), None)

    def test_pairs_are_not_made_of_pairs(self, file: Path) -> None:
        with pytest.raises(BenchError, match="pairs reads texts already; name an extractor of pictures alone"):
            run_pairs(pair_task(f"pairs:{file}"), None)

    def test_too_few_products_to_choose_by(self) -> None:
        with pytest.raises(BenchError, match="--patience 2: there are too few labels with texts to hold out"):
            run_pairs(pair_task(data=shop_with_texts(3), patience=2), None)

    def test_a_loss_that_is_not_finite(self) -> None:
        with pytest.raises(BenchError, match=r"training: the loss is nan in epoch \d+.*lower --lr"):
            run_pairs(pair_task(lr=1e30, epochs=20), None)

    @pytest.mark.parametrize(
        ("change", "named"), [({"seed": 3}, "seed"), ({"tokens": "pieces"}, "tokenizer"), ({"dims": 24}, "dims")]
    )
    def test_a_checkpoint_of_another_run(self, tmp_path: Path, change: dict[str, Any], named: str) -> None:
        out, task = tmp_path / "a.safetensors", pair_task()

        def stop(line: Any) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_pairs(task, out, on_epoch=stop)
        other = replace(task, settings=replace(task.settings, **change))
        with pytest.raises(BenchError, match=r"--resume: .*was written with \w+ = "):
            run_pairs(other, out, resume=True)
        if named == "tokenizer":
            texts = tuple(f"{text} more" for text in task.split.texts or ())
            with pytest.raises(BenchError, match="was written with tokenizer = "):
                run_pairs(replace(task, split=replace(task.split, texts=texts)), out, resume=True)

    def test_no_checkpoint_is_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            run_pairs(pair_task(epochs=1), tmp_path / "a.safetensors", resume=True)
        assert "there is no a.safetensors.checkpoint; starting from the beginning" in caplog.text


class TestFiles:
    def test_another_tokenizer_is_refused(self, file: Path, tmp_path: Path) -> None:
        found = read_pairs(file, "pairs:x")
        words = found.tokens.data["vocabulary"]
        swapped = found.tokens.data | {"vocabulary": [words[1], words[0], *words[2:]]}
        for other in (
            changed(file, tmp_path / "a.safetensors", tokens=swapped),
            changed(file, tmp_path / "b.safetensors", {TOKENS: torch.zeros(32, dtype=torch.uint8)}),
        ):
            with pytest.raises(
                BenchError, match=r"pairs:\w.safetensors: its text tower was trained with another token"
            ):
                method(other)

    def test_a_copy_says_the_same(self, file: Path, tmp_path: Path) -> None:
        copy = changed(file, tmp_path / "copy.safetensors")
        assert np.array_equal(method(copy).transform_texts(TEXTS), method(file).transform_texts(TEXTS))

    @pytest.mark.parametrize(
        ("told", "sentence"),
        [
            ({"format": 2}, "its format is 2 and this program reads 1"),
            ({"shape": {"kind": "gru"}}, "it names no towers that this program can build"),
            ({"shape": 3}, "is no whole file of pairs"),
            ({"parts": []}, "is no whole file of pairs"),
            ({"parts": [{"spec": "nothing", "weights_sha256": "", "learned": []}]}, "unknown method 'nothing'"),
            ({"tokens": {"rules": 9}}, "its tokens follow rules 9"),
            ({"facts": {}}, "is no whole file of pairs"),
        ],
    )
    def test_headers_that_cannot_be(self, file: Path, tmp_path: Path, told: dict[str, Any], sentence: str) -> None:
        with pytest.raises(BenchError, match=sentence):
            method(changed(file, tmp_path / "a.safetensors", **told))

    def test_huge_towers_are_not_built(self, file: Path, tmp_path: Path) -> None:
        shape = read_pairs(file, "pairs:x").shape.data | {"features": 10**12}
        with pytest.raises(BenchError, match="it names no towers"):
            method(changed(file, tmp_path / "a.safetensors", shape=shape))

    @pytest.mark.parametrize(
        ("name", "tensor", "sentence"),
        [
            (
                "towers.image.out.bias",
                torch.zeros(3),
                r"image.out.bias is float32 \(3,\) and its towers need float32 \(16,",
            ),
            ("towers.image.out.bias", torch.full((16,), torch.nan), "image.out.bias holds NaN or inf"),
            ("towers.more", torch.zeros(3), "it holds the unknown more"),
        ],
    )
    def test_tensors_that_do_not_fit(
        self, file: Path, tmp_path: Path, name: str, tensor: torch.Tensor, sentence: str
    ) -> None:
        with pytest.raises(BenchError, match=sentence):
            method(changed(file, tmp_path / "a.safetensors", {name: tensor}))

    def test_other_weights_below_are_refused(self, file: Path, tmp_path: Path) -> None:
        parts = [{"spec": "hsv:levels=1", "weights_sha256": "ab" * 32, "learned": []}]
        with pytest.raises(
            BenchError, match="with weights whose sha256 begins with abababab, and here it begins with noth"
        ):
            method(changed(file, tmp_path / "a.safetensors", parts=parts))

    def test_damaged_and_missing_files_are_one_sentence(self, file: Path, tmp_path: Path) -> None:
        with pytest.raises(BenchError, match=r"pairs:none\.safetensors: there is no file"):
            parse(EXTRACTORS, f"pairs:{tmp_path / 'none.safetensors'}").check(Setup())
        content = file.read_bytes()
        bad = tmp_path / "bad.safetensors"
        for some in (b"", b"\xff" * 100, content[:-7], content[:40], b"PK\x03\x04" + content):
            bad.write_bytes(some)
            with pytest.raises(BenchError, match=r"pairs:bad.safetensors: .*bad.safetensors is no whole file of pairs"):
                method(bad)
        save_file({"a": torch.zeros(1)}, bad)
        with pytest.raises(BenchError, match="is no whole file of pairs"):
            method(bad)
