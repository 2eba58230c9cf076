"""`race`: two commands or two installed versions, timed in turns."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, OK, app, command, say
from retrieval_bench.core import BenchError


@command(app, "race")
def race_command(
    base: Annotated[
        str, typer.Argument(help="A command in quotes, or a virtual environment with this package installed.")
    ],
    head: Annotated[str, typer.Argument(help="What to compare it with: also a command or an environment.")],
    rounds: Annotated[
        int, typer.Option(min=3, help="How often each is run, in turns, after one run that is not counted.")
    ] = 10,
    run_options: Annotated[
        str, typer.Option("--run", metavar="'--methods a,b ...'", help="For environments: the options of `run`.")
    ] = "",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="NAME:LIMIT%",
            help="Fail if NAME of HEAD is surely worse by more than LIMIT, e.g. wall_s:5%. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the ratios as JSON.")] = False,
) -> int:
    """Time two commands or two installed versions in turns: paired ratios, HEAD over BASE, with 95 % intervals."""
    import shlex
    from dataclasses import asdict

    from benchmark.display import Display
    from retrieval_bench.compare import ab_timing
    from retrieval_bench.compare.gates import parse_gate

    gates = [parse_gate(text) for text in fail or ()]
    for gate in gates:
        if not gate.relative:
            raise BenchError(f"--fail {gate}: a race measures ratios; write the limit in percent, e.g. {gate.name}:5%")
    first, second = (ab_timing.argv_of(one, shlex.split(run_options)) for one in (base, head))
    with Display() as display:
        ratios = ab_timing.race(first, second, rounds, display)
    names = [ratio.name for ratio in ratios]
    for gate in gates:
        if gate.name not in names:
            raise BenchError(f"--fail {gate}: the race has no figure {gate.name}; it has {', '.join(names)}")
    slower = [(ratio, gate) for gate in gates for ratio in ratios if ratio.name == gate.name and ratio.worse_than(gate)]
    if as_json:
        say(json.dumps([asdict(ratio) for ratio in ratios], indent=1))
    else:
        say(f"HEAD over BASE, {rounds} rounds in turns, geometric mean and 95 % interval:")
        for ratio in ratios:
            say(
                f"  {ratio.name:40} {ratio.base:10.4g} -> {ratio.head:10.4g} {ratio.unit:9} "
                f"x {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
            )
    for ratio, gate in slower:
        typer.echo(f"{ratio.name}: x {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), --fail {gate}", err=True)
    return GATE_FAILED if slower else OK
