"""`diff`: compare two records, and give a verdict."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, NOT_COMPARABLE, OK, app, command, say
from retrieval_bench.compare.diff import LEARNED_TOLERANCE, TOLERANCE
from retrieval_bench.core import NotComparable


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
        float, typer.Option(min=0.0, help="Largest change of a score, up or down, that still counts as the same.")
    ] = TOLERANCE,
    learned_tolerance: Annotated[
        float, typer.Option(min=0.0, help="The same for methods that learn from train; their scores vary more.")
    ] = LEARNED_TOLERANCE,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="NAME:LIMIT[%]",
            help="Fail if NAME gets worse by more than LIMIT, in its unit or in percent: map@r:0.01, "
            "search_ms_p50:20%. Repeatable. With --fail, the tolerances are not checked.",
        ),
    ] = None,
    form: Annotated[
        DiffFormat,
        typer.Option("--format", help="md: for a pull request. github: lists for github-action-benchmark."),
    ] = DiffFormat.text,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON; the same as --format json.")] = False,
) -> int:
    """Compare two records. Exit code 0: same; 1: changed or missing; 3: not comparable."""
    from retrieval_bench.compare.diff import diff
    from retrieval_bench.compare.gates import parse_gate
    from retrieval_bench.compare.reload import values_of
    from retrieval_bench.records.files import load
    from retrieval_bench.report import verdict as shown

    gates = [parse_gate(text) for text in fail or ()]
    old, new = load(before), load(after)
    values = (values_of(before, old), values_of(after, new))
    try:
        verdict = diff(old, new, tolerance, learned_tolerance, gates=gates, values=values)
    except NotComparable as refusal:  # also for programs that read the output and not the exit code
        if as_json or form is DiffFormat.json:
            say(json.dumps({"passed": False, "not_comparable": str(refusal)}, indent=1))
        elif form is DiffFormat.md:
            say(shown.refused(str(refusal)), nl=False)
        raise
    if as_json or form is DiffFormat.json:
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
