"""`show`: the table of a record, from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import Unknown
from benchmark.shown import Format, formatted


@command(app, "show")
def show_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    form: Annotated[Format, typer.Option("--format", help="csv holds every number.")] = Format.table,
    unknown: Unknown = False,
    curves: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw accuracy over severity; for a run with --perturb.")
    ] = None,
) -> None:
    """Show the table of a record."""
    from retrieval_bench.records.files import load
    from retrieval_bench.report import robustness

    shown = load(record)
    if curves is not None:
        robustness.draw(shown, curves)
    say(formatted(shown, form, unknown), nl=False)
