"""`leaderboard`: records of several datasets, ranked together, and which conclusions carry over."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import AllowHost, AllowOutside, Plugins, Prefer
from retrieval_bench.core import BenchError, printable


class BoardFormat(StrEnum):
    text = "text"
    html = "html"
    md = "md"
    json = "json"


@command(app, "leaderboard")
def leaderboard_command(
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECORD...", help="Each is a run.json, or the folder that holds it; of several datasets."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file; one that ends in .html, .md or .json has that format."),
    ] = None,
    form: Annotated[BoardFormat | None, typer.Option("--format", help="Default: text, or what --out ends in.")] = None,
    prefer: Prefer = None,
    look: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Measure colour and texture of N gallery images of each dataset, where its images are at hand.",
        ),
    ] = 0,
    plugin: Plugins = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Rank methods over the datasets of these records, with what can be concluded and what carries over."""
    from retrieval_bench.choosing import board_page, board_text
    from retrieval_bench.choosing.leaderboard import METRIC, leaderboard
    from retrieval_bench.report.evidence import gather
    from retrieval_bench.system.files import write_whole

    if out is not None and out.is_dir():
        raise BenchError(f"--out {printable(out)}: is a folder; name a file in it, such as leaderboard.html")
    if as_json:
        form = BoardFormat.json
    if form is None:
        known = out is not None and out.suffix[1:] in BoardFormat.__members__
        form = BoardFormat(out.suffix[1:]) if out is not None and known else BoardFormat.text
    if form is BoardFormat.html and out is None:
        out = Path("leaderboard.html")
    found = [gather(path, None, look > 0) for path in dict.fromkeys(records)]
    board = leaderboard(found, prefer or METRIC, look)
    if form is BoardFormat.html:
        made = board_page.render(board)
    elif form is BoardFormat.json:
        made = json.dumps(board_text.as_data(board), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    else:
        made = board_text.markdown(board) if form is BoardFormat.md else f"{board_text.text(board)}\n"
    if out is None:
        say(made, nl=False)
        return
    write_whole(out, made.encode())
    typer.echo(f"leaderboard: {printable(out)} ({len(made.encode()) / 1024:,.0f} KiB)", err=True)
