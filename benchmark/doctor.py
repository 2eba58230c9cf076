"""`doctor`: what the search engine found on this machine, and which plug-ins there are."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import Plugins
from benchmark.plugins_shown import described_plugins, plugin_lines


@command(app, "doctor")
def doctor_command(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show what the search engine found on this machine: processor features, chosen kernel, threads, cache.

    Below that, one line a plug-in: what it registers, or why it failed.
    """
    from retrieval_bench.search import doctor

    if as_json:
        say(json.dumps({**doctor.report(), "plug-ins": described_plugins()}, indent=1))
        return
    for line in [*doctor.lines(), *(f"{'plug-in':22} {line}" for line in plugin_lines() or ["none"])]:
        say(line)
