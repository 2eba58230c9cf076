"""`explain`: one picture of what each method of a record found for a query, and of what made that near."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command
from benchmark.forms import refuse_picture
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins, usable_threads
from retrieval_bench.core import BenchError, printable


@command(app, "explain")
def explain_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="File for the picture.")],
    query: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Id of the query. Default: the query on which the methods disagree most."),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="a,b", help="Only these methods of the record. Default: all.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=8, help="How many neighbours of each method are shown.")] = 4,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the networks' weights. Default: as in the run.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
) -> None:
    """Draw why images were found: matched keypoints, similarity maps or bits of a query and its neighbours."""
    from dataclasses import replace

    from benchmark.display import Display
    from retrieval_bench.compare.reload import dataset_of, methods_of
    from retrieval_bench.experiment.repeat import plan_of
    from retrieval_bench.records.files import load, load_own_rankings
    from retrieval_bench.system.cache import FeatureCache, cache_root
    from retrieval_bench.system.files import write_whole

    refuse_picture(out, "why.png", [record])
    if weights is not None and not weights.is_dir():
        raise BenchError(f"--weights {printable(weights)}: is no folder; name the one that holds the weights")
    whole = load(record)
    wanted = tuple(name.strip() for name in methods.split(",") if name.strip()) if methods is not None else ()
    if methods is not None and not wanted:
        raise BenchError("--methods names no method; leave it out for all of the record's")
    names = methods_of(whole, wanted)
    if not names:
        raise BenchError(f"{printable(record)}: no method in this record finished, so there is nothing to explain")
    arrays = load_own_rankings(record, whole)
    if query is not None:
        from retrieval_bench.explaining.choice import query_row

        query_row(arrays, query)  # before the images are looked for, which may take minutes
    dataset = dataset_of(whole, data_root)
    # A record of a GPU can be explained without one.
    anywhere = whole.model_copy(update={"settings": whole.settings.model_copy(update={"device": "auto"})})
    plan = replace(plan_of(anywhere, data_root), threads=usable_threads(threads), cache=FeatureCache(cache_root()))
    if weights is not None:
        plan = replace(plan, weights=str(weights))
    with interruptible(), Display() as display:
        from retrieval_bench.explaining.explain import explain
        from retrieval_bench.explaining.picture import png

        shown = stoppable(display)
        found = explain(printable(record), whole, arrays, dataset, plan, names, query, top, shown)
        if found.chosen:
            display.say(f"query {found.query.id}: {found.chosen}")
        for band in found.bands:
            for layer in band.layers:
                if not layer.clues:
                    name = band.method if layer.name == band.method else f"{band.method}: {layer.name}"
                    display.say(f"{name}: {layer.about}")
        write_whole(out, png(found))
        display.say(f"picture: {printable(out)}")
