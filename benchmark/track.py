"""`track`: records and trainings as runs of MLflow or TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from retrieval_bench.core import BenchError

TARGETS = ("mlflow", "tensorboard")


@command(app, "track")
def track_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORD|WEIGHTS...", help="Records, or files that `train` wrote (.pth, .pt, .safetensors)."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="mlflow:URI|tensorboard:DIR", help="Where to: mlflow:sqlite:///mlflow.db, mlflow:http://HOST:5000."
        ),
    ],
) -> None:
    """Send records and trainings to MLflow or TensorBoard: options, every number, curves over epochs."""
    from retrieval_bench.tracking import mlflow_server, tensorboard_folder
    from retrieval_bench.tracking.tracked import tracked

    kind, _, place = to.partition(":")
    if kind not in TARGETS or not place:
        raise BenchError(f"--to {to!r}: write mlflow:URI, as mlflow:sqlite:///mlflow.db, or tensorboard:DIR")
    found = [tracked(path) for path in dict.fromkeys(files)]
    for doubt in (doubt for one in found for doubt in one.doubts):
        typer.echo(doubt, err=True)
    for line in mlflow_server.send(found, place) if kind == "mlflow" else tensorboard_folder.send(found, Path(place)):
        say(line)
