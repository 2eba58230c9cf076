"""`show`: the table of a record, from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.forms import refuse_picture
from benchmark.options import Unknown
from benchmark.shown import Format, formatted
from retrieval_bench.core import BenchError


@command(app, "show")
def show_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    form: Annotated[Format, typer.Option("--format", help="csv holds every number.")] = Format.table,
    unknown: Unknown = False,
    curves: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw accuracy over severity; for a run with --perturb.")
    ] = None,
) -> None:
    """Show the table of a record. Scores that the rankings beside it do not give are marked."""
    from retrieval_bench.compare.contradictions import contradictions, marked
    from retrieval_bench.records.files import load, load_rankings, rankings_file
    from retrieval_bench.report import robustness

    if curves is not None:
        refuse_picture(curves, "curves.png", [record], "--curves")
    shown = load(record)
    if rankings_file(record, shown).exists():
        try:
            found = contradictions(shown, load_rankings(record, shown))
        except BenchError as error:
            typer.echo(f"the scores are not compared with the rankings: {error}", err=True)
            found = {}
        if form in (Format.table, Format.md):
            shown = marked(shown, found)
        else:  # which hold the record as it is
            for method, sentence in found.items():
                typer.echo(f"{method}: {sentence}", err=True)
    if curves is not None:
        robustness.draw(shown, curves)
    say(formatted(shown, form, unknown), nl=False)
