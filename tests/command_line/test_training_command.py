"""`python -m benchmark train`: from options to files, and its sentences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import Result

from retrieval_bench.system.checkpoint import read_facts
from tests.support.command import call
from tests.support.nasty import photo

pytestmark = pytest.mark.slow(reason="trains networks from the command line")

NETWORK = "shufflenet_v2_x0_5"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for first, part in enumerate(("train", "gallery", "query")):  # other pixels in every split
        for number in range(8):
            label = "mug" if number < 4 else "bowl"
            photo(tmp_path / "shelf" / part / label / f"{number}.png", 16 * first + number)
    return tmp_path / "shelf"


def train(shelf: Path, out: Path, *words: object) -> Result:
    fixed = ["--dataset", "folder", "--data-root", shelf, "--out", out, "--batch", 4, "--device", "cpu"]
    fixed += [] if "--side" in words or "--image-size" in words else ["--image-size", 32]
    return call("train", *fixed, *words)


def test_a_network_is_trained_and_used(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine" / f"{NETWORK}-mugs.pth"
    result = train(shelf, out, "--method", NETWORK, "--mode", "scratch", "--epochs", 2, "--augment", "rotate=5")
    assert result.exit_code == 0, result.stderr
    assert "epoch 2 of 2: loss" in result.stderr
    assert {path.name for path in out.parent.iterdir()} == {out.name, out.with_suffix(".png").name}
    facts = read_facts(out)
    assert facts is not None
    assert facts["dataset"] == "folder"
    assert facts["identity"]["augment"]["rotate"] == 5
    words = ["run", "--dataset", "folder", "--data-root", shelf, "--methods", NETWORK, "--weights", out.parent]
    ran = call(*words, "--out", tmp_path / "record", "--recompute", "--k", 1)
    assert ran.exit_code == 0, ran.stderr
    assert "[untrained]" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "sift"], "--method sift: not a network that can be trained; name one of torchvision"),
        (["--method", "resnet5O"], "did you mean 'resnet50'"),
        (["--method", NETWORK, "--weights", "nowhere"], "--weights 'nowhere' is no folder"),
        (["--method", NETWORK, "--augment", "zoom=1"], "unknown; write none, or any of crop"),
        (["--method", NETWORK, "--mode", "head", "--weights", "random"], "needs trained weights"),
        (["--method", NETWORK, "--mode", "tune"], "tune"),
        (["--method", NETWORK, "--patience", "2", "--holdout", "0"], "--patience 2 needs a validation part"),
        (["--method", NETWORK, "--mode", "scratch", "--image-size", "4"], "4 is not between 16 and 2048 pixels"),
        (
            ["--method", NETWORK, "--mode", "scratch", "--progressive-resizing", "100000"],
            "100000 is not between 16 and 2048",
        ),
        (
            ["--method", "vit_b_32", "--mode", "scratch"],
            "Expected 224 but got 32!); leave out --image-size and --progressive-resizing or take another network",
        ),
    ],
)
def test_mistakes_are_one_sentence(shelf: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    result = train(shelf, tmp_path / "a.pth", *words)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("former", "flag", "value"),
    [
        ("--side", "--image-size", "32"),
        ("--early-side", "--progressive-resizing", "32"),
        ("--average", "--ema-decay", "0.5"),
        ("--views", "--augmentations", "2"),
        ("--shards", "--micro-batches", "1"),
    ],
)
def test_a_flag_and_its_former_name_are_not_given_at_once(
    shelf: Path, tmp_path: Path, former: str, flag: str, value: str
) -> None:
    result = train(shelf, tmp_path / "a.pth", "--method", NETWORK, "--mode", "scratch", flag, value, former, value)
    assert result.exit_code == 2
    assert f"{former} is the former name of {flag}; give the value once, with {flag}" in " ".join(result.stderr.split())


def test_former_flags_go_on_working_and_files_keep_the_former_names(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.pth"
    former = ("--side", 40, "--early-side", 32, "--average", 0.5, "--views", 2, "--shards", 1)
    result = train(shelf, out, "--method", NETWORK, "--mode", "scratch", "--epochs", 1, *former)
    assert result.exit_code == 0, result.stderr
    facts = read_facts(out)
    assert facts is not None
    stored = {"side": 40, "early_side": 32, "average": 0.5, "views": 2, "shards": 1}
    assert {name: facts["identity"][name] for name in stored} == stored


def test_cuda_that_is_not_there(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = train(shelf, tmp_path / "a.pth", "--method", NETWORK, "--mode", "scratch", "--device", "cuda")
    assert result.exit_code == 2
    assert "torch sees no CUDA device here; use --device cpu or auto" in result.stderr


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("a.png", "a.png: a file of weights must end in .pth or .pt"),  # where the picture of the curves would lie
        ("a", "a: a file of weights must end in .pth or .pt"),
        ("a.safetensors", "a.safetensors: a file of weights must end in .pth or .pt"),
        ("shelf/train/mug/0.png/a.pth", "a.pth: cannot be written (File exists); name another place"),
    ],
)
def test_a_place_that_will_not_do_is_told_before_the_training(
    shelf: Path, tmp_path: Path, out: str, sentence: str
) -> None:
    result = train(shelf, tmp_path / out, "--method", NETWORK, "--mode", "scratch")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "epoch" not in result.stderr


def test_a_board_that_cannot_be_written_is_told_before_the_training(shelf: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train` is not installed")
    board = shelf / "train" / "mug" / "0.png" / "board"
    result = train(shelf, tmp_path / "a.pth", "--method", NETWORK, "--mode", "scratch", "--tensorboard", board)
    assert result.exit_code == 2
    assert "board: cannot be written (Not a directory); name another place" in result.stderr
    assert "epoch" not in result.stderr


def test_a_folder_is_no_file(shelf: Path, tmp_path: Path) -> None:
    result = train(shelf, tmp_path, "--method", NETWORK)
    assert result.exit_code == 2
    assert "a folder of this name exists; name a file" in result.stderr
