"""`doctor`: what this machine has that a run stands on, what is wrong with it and what to do, and which plug-ins there
are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import Plugins
from benchmark.plugins_shown import described_plugins, plugin_lines

WIDTH = 22
"""Columns of a name."""


@command(app, "doctor")
def doctor_command(
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Show the search engine, codecs, libraries, caches and locks of this machine, and what to do where one is wrong.

    First the search engine: processor features, chosen kernel, threads, compiled kernels. Then the image formats that
    are read, OpenCV and torch, the cache with its damaged files and its key, and whether the file systems of the cache
    and of ./results have locks. Last, one line a plug-in: what it registers, or why it failed. Nothing is changed.
    """
    from retrieval_bench.diagnosis.codecs import codecs
    from retrieval_bench.diagnosis.libraries import libraries
    from retrieval_bench.diagnosis.storage import storage
    from retrieval_bench.search import doctor

    found = {"codecs": codecs(), "libraries": libraries(), "storage": storage(Path("results"))}
    if as_json:
        told = {
            group: {name: condition._asdict() for name, condition in conditions.items()}
            for group, conditions in found.items()
        }
        say(json.dumps({**doctor.report(), **told, "plug-ins": described_plugins()}, indent=1))
        return
    for line in doctor.lines():
        say(line)
    for conditions in found.values():
        for name, condition in conditions.items():
            say(f"{name:{WIDTH}} {condition}")
    for line in plugin_lines() or ["none"]:
        say(f"{'plug-in':{WIDTH}} {line}")
