"""`doctor`: what the search engine found on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from benchmark.app import app, command, say


@command(app, "doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show what the search engine found on this machine: processor features, chosen kernel, threads, cache."""
    from retrieval_bench.search import doctor

    say(json.dumps(doctor.report(), indent=1) if as_json else "\n".join(doctor.lines()))
