"""`python -m benchmark train --mode pairs`: from options to a file, and its sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from retrieval_bench.core import Setup
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.command import call
from tests.support.pair_tasks import OTHERS, WORDS
from tests.support.shop import shelf_at


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the small shop, with a column of texts."""
    folder = tmp_path_factory.mktemp("shop")
    shelf_at(folder)
    lines = ["path,label,split,text"]
    for file in sorted(folder.rglob("*.png")):
        part, label, _ = file.relative_to(folder).parts
        said = (WORDS, OTHERS)[int(file.stem) % 2][int(label[-1])]
        lines.append(f"{file.relative_to(folder).as_posix()},{label},{part},{said}")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def train(listed: Path, out: Path, *words: object) -> Result:
    fixed = ["--mode", "pairs", "--dataset", "manifest", "--data-root", listed, "--out", out, "--device", "cpu"]
    method = [] if "--method" in words else ["--method", "hsv:levels=1"]
    return call("train", *fixed, *method, *words)


@pytest.mark.slow(reason="trains from the command line")
def test_towers_are_trained_and_used(listed: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine" / "shop.safetensors"
    small = ("--epochs", 2, "--batch", 4, "--dims", 16, "--text-tower", "lstm", "--holdout", 0.5)
    result = train(listed, out, *small)
    assert result.exit_code == 0, result.stderr
    assert "epoch 2 of 2: loss" in result.stderr
    assert "held-out products" in result.stderr
    assert "the method is pairs:" in " ".join(result.stderr.split())
    assert {path.suffix for path in out.parent.iterdir()} == {".safetensors", ".csv", ".png"}
    table = out.with_suffix(".csv").read_text().splitlines()
    assert table[0] == "epoch,loss,mean average precision among held-out products,learning rate,seconds"
    assert len(table) == 3
    rows = parse(EXTRACTORS, f"pairs:{out}").build(Setup()).transform_texts(["red mug honey", ""])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "siftt"], "did you mean 'sift'"),
        (["--method", "sift:wordss=3"], "did you mean 'words'"),
        (["--augment", "none"], "--augment is an option of networks alone; leave it out of --mode pairs"),
        (["--loss", "proxy-anchor"], "--loss proxy-anchor: --mode pairs has triplet, infonce"),
        (["--patience", "2", "--holdout", "0"], "--patience 2 needs products to choose by"),
        (["--lr", "0"], "--lr 0 must be a number above 0"),
        (["--tokens", "pieces", "--word-vectors", "none.txt"], "--word-vectors none.txt: cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(listed: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    result = train(listed, tmp_path / "a.safetensors", *words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_the_file_is_one_of_safetensors(listed: Path, tmp_path: Path) -> None:
    result = train(listed, tmp_path / "a.pth")
    assert result.exit_code == 2
    assert "a.pth: a file of weights must end in .safetensors" in result.stderr


@pytest.mark.parametrize("words", [["--text-tower", "gru"], ["--word-vectors", "glove.txt"], ["--dims", "64"]])
def test_networks_have_no_options_of_pairs(tmp_path: Path, words: list[str]) -> None:
    given = ["train", "--method", "resnet18", "--mode", "scratch", "--out", str(tmp_path / "a.pth"), *words]
    result = call(*given)
    assert result.exit_code == 2
    sentence = f"{words[0]} is an option of --mode pairs; leave it out of --mode scratch"
    assert sentence in " ".join(result.stderr.split())
