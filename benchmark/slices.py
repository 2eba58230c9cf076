"""`slices`: a record's scores by category, class size and attribute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.cli import DataRoot, app, command, say
from retrieval_bench.core import BenchError


@command(app, "slices")
def slices_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    data_root: DataRoot = None,
    methods: Annotated[
        str | None, typer.Option(metavar="a,b", help="Only these of the record's methods. Default: all.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Which to print: accuracy, map@r or recall@k at the largest k.")] = (
        "accuracy"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="All three with intervals, as JSON.")] = False,
) -> None:
    """Results by category, by train images of the label, and by what the dataset knows of each query."""
    from retrieval_bench.results import load, load_rankings
    from retrieval_bench.revisit import dataset_of, main_metrics, methods_of
    from retrieval_bench.slices import sliced

    whole = load(record)
    if metric not in main_metrics(whole):
        raise BenchError(f"--metric {metric!r} is not one of {', '.join(main_metrics(whole))}")
    names = methods_of(whole, tuple(name.strip() for name in methods.split(",")) if methods else ())
    found = sliced(whole, load_rankings(record, whole), dataset_of(whole, data_root), names)
    if as_json:
        say(json.dumps({"dataset": whole.dataset.spec, "methods": names, "slicings": found}, indent=1))
        return
    for way in found:
        say("\n".join(_lines(way, names, metric)))
        say("")
    if not found:
        say("nothing divides these queries: no category, one class size, no attribute")


def _lines(way: dict[str, Any], names: list[str], metric: str) -> list[str]:
    from retrieval_bench.report.lines import aligned

    table = [[way["by"], "queries", "products", *names]]
    for part in way["slices"]:
        means = [f"{part['scores'][name][metric]['mean']:.3f}" for name in names]
        table.append([part["name"], f"{part['queries']:,}", f"{part['products']:,}", *means])
    return [f"{metric} by {way['about']}", *aligned(table)]
