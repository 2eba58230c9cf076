"""Bad input of networks and trainings through the command line: one sentence, exit code 2, no traceback.

What goes wrong with one method of a run fails its row alone (exit code 4), with the same sentence.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from typer.testing import Result

from retrieval_bench.records.files import load
from retrieval_bench.system.checkpoint import save_weights
from tests.support import command
from tests.support.nasty import photo, picture

pytestmark = pytest.mark.slow(reason="loads networks, one for each mistake")

NETWORK = "shufflenet_v2_x0_5"
TRAIN = ("--image-size", 32, "--batch", 4, "--epochs", 1, "--augment", "none", "--precision", "float32")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for first, part in enumerate(("train", "gallery", "query")):  # other pixels in every split
        for number in range(8):
            photo(tmp_path / "shelf" / part / ("mug" if number < 4 else "bowl") / f"{number}.png", 16 * first + number)
    return tmp_path / "shelf"


def call(*words: object) -> Result:
    result = command.call(*words)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def train(shelf: Path, out: Path, *words: object) -> Result:
    where = ("--dataset", "folder", "--data-root", shelf, "--out", out, "--method", NETWORK, "--device", "cpu")
    return call("train", *where, *TRAIN, *words)


def run(shelf: Path, out: Path, methods: str, *words: object) -> Result:
    where = ("--dataset", "folder", "--data-root", shelf, "--out", out, "--methods", methods, "--k", 1, "--recompute")
    return call("run", *where, *words)


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def network(name: str = NETWORK, classes: int = 1000) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return models.get_model(name, weights=None, num_classes=classes)


def with_a_note() -> bytes:
    """Weights that say of their training what nobody can read."""
    state = network().state_dict()
    state._metadata["retrieval_bench.training"] = {"format": 7, "facts": "?"}
    return saved(state)


class Bomb:
    """Pickled code: it makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.folder),))


WEIGHTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "truncated": (
        lambda: saved(network().state_dict())[:100_000],
        f"weights file {NETWORK}.pth cannot be read as a state dict",
    ),
    "of another network": (
        lambda: saved(network("squeezenet1_1").state_dict()),
        f"weights file {NETWORK}.pth lacks conv1.0.weight and ",
    ),
    "of a wider network": (
        lambda: saved(network("shufflenet_v2_x1_0").state_dict()),
        "has shape (58, 24, 1, 1), this network needs (24, 24, 1, 1); it fits shufflenet_v2_x1_0 of torchvision",
    ),
    "a pickled network": (
        lambda: saved({"model": network(), "epoch": 3}),
        f"weights_only=False)['model']; torch.save(net.state_dict(), '{NETWORK}-plain.pth')",
    ),
    "not finite": (
        lambda: saved({name: value * float("nan") for name, value in network().state_dict().items()}),
        "holds NaN or inf; replace it by a good copy",
    ),
    "with a note of another format": (
        with_a_note,
        "the notes must have format 1: train again, or save only the state dict",
    ),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_bad_weights_are_one_sentence(shelf: Path, tmp_path: Path, what: str) -> None:
    content, sentence = WEIGHTS[what]
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{NETWORK}.pth").write_bytes(content())
    trained = train(shelf, tmp_path / "a.pth", "--weights", folder)
    assert trained.exit_code == 2
    assert sentence in said(trained)
    assert not (tmp_path / "a.pth").exists()
    ran = run(shelf, tmp_path / "record", f"{NETWORK},phash", "--weights", folder)
    assert ran.exit_code == 4
    failed, fine = load(tmp_path / "record").rows
    assert failed.error is not None
    assert failed.error.kind == "BenchError"
    assert sentence in failed.error.sentence
    assert "\n" not in failed.error.sentence
    assert fine.status == "ok"


@pytest.mark.parametrize("content", [Bomb, lambda folder: {"weight": Bomb(folder)}], ids=["bare", "in a dict"])
def test_code_in_weights_is_not_run(shelf: Path, tmp_path: Path, content: Callable[[Path], object]) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{NETWORK}.pth").write_bytes(saved(content(tmp_path / "exploded")))
    trained = train(shelf, tmp_path / "a.pth", "--weights", folder)
    assert trained.exit_code == 2
    assert f"weights file {NETWORK}.pth was not read: that would call posix.mkdir, which no weights need" in said(
        trained
    )
    ran = run(shelf, tmp_path / "record", f"{NETWORK}:weights={folder / NETWORK}.pth")
    assert ran.exit_code == 4
    assert "was not read" in said(ran)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.slow(reason="a whole training each")
