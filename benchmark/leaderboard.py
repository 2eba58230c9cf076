"""`leaderboard`: records of several datasets, ranked together, and which conclusions carry over."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command
from benchmark.forms import Form, chosen_form, tell
from benchmark.options import AllowHost, AllowOutside, Plugins, Prefer


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
    form: Annotated[Form | None, typer.Option("--format", help="Default: text, or what --out ends in.")] = None,
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

    form, out = chosen_form("leaderboard", out, form, as_json, records)
    found = [gather(path, None, look > 0) for path in dict.fromkeys(records)]
    board = leaderboard(found, prefer or METRIC, look)
    tell(
        "leaderboard",
        out,
        form,
        {
            Form.text: lambda: f"{board_text.text(board)}\n",
            Form.html: lambda: board_page.render(board),
            Form.md: lambda: board_text.markdown(board),
            Form.json: lambda: board_text.as_data(board),
        },
    )
