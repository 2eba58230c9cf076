"""`repeat`: run a record again from its own settings, and compare the result with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, OK, app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins
from benchmark.shown import one_line
from retrieval_bench.core import BenchError, printable


@command(app, "repeat")
def repeat_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save the new record in this folder. Default: it is not saved.")
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> int:
    """Run a record again from its own settings. Exit code 0: identical or within tolerance; 1: different."""
    import tempfile
    from dataclasses import asdict

    from benchmark.display import Display
    from retrieval_bench.experiment import repeat, runner
    from retrieval_bench.records.files import load, load_rankings, rankings_file, run_file

    before = load(record)
    has_rankings = rankings_file(record, before).exists()
    plan = repeat.plan_of(before, data_root)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch) / "again"
        if out is not None and out.resolve() == run_file(record).parent.resolve():
            raise BenchError(f"--out {printable(out)}: this is the folder of the record itself; name another")
        with interruptible(), Display() as display:
            after = runner.run(
                plan,
                folder,
                progress=stoppable(display),
                on_row=stoppable(lambda row: display.say(one_line(row))),
            )
        old = load_rankings(record, before) if has_rankings else None
        again = repeat.compared(before, after, old, load_rankings(folder, after))
    if as_json:
        say(json.dumps(asdict(again), indent=1))
    else:
        say(again.verdict)
        for sentence in again.differences:
            say(f"  {sentence}")
        if again.reasons:
            say("What is not the same as then:")
            for sentence in again.reasons:
                say(f"  {sentence}")
    return GATE_FAILED if again.verdict == "different" else OK