@pytest.mark.parametrize("mode", ["head", "finetune"])
def test_weights_of_any_number_of_classes_are_gone_on_with(shelf: Path, tmp_path: Path, mode: str) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / f"{NETWORK}.pth").write_bytes(saved(network(classes=7).state_dict()))
    result = train(shelf, tmp_path / "a.pth", "--weights", folder, "--mode", mode)
    assert result.exit_code == 0, result.stderr
    assert torch.load(tmp_path / "a.pth", weights_only=True)["fc.weight"].shape == (2, 1024)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: b"PK\x03\x04", "cannot be read as a checkpoint"),
        (lambda: saved({"format": 1, "state": {}}), "is not a checkpoint of this program; train without --resume"),
        (lambda: saved([1, 2]), "is not a checkpoint of this program; train without --resume"),
    ],
    ids=["truncated", "without identity", "a list"],
)
def test_a_bad_checkpoint_is_one_sentence(
    shelf: Path, tmp_path: Path, content: Callable[[], bytes], sentence: str
) -> None:
    (tmp_path / "a.pth.checkpoint").write_bytes(content())
    result = train(shelf, tmp_path / "a.pth", "--mode", "scratch", "--resume")
    assert result.exit_code == 2
    assert sentence in said(result)


@pytest.mark.slow(reason="several whole trainings each")
@pytest.mark.parametrize(
    ("full", "sentence"),
    [
        ("a.pth.checkpoint", "checkpoint of "),
        ("a.pth", "free some space and continue with --resume: the checkpoint of the last epoch is still there"),
    ],
)
def test_a_full_disk_is_one_sentence(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str, sentence: str
) -> None:
    write = Path.write_bytes

    def limited(self: Path, content: bytes) -> int:
        if self.name.startswith(f".{full}.") and self.name.count(".") == full.count(".") + 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", limited)
    result = train(shelf, tmp_path / "a.pth", "--mode", "scratch")
    assert result.exit_code == 2
    assert sentence in said(result)
    assert "cannot be saved: " in said(result)
    assert "No space left on device" in said(result)
    left = {path.name for path in tmp_path.iterdir()} - {"shelf"}
    assert left == (set() if full.endswith("checkpoint") else {"a.pth.checkpoint"})
    monkeypatch.undo()
    again = train(shelf, tmp_path / "a.pth", "--mode", "scratch", "--resume")
    assert again.exit_code == 0, again.stderr
    straight = train(shelf, tmp_path / "b.pth", "--mode", "scratch")
    assert straight.exit_code == 0, straight.stderr
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pth", "b.pth"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--batch", 2, "--lr", 1e30), "training: the loss is nan in epoch "),
        (
            ("--lr", 3e38, "--weight-decay", 1e9, "--batch", 8),
            "training: the network holds numbers that are not finite after epoch 1; lower --lr (now 3e+38)",
        ),
        (("--lr", 1e30, "--batch", 8, "--ema-decay", 0), "training: the network gives numbers that are not finite"),
    ],
    ids=["in the loss", "in the weights", "in the features"],
)
def test_numbers_that_overflow_end_a_training(
    shelf: Path, tmp_path: Path, words: tuple[object, ...], sentence: str
) -> None:
    result = train(
        shelf, tmp_path / "a.pth", "--mode", "scratch", "--optimizer", "sgd", "--schedule", "constant",
        "--holdout", 0.3, *words,
    )  # fmt: skip
    assert result.exit_code == 2
    assert sentence in said(result).replace("is inf", "is nan")
    assert "or choose --precision float32" in said(result)
    assert not (tmp_path / "a.pth").exists()


