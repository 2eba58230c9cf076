"""`cost`: what so many images cost by each method and backend of a record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import SOME_FAILED, app, command
from benchmark.forms import refuse_place
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowOutside, DataRoot, Plugins, finite, parse_backends, usable_threads
from retrieval_bench.core import BenchError, printable

if TYPE_CHECKING:
    from retrieval_bench.choosing.cost import CostOfMethod, Prices
    from retrieval_bench.choosing.measured_growth import SearchGrowth

MOST_ROWS = 4_000_000
MOST = 1e15
"""Of images and more: far beyond what there is, and far below what a sum of them cannot hold."""


@command(app, "cost")
def cost_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    images: Annotated[float, typer.Option(min=1, max=MOST, callback=finite, help="Images in the index, e.g. 10e6.")],
    queries_per_second: Annotated[
        float, typer.Option(min=0, max=MOST, callback=finite, help="Queries a second at the busiest.")
    ] = 1.0,
    price: Annotated[
        str, typer.Option(metavar="cpu-hour=A,gb-month=B", help="Prices, in any money. Default: none is shown.")
    ] = "",
    watts: Annotated[
        float, typer.Option(min=0, max=MOST, callback=finite, help="Of a core at work, for the energy.")
    ] = 8.0,
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
    from retrieval_bench.choosing.measured_growth import growths_of
    from retrieval_bench.experiment.repeat import same_data
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.records.environment import environment
    from retrieval_bench.records.files import load
    from retrieval_bench.system.files import write_whole

    prices = replace(_prices(price), watts=watts)
    if as_json is not None:  # before minutes are spent
        refuse_place(as_json, "costs.json", [record], "--json")
    asked = Load(images, queries_per_second, busy)
    whole = load(record)
    others = () if backends is None else parse_backends(backends)
    rows = {
        str(parse_method(text)): row
        for text, row in zip(whole.settings.methods, whole.rows, strict=True)
        if row.family != "control" and row.status == "ok"
    }
    wanted = list(rows) if methods is None else [str(parse_method(name)) for name in methods.split(",") if name.strip()]
    if methods is not None and not wanted:
        raise BenchError(f"--methods {methods!r} names no method; leave it out for all of the record's but controls")
    for name in wanted:
        if name not in rows:
            raise BenchError(f"--methods {name}: the record has {', '.join(rows) or 'no method that finished'}")
    here = environment({}, None, "").processor
    costs: dict[str, CostOfMethod] = {}
    growths: dict[str, SearchGrowth] = {}
    left_out: list[str] = []
    machine = Machine(usable_threads(threads), float(psutil.virtual_memory().total))
    with interruptible(), Display() as display:
        try:
            plan, trial = same_data(whole, data_root, machine.cores, stoppable(display))
            for name in wanted:
                base = parse_method(name)
                for method, measured in growths_of(
                    base, others if base.backend is None else (), plan, trial, grow_to, stoppable(display)
                ):
                    if isinstance(measured, BenchError):
                        left_out.append(str(measured))
                        continue
                    row = rows[name].model_copy(update={"method": method})
                    costs[method] = cost_of(row, measured, whole.settings.threads, machine, asked, prices)
                    growths[method] = measured
        finally:  # what was measured is shown, also when the rest is interrupted
            if costs:
                display.say(cost_table.text(list(costs.values()), growths, machine, asked, prices, here))
            for sentence in left_out:
                display.say(f"left out: {sentence}")
            if whole.environment.processor != here:
                theirs = whole.environment.processor
                display.say(f"The record's times are of another processor ({theirs}); searches were measured here.")
            if as_json is not None and costs:
                facts = {
                    "record": printable(record),
                    "load": asdict(asked),
                    "prices": asdict(prices),
                    "machine": asdict(machine),
                    "processor": here,
                    "costs": [asdict(one) for one in costs.values()],
                    "growth": {name: asdict(growth) for name, growth in growths.items()},
                    "left_out": left_out,
                }
                write_whole(as_json, (json.dumps(facts, indent=2) + "\n").encode(), "--json")
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
        if found[match[1]] > MOST:
            raise BenchError(f"--price {match[1]}: must be at most {MOST:,.0f}")
    if "gb-month" in found and "cpu-hour" not in found:
        raise BenchError("--price: gb-month alone prices no machine; add cpu-hour=...")
    return Prices(found.get("cpu-hour"), found.get("gb-month"))
