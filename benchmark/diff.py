"""`diff`: compare two records, and give a verdict."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, NOT_COMPARABLE, OK, app, command, say
from retrieval_bench.compare.diff import LEARNED_TOLERANCE, TOLERANCE
from retrieval_bench.core import BenchError, NotComparable


class DiffFormat(StrEnum):
    text = "text"
    md = "md"
    json = "json"
    github = "github"


@command(app, "diff")
def diff_command(
    before: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    after: Annotated[Path, typer.Argument(help="The record to compare with it.")],
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help=f"Largest change of a score, up or down, that still counts as the same. Default {TOLERANCE}.",
        ),
    ] = None,
    learned_tolerance: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help=f"The same for methods that learn from train; their scores vary more. Default {LEARNED_TOLERANCE}.",
        ),
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="NAME:LIMIT[%]",
            help="Fail if NAME gets worse by more than LIMIT, in its unit or in percent: map@r:0.01, "
            "search_ms_p50:20%. Repeatable. It takes the place of the tolerances.",
        ),
    ] = None,
    form: Annotated[
        DiffFormat | None,
        typer.Option("--format", help="md: for a pull request. github: lists for github-action-benchmark."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON; the same as --format json.")] = False,
) -> int:
    """Compare two records. Exit code 0: same; 1: changed or missing; 3: not comparable."""
    from retrieval_bench.compare.diff import diff
    from retrieval_bench.compare.gates import parse_gate
    from retrieval_bench.compare.reload import values_of
    from retrieval_bench.records.files import load
    from retrieval_bench.report import verdict as shown

    if as_json:
        if form not in (None, DiffFormat.json):
            raise BenchError(f"--json and --format {form}: two forms; give one of them")
        form = DiffFormat.json
    gates = [parse_gate(text) for text in fail or ()]
    for option, given in (("--tolerance", tolerance), ("--learned-tolerance", learned_tolerance)):
        if gates and given is not None:
            raise BenchError(f"{option} and --fail: with --fail no tolerance is checked; give one of them")
    tolerance = TOLERANCE if tolerance is None else tolerance
    learned_tolerance = LEARNED_TOLERANCE if learned_tolerance is None else learned_tolerance
    old, new = load(before), load(after)
    values = (values_of(before, old), values_of(after, new))
    try:
        verdict = diff(old, new, tolerance, learned_tolerance, gates=gates, values=values)
    except NotComparable as refusal:  # also for programs that read the output and not the exit code
        if form is DiffFormat.json:
            say(json.dumps({"passed": False, "not_comparable": str(refusal)}, indent=1))
        elif form is DiffFormat.md:
            say(shown.refused(str(refusal)), nl=False)
        raise
    if form is DiffFormat.json:
        say(json.dumps(shown.as_data(verdict), indent=1))
    elif form is DiffFormat.md:
        say(shown.markdown(verdict), nl=False)
    elif form is DiffFormat.github:
        say(json.dumps(shown.github(new), indent=1))
    else:
        say("\n".join(shown.lines(verdict)))
    if not verdict.passed:
        return GATE_FAILED
    return NOT_COMPARABLE if verdict.unjudged else OK
