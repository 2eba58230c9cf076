"""`train`: a network made for one's own images, in a file that `--weights` then takes."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.app import app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import DataRoot, Device, checked_weights, usable_threads
from retrieval_bench.core import BenchError, printable

SUFFIXES = (".pth", ".pt")


class Mode(StrEnum):
    head = "head"
    finetune = "finetune"
    scratch = "scratch"


class Optimizer(StrEnum):
    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"


class Schedule(StrEnum):
    cosine = "cosine"
    onecycle = "onecycle"
    step = "step"
    constant = "constant"


class Loss(StrEnum):
    cross_entropy = "cross-entropy"
    cosine_softmax = "cosine-softmax"
    proxy_anchor = "proxy-anchor"
    triplet = "triplet"


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@command(app, "train")
def train_command(
    method: Annotated[str, typer.Option(metavar="NETWORK", help="Any torchvision classification network.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.pth",
            help="Where the weights go. Called NETWORK-anything.pth, `run --weights` finds it by its folder.",
        ),
    ],
    mode: Annotated[
        Mode,
        typer.Option(help="A linear layer over fixed features, the whole network further, or from random weights."),
    ] = Mode.finetune,
    dataset: Annotated[
        str, typer.Option(metavar="NAME[:key=value...]", help="Its train split is learned from.")
    ] = "products",
    data_root: DataRoot = None,
    epochs: Annotated[int, typer.Option(min=1, help="How often each image is seen.")] = 10,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a killed run of the same options was.")] = False,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="What head and finetune start from, as in `run`.")
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Fixes order, augmentation, first weights.")] = 0,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Highest learning rate. Default: by mode and optimizer.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0.0, help="Default: by optimizer.")] = None,
    optimizer: Annotated[Optimizer, typer.Option(help="What takes the steps.")] = Optimizer.adamw,
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate goes.")] = Schedule.onecycle,
    loss: Annotated[
        Loss, typer.Option(help="proxy-anchor and triplet come from pytorch-metric-learning.")
    ] = Loss.cross_entropy,
    smoothing: Annotated[float, typer.Option(min=0.0, max=0.99, help="Of labels, for the softmax losses.")] = 0.1,
    balance: Annotated[bool, typer.Option(help="Weigh rare classes more.")] = True,
    augment: Annotated[
        str,
        typer.Option(
            metavar="none|crop=0.35,flip=0.5,...",
            help="How far images are changed: crop, flip, rotate, colour, hue, noise, erase; the rest as by default.",
        ),
    ] = "",
    side: Annotated[int, typer.Option(min=0, help="Pixels of a training image; 0: what the network expects.")] = 0,
    early_side: Annotated[int, typer.Option(min=0, help="The same in the first epochs, which then cost less.")] = 0,
    early: Annotated[float, typer.Option(min=0.0, max=0.99, help="Which share of the epochs that is.")] = 0.6,
    freeze: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of the first layers that fine-tuning leaves alone.")
    ] = 0.0,
    average: Annotated[float, typer.Option(min=0.0, max=0.9999, help="Decay of the mean of the weights.")] = 0.98,
    views: Annotated[int, typer.Option(min=1, help="Pictures of each image that a head learns from.")] = 4,
    holdout: Annotated[
        float, typer.Option(min=0.0, max=0.89, help="Share of each label's train images kept for validation.")
    ] = 0.1,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better one; 0: never.")] = 0,
    precision: Annotated[Precision, typer.Option(help="auto: bfloat16 where it is computed in.")] = Precision.auto,
    shards: Annotated[
        int, typer.Option(min=1, help="Parts of a batch worked on side by side; the result depends on it.")
    ] = 2,
    device: Annotated[Device, typer.Option(help="Where the network is trained.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores this process may use.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the curves for TensorBoard, too.")
    ] = None,
) -> None:
    """Train a network on the train split: a new head, fine-tuning, or from scratch; resumable after a kill."""
    from benchmark.display import Display
    from retrieval_bench.images.screening import screen
    from retrieval_bench.records.environment import environment
    from retrieval_bench.registry import DATASETS, EXTRACTORS, parse
    from retrieval_bench.system.timing import steady_allocator
    from retrieval_bench.training import curves, train
    from retrieval_bench.training_loop.augment import parse_augment
    from retrieval_bench.training_loop.settings import TrainingSettings

    if not EXTRACTORS[method].facts.get("provided"):
        raise BenchError(f"--method {method}: not a network of torchvision; name one, e.g. resnet50 or squeezenet1_0")
    _check_place(out)
    if tensorboard is not None:
        curves.need_tensorboard()
        if tensorboard.exists() and not tensorboard.is_dir():
            raise BenchError(f"--tensorboard {printable(tensorboard)}: a file of this name exists; name a folder")
        _check_folder(tensorboard, f"--tensorboard {printable(tensorboard)}")
    settings = TrainingSettings(
        mode=mode.value,
        epochs=epochs,
        batch=batch,
        optimizer=optimizer.value,
        lr=lr,
        schedule=schedule.value,
        weight_decay=weight_decay,
        loss=loss.value,
        smoothing=smoothing,
        balance=balance,
        augment=parse_augment(augment),
        side=side,
        early_side=early_side,
        early=early,
        freeze=freeze,
        average=average,
        views=views,
        holdout=holdout,
        patience=patience,
        precision=precision.value,
        shards=shards,
        seed=seed,
    )
    setup = train.setup_for(seed, checked_weights(weights), device.value, usable_threads(threads))
    spec = parse(DATASETS, dataset)
    steady_allocator()
    with interruptible(), Display() as display:
        progress = stoppable(display)
        whole, _ = screen(
            spec.build(data_root),
            threads=setup.threads,
            progress=lambda done, total: progress("checking images", done, total),
        )
        task = train.Task(
            method=method,
            split=whole.train,
            label_names=whole.label_names,
            dataset=str(spec),
            fingerprint=whole.fingerprint,
            settings=settings,
            setup=setup,
            commit=environment({}, None, "").commit,
        )

        def tell(line: Any) -> None:
            judged = "" if line.accuracy is None else f", validation accuracy {line.accuracy:.3f}"
            display.say(f"epoch {line.epoch} of {epochs}: loss {line.loss:.4f}{judged}, {line.seconds:.0f} s")

        outcome = train.run(task, out, resume=resume, on_epoch=tell, progress=progress)
        display.say(f"weights of epoch {outcome.best}: {printable(out)}")
        if curves.can_draw():
            picture = out.with_suffix(".png")
            curves.draw(outcome.history, f"{method}, {mode.value} on {spec}", picture)
            display.say(f"curves: {printable(picture)}")
        else:
            display.say("no picture of the curves: that needs matplotlib (pip install 'retrieval-bench[train]')")
        if tensorboard is not None:
            curves.tensorboard(outcome.history, tensorboard)


def _check_place(out: Path) -> None:
    """Before hours of training, and not after them."""
    if out.is_dir():
        raise BenchError(f"--out {printable(out)}: a folder of this name exists; name a file")
    if out.suffix not in SUFFIXES:
        raise BenchError(
            f"--out {printable(out)}: a file of weights must end in {' or '.join(SUFFIXES)}, by which `run` knows it; "
            "the picture of the curves is called the same, with .png"
        )
    _check_folder(out.parent, f"--out {printable(out)}")


def _check_folder(folder: Path, called: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchError(f"{called}: cannot be written ({error.strerror}); name another place") from None