@pytest.mark.parametrize("methods", [NETWORK, "convnet", f"phash+{NETWORK}"])
def test_cuda_that_is_not_there(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, methods: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run(shelf, tmp_path / "record", methods, "--device", "cuda", "--weights", "random")
    assert result.exit_code == 2
    assert "--device cuda: torch sees no CUDA device here; use --device cpu or auto" in said(result)
    assert not (tmp_path / "record").exists()


@pytest.mark.slow(reason="a whole training each")
@pytest.mark.parametrize("mode", ["head", "finetune", "scratch"])
def test_labels_of_no_image_and_of_one_are_told_and_trained(shelf: Path, tmp_path: Path, mode: str) -> None:
    photo(shelf / "train" / "plate" / "only.png", 300)
    photo(shelf / "query" / "fork" / "asked.png", 301)
    (shelf / "train" / "spoon").mkdir()
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(network().state_dict(), folder / f"{NETWORK}.pth")
    result = train(shelf, tmp_path / "a.pth", "--weights", folder, "--mode", mode, "--holdout", 0.3)
    assert result.exit_code == 0, result.stderr
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert state["fc.weight"].shape[0] == 3
    assert all(value.isfinite().all() for value in state.values())


def test_a_label_that_is_alone_is_one_sentence(tmp_path: Path) -> None:
    for part in ("train", "gallery", "query"):
        for label in ("mug",) if part == "train" else ("mug", "bowl"):
            photo(tmp_path / "shelf" / part / label / "0.png", hash((part, label)) % 1000)
    result = train(tmp_path / "shelf", tmp_path / "a.pth", "--mode", "scratch")
    assert result.exit_code == 2
    assert "training needs images of at least two labels; the train split has 1" in said(result)


def odd_images(folder: Path, seed: int) -> None:
    """Images of every kind that a decoder meets, and of one pixel and of one row."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = Image.fromarray(picture(seed))
    grey = np.asarray(whole.convert("L"))
    clear = Image.fromarray(grey // 2)
    whole.convert("L").save(folder / "grey.png")
    Image.merge("LA", (whole.convert("L"), clear)).save(folder / "grey-clear.png")
    Image.merge("RGBA", (*whole.split(), clear)).save(folder / "clear.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "16-bit.png")
    whole.convert("1").save(folder / "1-bit.png")
    whole.convert("P").save(folder / "palette.png")
    whole.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(picture(seed)[:1, :1]).save(folder / "pixel.png")
    Image.fromarray(picture(seed)[:1]).save(folder / "row.png")


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    for first, part in enumerate(("train", "gallery", "query")):
        for label in range(2):
            odd_images(tmp_path / "odd" / part / f"label-{label}", 10 * first + label)
    return tmp_path / "odd"


@pytest.mark.slow(reason="three trainings and a run")
def test_odd_images_go_through_networks_and_training(odd: Path, tmp_path: Path) -> None:
    trained = train(odd, tmp_path / f"{NETWORK}.pth", "--mode", "scratch", "--augment", "rotate=5")
    assert trained.exit_code == 0, trained.stderr
    for mode in ("head", "finetune"):
        again = train(odd, tmp_path / f"{mode}.pth", "--mode", mode, "--weights", tmp_path)
        assert again.exit_code == 0, again.stderr
        state = torch.load(tmp_path / f"{mode}.pth", weights_only=True)
        assert all(value.isfinite().all() for value in state.values())
    methods = f"{NETWORK}:weights={tmp_path / NETWORK}.pth,convnet:epochs=1:side=32"
    ran = run(odd, tmp_path / "record", methods)
    assert ran.exit_code == 0, ran.stderr
    record = load(tmp_path / "record")
    assert record.dataset.images.query == 18
    assert not record.dataset.skipped
    assert [row.features.zero_rows for row in record.rows if row.features is not None] == [0, 0]


def test_curves_for_tensorboard_need_a_folder(shelf: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason='needs pip install "retrieval-bench[tensorboard]"')
    (tmp_path / "board").touch()
    result = train(shelf, tmp_path / "a.pth", "--mode", "scratch", "--tensorboard", tmp_path / "board")
    assert result.exit_code == 2
    assert "board: a file of this name exists; name a folder" in said(result)
    assert not (tmp_path / "a.pth").exists()


def test_a_note_of_another_format_is_not_taken_for_no_note(tmp_path: Path) -> None:
    """Without the note nobody could tell that a network has seen the queries."""
    from retrieval_bench.core import BenchError
    from retrieval_bench.system.checkpoint import read_facts

    file = tmp_path / "a.pth"
    save_weights(file, network().state_dict(), {"dataset": "shop", "images": []})
    assert read_facts(file) == {"dataset": "shop", "images": []}
    save_weights(file, network().state_dict(), {"dataset": "shop"})
    with pytest.raises(BenchError, match="cannot read the notes on training"):
        read_facts(file)
