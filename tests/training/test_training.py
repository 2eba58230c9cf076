"""Whole trainings, small: files, resuming after a kill, what cannot be done, what a file says of itself."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import models

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors.deep import weights
from retrieval_bench.registry import EXTRACTORS
from retrieval_bench.system import checkpoint
from retrieval_bench.system.checkpoint import read_facts, refuse_own_images
from retrieval_bench.training import curves, train
from retrieval_bench.training.train import checkpoint_of, run
from retrieval_bench.training_loop.augment import NONE
from retrieval_bench.training_loop.epochs import Epoch
from tests.support.paths import ROOT
from tests.support.shop import shop, split
from tests.support.trainings import NETWORK, task

pytestmark = pytest.mark.slow(reason="trains networks")

"""Small, and with running means, which a checkpoint must not forget."""


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights for NETWORK."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        torch.save(models.get_model(NETWORK, weights=None).state_dict(), folder / f"{NETWORK}.pth")
    return folder


def test_the_file_is_weights_that_a_run_takes(tmp_path: Path) -> None:
    out = tmp_path / f"{NETWORK}-shop.pth"
    outcome = run(task(), out)
    assert len(outcome.history) == 2
    assert all(np.isfinite(line.loss) for line in outcome.history)
    assert not checkpoint_of(out).exists()
    extractor = EXTRACTORS[NETWORK].build(Setup(weights=str(tmp_path)))
    assert extractor.mark == ""
    assert extractor.weights["source"] == f"{out.name} from weights directory"
    untrained = EXTRACTORS[NETWORK].build(Setup(weights="random"))
    images = [np.full((40, 40, 3), 90, np.uint8)]
    assert not np.allclose(extractor.transform(images), untrained.transform(images))
    # And torchvision's own network of three classes takes all of it.
    models.get_model(NETWORK, weights=None, num_classes=3).load_state_dict(torch.load(out, weights_only=True))


def test_a_file_says_what_it_was_trained_on_and_its_own_images_are_refused(tmp_path: Path) -> None:
    job, out = task(epochs=1), tmp_path / f"{NETWORK}.pth"
    run(job, out)
    facts = read_facts(out)
    assert facts is not None
    assert facts["dataset"] == "shop"
    assert facts["fingerprint"] == shop(3, 5).fingerprint
    assert facts["labels"] == ["product-0", "product-1", "product-2"]
    assert facts["identity"]["mode"] == "scratch"
    assert facts["identity"]["seed"] == 0
    own = [job.split.images.digest(row) for row in range(len(job.split))]
    assert facts["images"] == sorted(own), "held out images chose the epoch, so they count as seen"
    new = split("query", [0, 1], 900)
    refuse_own_images(facts, [new.images.digest(row) for row in range(2)], NETWORK)
    refuse_own_images(None, own, NETWORK)
    with pytest.raises(BenchError, match=rf"{NETWORK}: 1 of the query images are among the 15 .*dataset shop"):
        refuse_own_images(facts, [new.images.digest(0), own[4]], NETWORK)
    assert checkpoint.facts_of(OrderedDict()) is None


def test_threads_change_nothing() -> None:
    job = task(epochs=1)
    one = run(replace(job, setup=replace(job.setup, threads=1)), None)
    assert same(one.state, run(job, None).state)


def test_random_layers_are_repeatable_and_leave_torchs_generator_alone() -> None:
    job = task("mobilenet_v3_small", epochs=1)
    before = torch.get_rng_state()
    first = run(job, None).state
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert same(first, run(job, None).state)
    assert not same(first, run(replace(job, settings=replace(job.settings, seed=1)), None).state)


def test_a_head_leaves_the_network_as_it_was(pretrained: Path, tmp_path: Path) -> None:
    job = task(mode="head", epochs=30, augment=NONE)
    job = replace(job, setup=replace(job.setup, weights=str(pretrained)))
    out = tmp_path / "head.pth"
    outcome = run(job, out)
    before, after = torch.load(pretrained / f"{NETWORK}.pth"), torch.load(out, weights_only=True)
    assert all(torch.equal(before[key], after[key]) for key in before if not key.startswith("fc."))
    assert after["fc.weight"].shape[0] == 3
    assert outcome.history[-1].loss < outcome.history[0].loss
    # What the file's classifier says of plain training images is what was learned.
    network = models.get_model(NETWORK, weights=None, num_classes=3).eval()
    network.load_state_dict(after)
    extractor = EXTRACTORS[NETWORK].build(Setup(weights=str(pretrained)))
    inputs = torch.stack([extractor.preprocess(pil(job.split.images[row])) for row in range(15)])
    with torch.inference_mode():
        found = network(inputs).argmax(1).numpy()
    assert (found == job.split.labels).mean() > 0.8


def pil(image: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(image)


def test_fine_tuning_moves_all_but_the_frozen_layers(pretrained: Path) -> None:
    job = task(mode="finetune", epochs=1, freeze=0.3)
    job = replace(job, setup=replace(job.setup, weights=str(pretrained)))
    after = run(job, None).state
    before = torch.load(pretrained / f"{NETWORK}.pth")
    assert torch.equal(before["conv1.0.weight"], after["conv1.0.weight"])
    assert torch.equal(before["conv1.1.running_mean"], after["conv1.1.running_mean"])
    assert not torch.equal(before["conv5.0.weight"], after["conv5.0.weight"])


class Killed(BaseException):
    pass


@pytest.mark.slow(reason="five trainings of four epochs")
def test_a_run_that_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    job = task(epochs=4, patience=3)
    whole = run(job, tmp_path / "whole.pth")
    for stop in (1, 3):
        out = tmp_path / f"{stop}.pth"

        def kill(line: Any, stop: int = stop) -> None:
            if line.epoch == stop:
                raise Killed

        with pytest.raises(Killed):
            run(job, out, on_epoch=kill)
        again = run(job, out, resume=True)
        assert same(again.state, whole.state)
        assert [line.loss for line in again.history] == [line.loss for line in whole.history]
    assert same(torch.load(tmp_path / "1.pth", weights_only=True), torch.load(tmp_path / "whole.pth"))


SCRIPT = """
import sys
from pathlib import Path
from tests.support.trainings import task
from retrieval_bench.training.train import run
run(task(epochs=6), Path(sys.argv[1]), resume="resume" in sys.argv)
"""


def start(out: Path, *words: str) -> subprocess.Popen:
    path = os.pathsep.join([str(ROOT), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), *words],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long(reason="two processes that load torch, and a training to compare them with")
def test_kill_9_and_resume_ends_with_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    out = tmp_path / f"{NETWORK}.pth"
    process = start(out)
    deadline = time.monotonic() + 300
    while not checkpoint_of(out).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(float(np.random.default_rng().uniform(0, 0.4)))  # wherever that is: in a step, or while it is written
    process.kill()
    process.communicate()
    again = start(out, "resume")
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    found = torch.load(out, weights_only=True)
    assert same(found, run(task(epochs=6), None).state)


def test_resuming_another_run_names_what_differs(tmp_path: Path) -> None:
    out = tmp_path / "a.pth"

    def kill(line: Any) -> None:
        raise Killed

    with pytest.raises(Killed):
        run(task(), out, on_epoch=kill)
    with pytest.raises(BenchError, match=r"--resume: .*was written with batch = 6 and this run has 5"):
        run(task(batch=5), out, resume=True)
    checkpoint_of(out).write_bytes(checkpoint_of(out).read_bytes()[:1000])
    with pytest.raises(BenchError, match=r"cannot be read as a checkpoint .*remove it"):
        run(task(), out, resume=True)


def test_nothing_to_resume_is_a_beginning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(task(epochs=1), tmp_path / "a.pth", resume=True)
    assert "there is no a.pth.checkpoint; starting from the beginning" in caplog.text


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    out = tmp_path / "a.pth"
    torch.save({"format": 1, "identity": "{}", "state": Bomb()}, checkpoint_of(out))
    with pytest.raises(BenchError, match="cannot be read as a checkpoint"):
        run(task(), out, resume=True)
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.pth"
    write, written = Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            write(self, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BenchError, match=r"checkpoint of .* MiB cannot be saved: .*No space left.*epoch before"):
        run(task(epochs=3), out)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth.checkpoint"]
    assert same(run(task(epochs=3), out, resume=True).state, run(task(epochs=3), None).state)


def test_a_loss_that_is_not_a_number_ends_training_with_advice() -> None:
    with pytest.raises(
        BenchError, match=r"the loss is (nan|inf) in epoch \d+, step \d+ of \d+; lower --lr \(now 1e\+30"
    ):
        run(task(epochs=3, lr=1e30, optimizer="sgd", precision="float32"), None)


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = task()
    with pytest.raises(BenchError, match="--device cuda: torch sees no CUDA device here; use --device cpu or auto"):
        run(replace(job, setup=replace(job.setup, device="cuda")), None)
    assert train.setup_for(0, "auto", "auto", 1).device == "cpu"
    with pytest.raises(BenchError, match="float16 needs a CUDA device"):
        run(task(precision="float16"), None)


def test_empty_and_single_image_classes_are_told_and_trained(caplog: pytest.LogCaptureFixture) -> None:
    job = task(epochs=1)
    job = replace(job, split=split("train", [0] * 5 + [2] * 5 + [3]), label_names=("a", "b", "c", "d", "e"))
    with caplog.at_level(logging.WARNING):
        outcome = run(job, None)
    assert "2 of 5 labels have no training image, for example 'b'" in caplog.text
    assert "1 labels have one training image, for example 'd'" in caplog.text
    assert outcome.facts["labels"] == ["a", "c", "d"]
    assert outcome.state["fc.weight"].shape[0] == 3


def test_what_cannot_be_trained() -> None:
    job = task()
    with pytest.raises(BenchError, match="at least two labels; the train split has 1"):
        run(replace(job, split=split("train", [1, 1, 1])), None)
    with pytest.raises(BenchError, match="at least two labels; the train split has 0"):
        run(replace(job, split=split("train", [])), None)
    with pytest.raises(BenchError, match="--patience 2: no label has enough images to hold out"):
        run(replace(task(patience=2), split=split("train", [0, 1, 2])), None)
    with pytest.raises(BenchError, match=f"--mode head needs trained weights, and there are none for {NETWORK}"):
        run(task(mode="head"), None)


def test_grey_and_tiny_images_are_trained_on() -> None:
    from retrieval_bench.core import Split
    from retrieval_bench.images.reading import ImageBytes, encode_png

    images = [np.full((1, 1, 3), 40 * row, np.uint8) for row in range(4)]
    images += [np.repeat(np.random.default_rng(row).integers(0, 255, (30, 90, 1), np.uint8), 3, 2) for row in range(4)]
    odd = Split(tuple("abcdefgh"), np.arange(8) % 2, ImageBytes([encode_png(image) for image in images]))
    outcome = run(replace(task(epochs=1), split=odd, label_names=("x", "y")), None)
    assert all(torch.isfinite(value).all() for value in outcome.state.values())


def test_training_ends_when_validation_no_longer_improves() -> None:
    outcome = run(task(epochs=30, patience=2, lr=1e-9), None)
    assert outcome.best == 1
    assert len(outcome.history) == 3


def test_curves_are_drawn(tmp_path: Path) -> None:
    history = run(task(), None).history
    curves.draw(history, "a title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = run(task(), None).history
    curves.tensorboard(history, tmp_path)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in read.Scalars("loss/train")] == pytest.approx([line.loss for line in history])
    assert [event.step for event in read.Scalars("learning rate")] == [line.epoch for line in history]
    judged = [line.accuracy for line in history if line.accuracy is not None]
    assert [event.value for event in read.Scalars("accuracy/validation")] == pytest.approx(judged)


def test_a_full_disk_under_tensorboard_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train` is not installed")

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BenchError, match=r"No space left .*choose another place with --tensorboard; the weights are"):
        curves.tensorboard([Epoch(1, 0.5, None, 0.1, 1.0)], tmp_path / "board")
    assert not list((tmp_path / "board").iterdir())


def test_tensorboard_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match="--tensorboard needs the package of that name: pip install"):
        curves.tensorboard([], tmp_path)


@pytest.fixture(autouse=True)
def nothing_to_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file in torch's cache, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path.parent / "torch"))
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)

    def offline(url: str) -> None:
        raise OSError("offline")

    monkeypatch.setattr(weights, "_probe", offline)
