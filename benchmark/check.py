"""`check`: whether a method or a classifier keeps the contract that makes its numbers comparable, clause by clause."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, OK, app, command, say
from benchmark.options import Device, Plugins, checked_weights


@command(app, "check")
def check_command(
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD[:key=value...]",
            help="A method, as behind --methods, or the name of a classifier; yours or built in.",
        ),
    ],
    plugin: Plugins = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of what the method draws.")] = 0,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks, as in `run`.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> int:
    """Check that a method keeps its contract, clause by clause. Exit code 1: it breaks a clause.

    A few pictures are drawn, awkward ones among them (1 x 1, blank, grey, tall, large). Each extractor of the method is
    built, fitted and asked about them: alone and together, in another order, twice, from several threads. Of a method
    with a join, re-ranking steps or a backend ("color on int8"), the search is checked, too.
    """
    from dataclasses import asdict

    from retrieval_bench.contracts.classifier import check_classifier
    from retrieval_bench.contracts.extractor import check
    from retrieval_bench.core import BenchError, Setup
    from retrieval_bench.experiment.device_choice import resolve_device
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.registry import CLASSIFIERS, EXTRACTORS, fill, unknown_name

    fill()
    known = [entry.name for registry in (EXTRACTORS, CLASSIFIERS) for entry in registry]
    if method.replace("-", "_").isidentifier() and method not in known:
        raise BenchError(unknown_name("method or classifier", method, known))
    if method in CLASSIFIERS and method not in EXTRACTORS:
        verdicts = check_classifier(method, seed)
    else:
        asked = parse_method(method)
        setup = Setup(seed, checked_weights(weights, asked.deep), resolve_device(device.value, (asked,)))
        verdicts = check(method, setup)
    broken = [one for one in verdicts if one.verdict == "broken"]
    if as_json:
        say(json.dumps([asdict(one) for one in verdicts], indent=1))
        return GATE_FAILED if broken else OK
    for part in dict.fromkeys(one.part for one in verdicts):
        say(f"{part}:")
        width = max(len(one.clause) for one in verdicts)
        for one in verdicts:
            if one.part == part:
                say(f"  {one.clause:{width}}  {one.verdict:6}  {one.detail}".rstrip())
    say(f"{len(broken)} of {len(verdicts)} clauses are broken" if broken else "every clause is kept")
    return GATE_FAILED if broken else OK
