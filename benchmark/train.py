"""`train`: train a network on your own images, in a file that `--weights` then takes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    Device,
    Plugins,
    checked_weights,
    renamed,
    usable_threads,
)
from retrieval_bench.core import BenchError, printable

if TYPE_CHECKING:
    from retrieval_bench.pair_training.settings import PairSettings
    from retrieval_bench.training_loop.epochs import Epoch

SUFFIXES = (".pth", ".pt")
PAIR_SUFFIXES = (".safetensors",)
EPOCHS, BATCH = 10, 32
"""Of the training of a network, where none are given; those of pairs are in `PairSettings`."""
OF_NETWORKS = (
    *("optimizer", "schedule", "smoothing", "balance", "augment", "image_size", "progressive_resizing", "early"),
    *("freeze", "ema_decay", "augmentations", "precision", "micro_batches", "side", "early_side", "average", "views"),
    "shards",
)
OF_PAIRS = ("text_tower", "tokens", "dims", "word_vectors")


class Mode(StrEnum):
    head = "head"
    finetune = "finetune"
    scratch = "scratch"
    pairs = "pairs"


class TextTower(StrEnum):
    gru = "gru"
    lstm = "lstm"
    transformer = "transformer"


class TokenUnit(StrEnum):
    words = "words"
    pieces = "pieces"


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
    infonce = "infonce"


class Precision(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@command(app, "train")
def train_command(
    context: typer.Context,
    method: Annotated[
        str,
        typer.Option(
            metavar="NETWORK",
            help="efficientnet_lite0, or any torchvision classification network. Of --mode pairs: any extractor of "
            "pictures, or several with a + between them.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.pth",
            help="File for the weights. If it is called NETWORK-anything.pth, `run --weights FOLDER` finds it. Of "
            "--mode pairs it ends in .safetensors, and the method is called pairs:FILE.",
        ),
    ],
    mode: Annotated[
        Mode,
        typer.Option(
            help="head: a linear layer over fixed features. finetune: the whole network, from trained weights. "
            "scratch: the whole network, from random weights. pairs: pictures and their texts into one space."
        ),
    ] = Mode.finetune,
    dataset: Annotated[
        str, typer.Option(metavar="NAME[:key=value...]", help="The network learns from its train split.")
    ] = "products",
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How many times each image is used. Default 10, of pairs 60.")
    ] = None,
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
    batch: Annotated[int | None, typer.Option(min=2, help="Images in one step. Default 32, of pairs 128.")] = None,
    lr: Annotated[
        float | None, typer.Option(min=0.0, help="Peak learning rate. Default: depends on mode and optimizer.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0.0, help="Default: depends on the optimizer.")] = None,
    optimizer: Annotated[Optimizer, typer.Option(help="The optimizer.")] = Optimizer.adamw,
    schedule: Annotated[Schedule, typer.Option(help="How the learning rate changes.")] = Schedule.onecycle,
    loss: Annotated[
        Loss | None,
        typer.Option(
            help="The loss; proxy-anchor and triplet of networks need pytorch-metric-learning. Default cross-entropy; "
            "pairs have infonce (the default) and triplet."
        ),
    ] = None,
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
        float,
        typer.Option(
            min=0.0,
            max=0.89,
            help="Share of each label's train images kept for validation; of pairs: share of the labels.",
        ),
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
    text_tower: Annotated[TextTower, typer.Option(help="Of pairs: what reads the texts.")] = TextTower.gru,
    tokens: Annotated[
        TokenUnit, typer.Option(help="Of pairs: whole words with their letters, or pieces of words.")
    ] = TokenUnit.words,
    dims: Annotated[
        int, typer.Option(min=8, max=1024, help="Of pairs: numbers of a vector in the shared space.")
    ] = 256,
    word_vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE.txt", help="Of pairs: a file of word vectors, as GloVe's, to start from."),
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
    """Train on the train split: a network's new head, all of it, or towers for pictures and texts. It can resume."""
    from retrieval_bench.registry import EXTRACTORS
    from retrieval_bench.training import train
    from retrieval_bench.training_loop.augment import parse_augment
    from retrieval_bench.training_loop.settings import TrainingSettings

    _refuse_options(context, mode, loss)
    job = _Job(method, out, dataset, data_root, resume, tensorboard, mode.value)
    if mode is Mode.pairs:
        from retrieval_bench.extractors.deep.frozen_pictures import specs_of
        from retrieval_bench.pair_training.settings import PairSettings

        for spec in specs_of(method, "--method"):
            spec.check(train.setup_for(seed, "random", "cpu", 1))
        _check_places(out, PAIR_SUFFIXES, tensorboard)
        given = {"epochs": epochs, "batch": batch, "weight_decay": weight_decay, "loss": loss and loss.value}
        pair_settings = PairSettings(
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
            text_tower=text_tower.value,
            tokens=tokens.value,
            lr=lr,
            dims=dims,
            holdout=holdout,
            patience=patience,
            seed=seed,
        )
        setup = train.setup_for(seed, checked_weights(weights), device.value, usable_threads(threads))
        _train_pairs(job, pair_settings, setup, word_vectors)
        return
    if "trains" not in EXTRACTORS[method].facts:
        raise BenchError(
            f"--method {method}: not a network that can be trained; name one of torchvision's or efficientnet_lite0"
        )
    _check_places(out, SUFFIXES, tensorboard)
    of_network: Any = {"mode": mode.value, "loss": (loss or Loss.cross_entropy).value}
    settings = TrainingSettings(
        **of_network,
        epochs=epochs or EPOCHS,
        batch=batch or BATCH,
        optimizer=optimizer.value,
        lr=lr,
        schedule=schedule.value,
        weight_decay=weight_decay,
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
    _train_network(job, settings, setup)


@dataclass(frozen=True)
class _Job:
    """What a training is called, and where it reads and writes."""

    method: str
    out: Path
    dataset: str
    data_root: Path | None
    resume: bool
    tensorboard: Path | None
    mode: str


def _train_network(job: _Job, settings: Any, setup: Any) -> None:
    from benchmark.display import Display
    from retrieval_bench.training import train

    with interruptible(), Display() as display:
        progress = stoppable(display)
        task = train.Task(settings=settings, **_what(job, setup, progress))

        def tell(line: Epoch) -> None:
            judged = "" if line.accuracy is None else f", validation accuracy {line.accuracy:.3f}"
            display.say(f"epoch {line.epoch} of {settings.epochs}: loss {line.loss:.4f}{judged}, {line.seconds:.0f} s")

        outcome = train.run(task, job.out, resume=job.resume, on_epoch=tell, progress=progress)
        display.say(f"weights of epoch {outcome.best}: {printable(job.out)}")
        _show_curves(job, outcome.history, task.dataset, display, "validation accuracy")


def _train_pairs(job: _Job, settings: PairSettings, setup: Any, word_vectors: Path | None) -> None:
    from benchmark.display import Display
    from retrieval_bench.training import curves
    from retrieval_bench.training.pairs import PairTask, run_pairs

    with interruptible(), Display() as display:
        progress = stoppable(display)
        task = PairTask(settings=settings, word_vectors=word_vectors, **_what(job, setup, progress))

        def tell(line: Epoch) -> None:
            judged = "" if line.accuracy is None else f", held-out products {line.accuracy:.3f}"
            display.say(f"epoch {line.epoch} of {settings.epochs}: loss {line.loss:.4f}{judged}, {line.seconds:.1f} s")

        outcome = run_pairs(task, job.out, resume=job.resume, on_epoch=tell, progress=progress)
        display.say(f"towers of epoch {outcome.best}: {printable(job.out)}; the method is pairs:{printable(job.out)}")
        table = job.out.with_suffix(".csv")
        curves.as_csv(outcome.history, table, curves.HELD_OUT)
        display.say(f"curves as numbers: {printable(table)}")
        _show_curves(job, outcome.history, task.dataset, display, curves.HELD_OUT)


def _what(job: _Job, setup: Any, progress: Any) -> dict[str, Any]:
    """What every task says of method, images and program."""
    from retrieval_bench.images.screening import screen
    from retrieval_bench.records.environment import environment
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.timing import steady_allocator

    spec = parse(DATASETS, job.dataset)
    steady_allocator()
    dataset = spec.build(job.data_root)
    whole, _ = screen(
        dataset.with_pictures() if job.mode == Mode.pairs else dataset.without_texts(),
        threads=setup.threads,
        progress=lambda done, total: progress("checking images", done, total),
    )
    return {
        "method": job.method,
        "split": whole.train,
        "label_names": whole.label_names,
        "dataset": str(spec),
        "fingerprint": whole.fingerprint,
        "setup": setup,
        "commit": environment({}, None, "").commit,
    }


def _show_curves(job: _Job, history: Sequence[Epoch], dataset: str, display: Any, score: str) -> None:
    from retrieval_bench.training import curves

    if curves.can_draw():
        picture = job.out.with_suffix(".png")
        curves.draw(history, f"{job.method}, {job.mode} on {dataset}", picture, score)
        display.say(f"curves: {printable(picture)}")
    else:
        display.say("the curves are not drawn: that needs matplotlib (pip install 'retrieval-bench[train]')")
    if job.tensorboard is not None:
        curves.tensorboard(history, job.tensorboard, score)


def _refuse_options(context: typer.Context, mode: Mode, loss: Loss | None) -> None:
    """Refuse options that the mode does not have: they would change nothing."""
    for name in OF_NETWORKS if mode is Mode.pairs else OF_PAIRS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = f"--{name.replace('_', '-')}"
            where = "networks alone; leave it out of" if mode is Mode.pairs else "--mode pairs; leave it out of"
            raise BenchError(f"{flag} is an option of {where} --mode {mode.value}")
    allowed = (Loss.triplet, Loss.infonce) if mode is Mode.pairs else tuple(one for one in Loss if one != Loss.infonce)
    if loss is not None and loss not in allowed:
        raise BenchError(f"--loss {loss.value}: --mode {mode.value} has {', '.join(one.value for one in allowed)}")


def _check_places(out: Path, suffixes: Sequence[str], tensorboard: Path | None) -> None:
    """Refuse before hours of training, not after them."""
    from retrieval_bench.training import curves

    _check_place(out, suffixes)
    if tensorboard is not None:
        curves.need_tensorboard()
        if tensorboard.exists() and not tensorboard.is_dir():
            raise BenchError(f"--tensorboard {printable(tensorboard)}: a file of this name exists; name a folder")
        _check_folder(tensorboard, f"--tensorboard {printable(tensorboard)}")


def _check_place(out: Path, suffixes: Sequence[str]) -> None:
    if out.is_dir():
        raise BenchError(f"--out {printable(out)}: a folder of this name exists; name a file")
    if out.suffix not in suffixes:
        raise BenchError(
            f"--out {printable(out)}: a file of weights must end in {' or '.join(suffixes)}, so that `run` knows it; "
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
