"""`history`: records that were kept, over commits, with changes marked; and files for a front page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command
from benchmark.forms import Form, chosen_form, tell
from benchmark.options import Plugins, Prefer
from retrieval_bench.core import printable


@command(app, "history")
def history_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Every record below it is read, those in earlier/ too.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file; one that ends in .html, .md or .json has that format."),
    ] = None,
    form: Annotated[Form | None, typer.Option("--format", help="Default: text, or what --out ends in.")] = None,
    prefer: Prefer = None,
    front_page: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write badge.svg, badge.json (for shields.io) and table.md of the newest record into DIR.",
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show quality and cost over kept records, with the commits at which they changed."""
    from retrieval_bench.history import history_page, history_text
    from retrieval_bench.history.front_page import write_front_page
    from retrieval_bench.history.timeline import QUALITY, history

    form, out = chosen_form("history", out, form, as_json, [folder])
    found = history(folder, QUALITY if prefer is None else (prefer,))
    if front_page is not None:
        for file in write_front_page(found, front_page, prefer or QUALITY[-1]):
            typer.echo(f"front page: {printable(file)}", err=True)
    tell(
        "history",
        out,
        form,
        {
            Form.text: lambda: f"{history_text.text(found)}\n",
            Form.html: lambda: history_page.render(found),
            Form.md: lambda: history_text.markdown(found),
            Form.json: lambda: history_text.as_data(found),
        },
    )
