"""`cost`: what so many images cost by each method and backend of a record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import SOME_FAILED, app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowOutside, DataRoot, Plugins, parse_backends, usable_threads
from retrieval_bench.core import BenchError, NotComparable, printable

if TYPE_CHECKING:
    from retrieval_bench.choosing.cost import Prices

MOST_ROWS = 4_000_000
MOST_BYTES = 4 << 30
"""Of grown rows."""


@command(app, "cost")
def cost_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    images: Annotated[float, typer.Option(min=1, help="Images in the index, e.g. 10e6.")],
    queries_per_second: Annotated[float, typer.Option(min=0, help="Queries a second at the busiest.")] = 1.0,
    price: Annotated[
        str, typer.Option(metavar="cpu-hour=A,gb-month=B", help="Prices, in any money. Default: none is shown.")
    ] = "",
    watts: Annotated[float, typer.Option(min=0, help="Of a core at work, for the energy.")] = 8.0,
    busy: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the cores that may be at work at the busiest.")
    ] = 0.6,
    methods: Annotated[
        str | None, typer.Option(metavar="a,b", help="Only these methods of the record. Default: all but controls.")
    ] = None,
    backends: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Also on these, e.g. faiss:hnsw,faiss:ivfpq.")
    ] = None,
    grow_to: Annotated[
        int, typer.Option(min=64, max=MOST_ROWS, help="The largest of the five sizes at which search is measured.")
    ] = 64_000,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write all numbers.")] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
) -> int | None:
    """Hours, bytes, machines, money and energy for a number of images, from measured rates and their growth."""
    import json
    from dataclasses import asdict, replace

    import psutil

    from benchmark.display import Display
    from retrieval_bench.choosing import cost_table
    from retrieval_bench.choosing.cost import Load, Machine, cost_of
    from retrieval_bench.choosing.measured_growth import measure, sizes_up_to
    from retrieval_bench.experiment.approximation import vectors
    from retrieval_bench.experiment.kept_rows import kept_rows
    from retrieval_bench.experiment.prepare import prepare
    from retrieval_bench.experiment.repeat import plan_of
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.methods.pipeline import Pipeline
    from retrieval_bench.records.environment import environment
    from retrieval_bench.records.files import load
    from retrieval_bench.system.cache import FeatureCache, cache_root
    from retrieval_bench.system.files import write_whole

    prices = replace(_prices(price), watts=watts)
    asked = Load(images, queries_per_second, busy)
    whole = load(record)
    others = () if backends is None else parse_backends(backends)
    rows = {
        str(parse_method(text)): row
        for text, row in zip(whole.settings.methods, whole.rows, strict=True)
        if row.family != "control" and row.status == "ok"
    }
    wanted = list(rows) if methods is None else [str(parse_method(name)) for name in methods.split(",") if name.strip()]
    for name in wanted:
        if name not in rows:
            raise BenchError(f"--methods {name}: the record has {', '.join(rows) or 'no method that finished'}")
    plan = replace(plan_of(whole, data_root), threads=usable_threads(threads), cache=FeatureCache(cache_root()))
    machine = Machine(plan.threads, float(psutil.virtual_memory().total))
    here = environment({}, None, "").processor
    costs, growths, left_out = [], {}, []
    with interruptible(), Display() as display:
        progress = stoppable(display)
        trial = prepare(plan, progress)
        if trial.fingerprint != whole.dataset.fingerprint:
            raise NotComparable(f"dataset {whole.dataset.spec}: its images are not those of the record; run again")
        for name in wanted:
            base = parse_method(name)
            for backend in (base.backend, *(one for one in others if base.backend is None)):
                method = replace(base, backend=backend)
                try:
                    pipeline = Pipeline(method, plan.setup, plan.backend)
                    if pipeline.unclassifiable is not None or pipeline.steps or pipeline.by_id:
                        raise BenchError(f"{method}: only a method of one vector an image, without steps, can be grown")
                    both = kept_rows(pipeline, plan, trial, ("gallery", "query"), progress)
                    kept = {what: vectors(found) for what, found in both.items()}
                    most = min(grow_to, MOST_BYTES // max(1, kept["gallery"][0].nbytes))
                    growth = measure(
                        *(pipeline.index_of, kept["gallery"], kept["query"], pipeline.distance, sizes_up_to(most)),
                        k=max(trial.k),
                        threads=plan.threads,
                        progress=progress,
                    )
                    row = rows[name].model_copy(update={"method": str(method)})
                    costs.append(cost_of(row, growth, whole.settings.threads, machine, asked, prices))
                    growths[str(method)] = growth
                except BenchError as error:
                    left_out.append(str(error))
        if costs:
            display.say(cost_table.text(costs, growths, machine, asked, prices, here))
        for sentence in left_out:
            display.say(f"left out: {sentence}")
        if whole.environment.processor != here:
            theirs = whole.environment.processor
            display.say(f"The record's times are of another processor ({theirs}); searches were measured here.")
    if as_json is not None:
        facts = {
            "record": printable(record),
            "load": asdict(asked),
            "prices": asdict(prices),
            "machine": asdict(machine),
            "processor": here,
            "costs": [asdict(one) for one in costs],
            "growth": {name: asdict(growth) for name, growth in growths.items()},
            "left_out": left_out,
        }
        write_whole(as_json, (json.dumps(facts, indent=2) + "\n").encode())
    if not costs:
        raise BenchError("nothing was left whose cost could be told")
    return SOME_FAILED if left_out and methods is not None else None


def _prices(text: str) -> Prices:
    """ "cpu-hour=0.04,gb-month=0.02" -> the prices."""
    from retrieval_bench.choosing.cost import Prices

    found: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = re.fullmatch(r"(cpu-hour|gb-month)\s*=\s*(\d+(?:\.\d*)?|\.\d+)", part)
        if match is None or match[1] in found:
            raise BenchError(f"--price {part!r}: write cpu-hour=0.04,gb-month=0.02, each once, in any money")
        found[match[1]] = float(match[2])
    if "gb-month" in found and "cpu-hour" not in found:
        raise BenchError("--price: gb-month alone prices no machine; add cpu-hour=...")
    return Prices(found.get("cpu-hour"), found.get("gb-month"))
