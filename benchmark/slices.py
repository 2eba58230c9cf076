"""`slices`: a record's scores by category, class size and attribute, each with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins
from retrieval_bench.core import BenchError

if TYPE_CHECKING:
    from retrieval_bench.evaluation.slices import Score, Sliced


@command(app, "slices")
def slices_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    methods: Annotated[
        str | None, typer.Option(metavar="a,b", help="Only these methods of the record. Default: all.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Metric to print: accuracy, map@r, or recall@k at the largest k.")] = (
        "accuracy"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print all three metrics with intervals, as JSON.")] = False,
) -> None:
    """Show scores by category, by number of train images of the label, and by attributes of the queries."""
    from dataclasses import asdict

    from retrieval_bench.compare.contradictions import contradictions
    from retrieval_bench.compare.reload import dataset_of, main_metrics, main_values, methods_of
    from retrieval_bench.evaluation.query_metadata import known_in, known_of
    from retrieval_bench.evaluation.slices import sliced, slicings
    from retrieval_bench.records.files import load, load_own_rankings

    whole = load(record)
    if metric not in main_metrics(whole):
        raise BenchError(f"--metric {metric!r} is not one of {', '.join(main_metrics(whole))}")
    names = methods_of(whole, tuple(name.strip() for name in methods.split(",")) if methods is not None else ())
    arrays = load_own_rankings(record, whole)
    for name, sentence in contradictions(whole, arrays).items():
        if name in names:
            typer.echo(f"{name}: {sentence}; these slices are of its rankings", err=True)
    known = known_in(arrays)
    if known.class_sizes is None:  # a record of an earlier version: only the data knows
        known = known_of(dataset_of(whole, data_root), arrays["query_ids"])
    values = {name: main_values(whole, arrays, name) for name in names}
    found = sliced(slicings(known, arrays["n_relevant"]), values, arrays["query_labels"], whole.settings.seed)
    if as_json:
        slicings_found = [asdict(way) for way in found]
        say(json.dumps({"dataset": whole.dataset.spec, "methods": names, "slicings": slicings_found}, indent=1))
        return
    for way in found:
        say("\n".join(_lines(way, names, metric)))
        say("")
    if found:
        say("In brackets: 95 % interval of the mean over all such queries, by Wilson's formula over labels.")
    else:
        say("these queries cannot be divided: no category, one class size, no attribute")


def _lines(way: Sliced, names: list[str], metric: str) -> list[str]:
    from retrieval_bench.report.lines import aligned

    table = [[way.by, "queries", "labels", *names]]
    for part in way.slices:
        cells = [_cell(part.scores[name][metric]) for name in names]
        table.append([part.name, f"{part.queries:,}", f"{part.products:,}", *cells])
    return [f"{metric} by {way.about}", *aligned(table)]


def _cell(score: Score) -> str:
    from retrieval_bench.report.lines import ends

    if score.low is None or score.high is None:
        return f"{score.mean:.3f}"
    return f"{score.mean:.3f} [{', '.join(ends(score.low, score.high))}]"
