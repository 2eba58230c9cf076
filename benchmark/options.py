"""Options that several commands have, and what their text means."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval_bench.core import BenchError

if TYPE_CHECKING:
    from retrieval_bench.methods.parse import Method


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="PATH", help="Where the dataset lies: a folder, or a manifest file."),
]


def parse_methods(text: str) -> tuple[Method, ...]:
    from retrieval_bench.methods.parse import parse_method

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("--methods names no method; write e.g. --methods sift,resnet50")
    return tuple(parse_method(name) for name in names)


def parse_classifiers(text: str) -> tuple[str, ...]:
    from retrieval_bench.registry import CLASSIFIERS

    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise BenchError(f"--classifiers {text!r} names no classifier; write e.g. --classifiers svm,knn")
    return tuple(CLASSIFIERS[name].name for name in names)


def parse_cutoffs(text: str) -> tuple[int, ...]:
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BenchError(f"--k {text!r}: write whole numbers with commas, e.g. --k 1,5,10") from None
    if values[0] < 1:
        raise BenchError(f"--k {text!r}: every cutoff must be at least 1")
    return tuple(values)


def checked_weights(text: str, looked_for: bool = True) -> str:
    """looked_for: a network will ask for its weights, so the folders where they may lie must exist."""
    from retrieval_bench.extractors.deep.weights import weights_directories

    words = ("auto", "pretrained", "random")
    if text not in words and not Path(text).is_dir():
        raise BenchError(f"--weights {text!r} is no folder and not one of {', '.join(words)}")
    if looked_for:
        weights_directories(text)
    return text


def usable_threads(wanted: int | None) -> int:
    from retrieval_bench.system.timing import usable_cores

    cores = usable_cores()
    if wanted is not None and wanted > cores:
        typer.echo(f"--threads {wanted}: this process may use {cores} cores; going on with {cores}", err=True)
    return min(wanted or cores, cores)
