"""A whole training: from a split and the name of a network to a file of weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import retrieval_bench
from retrieval_bench.core import BenchError, Setup, Split
from retrieval_bench.system.checkpoint import restore_state, save_state, save_weights
from retrieval_bench.system.device import check_device, gpu_is_there, gpu_settings, steady
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.training.networks import TrainableNetwork, backbone, check_image_sizes, with_classifier
from retrieval_bench.training_loop.augment import NONE
from retrieval_bench.training_loop.epochs import Epoch
from retrieval_bench.training_loop.frames import Frames
from retrieval_bench.training_loop.head import features, first, folded, probe, standardised
from retrieval_bench.training_loop.holdout import hold_out
from retrieval_bench.training_loop.loop import Trained, train
from retrieval_bench.training_loop.settings import STORED_AS, TrainingSettings
from retrieval_bench.training_loop.sources import ImageSource, Source, Vectors

log = logging.getLogger("retrieval_bench")


@dataclass(frozen=True)
class Task:
    """One training: a network, the images, and the settings.

    Args:
        method: name of a torchvision network, e.g. "resnet50".
        split: the training images and their labels.
        label_names: names of all labels of the dataset; a label is an index into them.
        dataset: specification of the dataset, for the facts in the weights file.
        fingerprint: fingerprint of the dataset, for the facts in the weights file.
        settings: the options of the training.
        setup: seed, weights, device and threads.
        commit: version-control commit of this program, for the facts; None: unknown.
    """

    method: str
    split: Split
    label_names: tuple[str, ...]
    dataset: str
    fingerprint: str
    settings: TrainingSettings
    setup: Setup
    commit: str | None = None


@dataclass(eq=False)
class TrainingResult:
    """A finished training.

    Args:
        state: state dict of torchvision's whole network. Its classifier has a row for each of `facts["labels"]`; it is
            missing if the loss has no classifier.
        facts: what was trained, on what, and how; also in the weights file.
        history: one line for each epoch.
        best: the epoch whose weights these are, counted from 1.
    """

    state: Any
    facts: dict[str, Any]
    history: list[Epoch]
    best: int


def setup_for(seed: int, weights: str, device: str, threads: int) -> Setup:
    """Make the setup of a training.

    Args:
        seed: seed of everything random, from 0.
        weights: "auto", "pretrained", "random", or a directory that holds state dicts.
        device: "auto" (a CUDA device if there is one), "cpu" or "cuda".
        threads: threads to use, at least 1.

    Returns:
        The setup, with its device resolved.

    Raises:
        BenchError: There is no such device.
    """
    if device == "auto":
        device = "cuda" if gpu_is_there() else "cpu"
    check_device(device)
    return Setup(seed=seed, weights=weights, device=device, threads=threads)


def checkpoint_of(out: Path) -> Path:
    """Name the file that holds the state of an unfinished run.

    Args:
        out: the weights file.

    Returns:
        The path of the checkpoint, beside `out`.
    """
    return out.with_name(f"{out.name}.checkpoint")


def run(
    task: Task,
    out: Path | None,
    *,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Progress = silent,
) -> TrainingResult:
    """Train a network and write its weights; the state is saved after each epoch, so that a run can be resumed.

    Args:
        task: what is trained.
        out: the weights file. None: nothing is written.
        resume: continue from the checkpoint beside `out`. If there is none, start from the beginning, with a warning.
        on_epoch: called after each epoch.
        progress: called often with (what is done, steps done, steps in all).

    Returns:
        The weights, what is known of them, and the history.

    Raises:
        BenchError: The task is impossible (one label, no pretrained weights, wrong image size, a checkpoint of another
            run, ...), the loss is not finite, or a file cannot be written.
    """
    settings, setup = task.settings, task.setup
    check_device(setup.device)
    steady(setup.device)
    classes, labels = np.unique(task.split.labels, return_inverse=True)
    if len(classes) < 2:
        raise BenchError(f"training needs images of at least two labels; the train split has {len(classes)}")
    rows, held = hold_out(labels, settings.holdout, settings.seed)
    if settings.patience and not len(held):
        raise BenchError(
            f"--patience {settings.patience}: no label has enough images to hold out {settings.holdout:g} of them; "
            "raise --holdout or leave --patience out"
        )
    _tell_of_thin_classes(task, labels, classes)
    start = backbone(task.method, setup, settings.mode)
    if settings.mode != "head":  # which looks at images as they are used
        sizes = {settings.image_size_at(epoch, start.image_size) for epoch in range(settings.epochs)}
        check_image_sizes(task.method, start.network, sorted(sizes - {start.image_size}))
    identity = _identity(task, start)
    state = None
    if resume and out is not None:
        if checkpoint_of(out).is_file():
            state = restore_state(checkpoint_of(out), identity, {old: new for new, old in STORED_AS.items()})
        else:
            log.warning("--resume: there is no %s; starting from the beginning", checkpoint_of(out).name)

    def save(state: dict[str, Any]) -> None:
        if out is not None:
            save_state(checkpoint_of(out), identity, state)

    frames = Frames(task.split.images, start.short, start.interpolation)
    frames.read(range(len(frames)), setup.threads, lambda done, total: progress("reading images", done, total))
    pictures = ImageSource(frames, settings.augment, start.image_size, start.mean, start.std)
    loop = _Loop(start, labels, len(classes), settings, rows, held, setup, save, on_epoch, progress)
    trained, linear = loop.head(pictures, state) if settings.mode == "head" else loop.whole(pictures, state)
    facts = _facts(task, identity, trained, classes)
    weights = start.network.state_dict() if settings.mode == "head" else trained.network.state_dict()
    if linear is not None:
        weights = with_classifier(task.method, weights, *linear)
    if out is not None:
        save_weights(out, weights, facts)
        checkpoint_of(out).unlink(missing_ok=True)
    return TrainingResult(weights, facts, trained.history, trained.best)


Linear = tuple[Any, Any]


@dataclass(eq=False)
class _Loop:
    start: TrainableNetwork
    labels: np.ndarray
    classes: int
    settings: TrainingSettings
    rows: np.ndarray
    held: np.ndarray
    setup: Setup
    save: Callable[[dict[str, Any]], None]
    on_epoch: Callable[[Epoch], None]
    progress: Progress

    def head(self, pictures: ImageSource, state: dict[str, Any] | None) -> tuple[Trained, Linear]:
        return self._linear(pictures, self.settings, state, self.save, self.on_epoch)

    def whole(self, pictures: ImageSource, state: dict[str, Any] | None) -> tuple[Trained, Linear | None]:
        """Train the whole network.

        Fine-tuning by cross-entropy first fits the head: a random one would spoil what the network knows.
        """
        goal = self._objective(self.settings)
        if self.settings.mode == "finetune" and self.settings.loss == "cross-entropy" and state is None:
            _, (weight, bias) = self._linear(pictures, probe(self.settings))
            goal.linear.weight.data.copy_(weight)
            goal.linear.bias.data.copy_(bias)
        trained = self._train(self.start.network, goal, pictures, self.settings, state, self.save, self.on_epoch)
        linear = getattr(trained.objective, "linear", None)
        return trained, None if linear is None else (linear.weight, linear.bias)

    def _linear(
        self,
        pictures: ImageSource,
        settings: TrainingSettings,
        state: dict[str, Any] | None = None,
        save: Callable[[dict[str, Any]], None] = lambda state: None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> tuple[Trained, Linear]:
        from torch import nn

        device = self.setup.device
        vectors = features(
            self.start.network.to(device),
            pictures,
            range(len(self.labels)),
            settings.augmentations if settings.augment != NONE else min(settings.augmentations, 2),
            settings.seed,
            threads=self.setup.threads,
            device=device,
            progress=self.progress,
        )
        scaled, mean, deviation = standardised(vectors, self.rows)
        trained = self._train(
            nn.Identity(), self._objective(settings), Vectors(scaled), settings, state, save, on_epoch
        )
        return trained, folded(trained.objective.linear, mean, deviation)

    def _objective(self, settings: TrainingSettings) -> Any:
        return first(settings, self.start.dimensions, self.labels[self.rows], self.classes)

    def _train(
        self,
        network: Any,
        goal: Any,
        source: Source,
        settings: TrainingSettings,
        state: dict[str, Any] | None,
        save: Callable[[dict[str, Any]], None],
        on_epoch: Callable[[Epoch], None],
    ) -> Trained:
        return train(
            network,
            goal,
            source,
            self.labels,
            settings,
            rows=self.rows,
            held=self.held,
            image_size=self.start.image_size,
            threads=self.setup.threads,
            device=self.setup.device,
            resume=state,
            save=save,
            on_epoch=on_epoch,
            progress=self.progress,
        )


def _tell_of_thin_classes(task: Task, labels: np.ndarray, classes: np.ndarray) -> None:
    empty = sorted(set(range(len(task.label_names))) - set(classes.tolist()))
    if empty:
        log.warning(
            "%d of %d labels have no training image, for example %r; the network will not know them",
            len(empty),
            len(task.label_names),
            task.label_names[empty[0]],
        )
    single = np.flatnonzero(np.bincount(labels) == 1)
    if len(single):
        log.warning(
            "%d labels have one training image, for example %r; they are used for training and not held out",
            len(single),
            task.label_names[int(classes[single[0]])],
        )


def _identity(task: Task, start: TrainableNetwork) -> dict[str, Any]:
    """What must be the same for a run to be the same."""
    import torch

    return {
        "method": task.method,
        **task.settings.as_data(),
        "train images": task.split.content,
        "starting weights": start.weights.get("sha256"),
        "device": task.setup.device,
        "torch": torch.__version__,
    }


def _facts(task: Task, identity: dict[str, Any], trained: Trained, classes: np.ndarray) -> dict[str, Any]:
    """For the file: what was trained, on what, how, by which program."""
    images = sorted({task.split.images.digest(row) for row in range(len(task.split))})
    return {
        "dataset": task.dataset,
        "fingerprint": task.fingerprint,
        "labels": [task.label_names[int(label)] for label in classes],
        "images": images,
        "images_sha256": hashlib.sha256("\n".join(images).encode()).hexdigest(),
        "identity": identity,
        "epochs": len(trained.history),
        "best_epoch": trained.best,
        "history": [asdict(replace(line, seconds=0.0)) for line in trained.history],
        "version": retrieval_bench.__version__,
        "gpu_settings": gpu_settings(task.setup.device),
        "commit": task.commit,
    }
