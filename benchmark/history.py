"""`history`: records that were kept, over commits, with changes marked; and files for a front page."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import Plugins, Prefer
from retrieval_bench.core import BenchError, printable


class HistoryFormat(StrEnum):
    text = "text"
    html = "html"
    md = "md"
    json = "json"


@command(app, "history")
def history_command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Every record below it is read, those in earlier/ too.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file; one that ends in .html, .md or .json has that format."),
    ] = None,
    form: Annotated[
        HistoryFormat | None, typer.Option("--format", help="Default: text, or what --out ends in.")
    ] = None,
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
    from retrieval_bench.system.files import write_whole

    if out is not None and out.is_dir():
        raise BenchError(f"--out {printable(out)}: is a folder; name a file in it, such as history.html")
    if as_json:
        form = HistoryFormat.json
    if form is None:
        known = out is not None and out.suffix[1:] in HistoryFormat.__members__
        form = HistoryFormat(out.suffix[1:]) if out is not None and known else HistoryFormat.text
    if form is HistoryFormat.html and out is None:
        out = Path("history.html")
    found = history(folder, QUALITY if prefer is None else (prefer,))
    if front_page is not None:
        for file in write_front_page(found, front_page, prefer or QUALITY[-1]):
            typer.echo(f"front page: {printable(file)}", err=True)
    if form is HistoryFormat.html:
        made = history_page.render(found)
    elif form is HistoryFormat.json:
        made = json.dumps(history_text.as_data(found), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    else:
        made = history_text.markdown(found) if form is HistoryFormat.md else f"{history_text.text(found)}\n"
    if out is None:
        say(made, nl=False)
        return
    write_whole(out, made.encode())
    typer.echo(f"history: {printable(out)} ({len(made.encode()) / 1024:,.0f} KiB)", err=True)
