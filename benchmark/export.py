"""`export`: a network with all that comes after it as one ONNX or TorchScript file, which `run` takes as a method."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins, checked_weights, usable_threads
from retrieval_bench.core import BenchError, Setup, printable

if TYPE_CHECKING:
    from retrieval_bench.exporting.export import Agreement, LearnedFrom
    from retrieval_bench.extractors.deep.network_features import NetworkFeatures
    from retrieval_bench.methods.parse import Method


class FileFormat(StrEnum):
    onnx = "onnx"
    torchscript = "torchscript"


@command(app, "export")
def export_command(
    method: Annotated[
        str, typer.Option(metavar="NETWORK[:key=value...]", help="A network with its pooling and post-processing.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Output file: FILE.onnx, or for TorchScript FILE.pt or FILE.ts.")
    ],
    form: Annotated[FileFormat, typer.Option("--format", help="File format.")] = FileFormat.onnx,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Quantise an ONNX file; it is calibrated on images of --dataset's train split."),
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:key=value...]",
            help="On its train split post-processing is fitted, --int8 is calibrated and the file is compared.",
        ),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks, as in `run`.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of what is learned and drawn, as in `run`.")
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
) -> None:
    """Write a network as one file that other programs can run, and print how closely it agrees with the original."""
    from benchmark.display import Display
    from retrieval_bench.exporting import export as library
    from retrieval_bench.exporting.files import need_packages
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.system.files import write_whole

    chosen = parse_method(method)
    library.exportable(chosen)
    _check_place(out, form)
    if int8 and form is FileFormat.torchscript:
        raise BenchError(
            "--int8: TorchScript files are written only in float32, because torch has moved quantisation elsewhere; "
            "use --format onnx"
        )
    if int8 and dataset is None:
        raise BenchError("--int8 is calibrated on training images; name them with --dataset, and --data-root if needed")
    if data_root is not None and dataset is None:
        raise BenchError("--data-root needs a dataset; name it with --dataset")
    need_packages(form.value)
    checked_weights(weights, chosen.deep)
    with interruptible(), Display() as display:
        progress = stoppable(display)
        setup = Setup(seed, weights, "cpu", usable_threads(threads))
        extractor, learned = _ready(chosen, dataset, data_root, setup, progress)
        progress(f"{chosen}: writing {form.value}", 0, 0)
        content = library.export(chosen, extractor, form.value, seed=seed, learned=learned, int8=int8)
        images = library.pictures(seed) if learned is None else library.sample(learned.split, seed).images
        found = library.compared(chosen, extractor, content, form.value, images, progress)
        if not int8:
            library.refuse_another_method(chosen, form.value, found)
        write_whole(out, content)
    what = "random pictures" if learned is None else f"train images of {dataset}"
    say("\n".join(_lines(chosen, extractor, out, found, what)))
    say(f"  {_run_command(chosen, out, dataset, data_root, weights, seed)}")


def _check_place(out: Path, form: FileFormat) -> None:
    from retrieval_bench.exporting.files import SUFFIXES

    suffixes = SUFFIXES[form.value]
    if out.suffix not in suffixes:
        raise BenchError(
            f"--out {printable(out)}: a file of --format {form.value} must end in {' or '.join(suffixes)}, so that "
            "`run` recognises it"
        )
    if out.is_dir():
        raise BenchError(f"--out {printable(out)}: a folder of this name exists; name a file")
    if not out.parent.is_dir():
        raise BenchError(f"--out {printable(out)}: there is no folder {printable(out.parent)}; create it first")
    if any(sign in str(out) for sign in ",:+"):
        raise BenchError(
            f"--out {printable(out)}: `run --methods` cannot read a path that contains , : or +; name another"
        )


def _ready(
    method: Method,
    dataset: str | None,
    root: Path | None,
    setup: Setup,
    progress: Callable[[str, int, int], None],
) -> tuple[NetworkFeatures, LearnedFrom | None]:
    """The extractor, with what it learns from the dataset: the same that `run` learns, and from the same cache."""
    from retrieval_bench.experiment import prepare
    from retrieval_bench.experiment.features import described
    from retrieval_bench.exporting.export import LearnedFrom
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.cache import FeatureCache, cache_root

    if dataset is None:
        extractor: NetworkFeatures = method.members[0].build(setup)
        if extractor.learned:
            raise BenchError(
                f"--method {method} learns from training images; name them with --dataset, and --data-root if needed"
            )
        return extractor, None
    plan = prepare.Plan(
        methods=(method,),
        dataset=parse(DATASETS, dataset),
        root=root,
        seed=setup.seed,
        weights=setup.weights,
        threads=setup.threads,
        cache=FeatureCache(cache_root()),
    )
    train = prepare.prepare(plan, progress).dataset.train
    if not len(train):
        raise BenchError(
            f"--dataset {dataset}: this dataset has no train images; name another dataset, or leave --dataset out"
        )
    pipeline, _ = described(method, plan, train, {}, progress)
    fitted: Any = pipeline.members[0].extractor
    return fitted, LearnedFrom(str(plan.dataset), train)


def _lines(method: Method, extractor: NetworkFeatures, out: Path, found: Agreement, what: str) -> list[str]:
    name = f"{method}[{extractor.mark}]" if extractor.mark else str(method)
    sizes = f"{_size(found.file)}; the network's weights alone take {_size(found.original)} in float32"
    near = f"{found.same:.1%} of each one's 10 nearest are the same"
    return [
        f"{name} -> {printable(out)}: {sizes}",
        f"on {found.images} {what}: numbers differ by at most {found.largest:.2g}, and {near}",
        "to compare both in one table, run:",
    ]


def _size(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"


def _run_command(method: Method, out: Path, dataset: str | None, root: Path | None, weights: str, seed: int) -> str:
    words = ["python", "-m", "benchmark", "run", "--methods", f"{method},onnx:{printable(out)}"]
    words += [] if dataset is None else ["--dataset", dataset]
    words += [] if root is None else ["--data-root", printable(root)]
    words += [] if weights == "auto" else ["--weights", weights]
    words += [] if seed == 0 else ["--seed", str(seed)]
    return shlex.join(words)
