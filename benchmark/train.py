"""`train`: train a network on your own images, in a file that `--weights` then takes."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.app import app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowOutside, DataRoot, Device, Plugins, checked_weights, renamed, usable_threads
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
    method: Annotated[
        str, typer.Option(metavar="NETWORK", help="efficientnet_lite0, or any torchvision classification network.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.pth",
            help="File for the weights. If it is called NETWORK-anything.pth, `run --weights FOLDER` finds it.",
        ),
    ],
    mode: Annotated[
        Mode,
        typer.Option(
            help="head: a linear layer over fixed features. finetune: the whole network, from trained weights. "
            "scratch: the whole network, from random weights."
        ),
    ] = Mode.finetune,
    dataset: Annotated[
        str, typer.Option(metavar="NAME[:key=value...]", help="The network learns from its train split.")
    ] = "products",
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    epochs: Annotated[int, typer.Option(min=1, help="How many times each image is used.")] = 10,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run of the same options that was stopped.")
    ] = False,
    weights: Annotated[
        str,
        typer.Option(
            metavar="auto|pretrained|random|DIR", help="Weights that head and finetune start from, as in `run`."
        ),
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Fixes the order, the augmentation and the first weights.")
    ] = 0,
    batch: Annotated[int, typer.Option(min=2, help="Images in one step.")] = 32,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Peak learning rate. Default: depends on mode and optimizer.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0.0, help="Default: depends on the optimizer.")] = None,
    optimizer: Annotated[Optimizer, typer.Option(help="The optimizer.")] = Optimizer.adamw,
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate changes.")] = Schedule.onecycle,
    loss: Annotated[
        Loss, typer.Option(help="The loss; proxy-anchor and triplet need pytorch-metric-learning.")
    ] = Loss.cross_entropy,
    smoothing: Annotated[float, typer.Option(min=0.0, max=0.99, help="Label smoothing of the softmax losses.")] = 0.1,
    balance: Annotated[bool, typer.Option(help="Give rare classes more weight.")] = True,
    augment: Annotated[
        str,
        typer.Option(
            metavar="none|crop=0.35,flip=0.5,...",
            help="How much images are changed: crop, flip, rotate, colour, hue, noise, erase. Others keep their "
            "defaults.",
        ),
    ] = "",
    image_size: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels of a training image. Default 0: the size that the network expects."),
    ] = None,
    progressive_resizing: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Train on images of this size in the first epochs, which then take less time. Default 0: do not.",
        ),
    ] = None,
    early: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Share of the epochs that --progressive-resizing applies to.")
    ] = 0.6,
    freeze: Annotated[
        float,
        typer.Option(min=0.0, max=0.99, help="Share of the layers, from the first on, that finetune keeps as is."),
    ] = 0.0,
    ema_decay: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9999,
            help="The moving average of the weights is saved; this is its decay. 0: the last weights. Default 0.98.",
        ),
    ] = None,
    augmentations: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pictures of each image that mode head learns from: itself, mirrored, then changed. Default 4.",
        ),
    ] = None,
    holdout: Annotated[
        float, typer.Option(min=0.0, max=0.89, help="Share of each label's train images kept for validation.")
    ] = 0.1,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without improvement; 0: never.")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="auto: bfloat16 where the hardware supports it.")
    ] = Precision.auto,
    micro_batches: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Parts of a batch that run in parallel. The result depends on their number. Default 2.",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network is trained.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the curves for TensorBoard, into this folder.")
    ] = None,
    side: Annotated[int | None, typer.Option(min=0, hidden=True, help="Former name of --image-size.")] = None,
    early_side: Annotated[
        int | None, typer.Option(min=0, hidden=True, help="Former name of --progressive-resizing.")
    ] = None,
    average: Annotated[
        float | None, typer.Option(min=0.0, max=0.9999, hidden=True, help="Former name of --ema-decay.")
    ] = None,
    views: Annotated[int | None, typer.Option(min=1, hidden=True, help="Former name of --augmentations.")] = None,
    shards: Annotated[int | None, typer.Option(min=1, hidden=True, help="Former name of --micro-batches.")] = None,
) -> None:
    """Train a network on the train split: a new head, fine-tuning, or from scratch. It can resume when stopped."""
    from benchmark.display import Display
    from retrieval_bench.images.screening import screen
    from retrieval_bench.records.environment import environment
    from retrieval_bench.registry import DATASETS, EXTRACTORS, parse
    from retrieval_bench.system.timing import steady_allocator
    from retrieval_bench.training import curves, train
    from retrieval_bench.training_loop.augment import parse_augment
    from retrieval_bench.training_loop.settings import TrainingSettings

    if "trains" not in EXTRACTORS[method].facts:
        raise BenchError(
            f"--method {method}: not a network that can be trained; name one of torchvision's or efficientnet_lite0"
        )
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
        image_size=renamed("--image-size", image_size, "--side", side, 0),
        progressive_resizing=renamed("--progressive-resizing", progressive_resizing, "--early-side", early_side, 0),
        early=early,
        freeze=freeze,
        ema_decay=renamed("--ema-decay", ema_decay, "--average", average, 0.98),
        augmentations=renamed("--augmentations", augmentations, "--views", views, 4),
        holdout=holdout,
        patience=patience,
        precision=precision.value,
        micro_batches=renamed("--micro-batches", micro_batches, "--shards", shards, 2),
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
            display.say("the curves are not drawn: that needs matplotlib (pip install 'retrieval-bench[train]')")
        if tensorboard is not None:
            curves.tensorboard(outcome.history, tensorboard)


def _check_place(out: Path) -> None:
    """Refuse before hours of training, not after them."""
    if out.is_dir():
        raise BenchError(f"--out {printable(out)}: a folder of this name exists; name a file")
    if out.suffix not in SUFFIXES:
        raise BenchError(
            f"--out {printable(out)}: a file of weights must end in {' or '.join(SUFFIXES)}, so that `run` knows it; "
            "the picture of the curves has the same name with .png"
        )
    _check_folder(out.parent, f"--out {printable(out)}")


def _check_folder(folder: Path, called: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BenchError(f"{called}: cannot be written ({error.strerror}); name another place") from None
