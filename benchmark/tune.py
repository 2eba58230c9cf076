"""`tune`: methods and options are chosen on train or val alone, in a given time; the queries are asked once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import SOME_FAILED, app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    MaxBytes,
    MaxFit,
    MaxP95,
    Plugins,
    Prefer,
    checked_weights,
    decoding,
    parse_methods,
    usable_threads,
)
from retrieval_bench.core import BenchError, printable

DEFAULT_START = "sift,hog,phash,color,efficientnet_lite0"
UNITS = {"s": 1, "m": 60, "h": 3600}


@command(app, "tune")
def tune_command(
    budget: Annotated[str, typer.Option(metavar="30m", help="Time for all of it: 90s, 30m, 2h.")] = "30m",
    dataset: Annotated[str, typer.Option(metavar="NAME[:key=value...]", help="Whose queries are asked once.")] = (
        "products"
    ),
    val: Annotated[
        str | None,
        typer.Option(metavar="NAME[:key=value...]", help="Data to choose by. Default: a part of train."),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="a,b", help="Methods to begin with; options, joins and steps come from these.")
    ] = DEFAULT_START,
    prefer: Prefer = None,
    max_p95_ms: MaxP95 = None,
    max_bytes: MaxBytes = None,
    max_fit_s: MaxFit = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Every trial, and the record of the chosen; run again to go on.")
    ] = Path("results/tuned"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of what is drawn.")] = 0,
    weights: Annotated[str, typer.Option(metavar="auto|pretrained|random|DIR", help="Of networks.")] = "auto",
    plugin: Plugins = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
) -> int | None:
    """Search for the best method and options within limits, on train or val alone; then ask the queries once."""
    from dataclasses import replace

    from benchmark.display import Display
    from retrieval_bench.choosing.recommend import PREFERRED
    from retrieval_bench.experiment import prepare, runner
    from retrieval_bench.experiment.device_choice import resolve_device
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.cache import FeatureCache, cache_root
    from retrieval_bench.tuning import tuning_table as shown
    from retrieval_bench.tuning.halving import CostLimits
    from retrieval_bench.tuning.tune import tune

    seconds = _seconds(budget)
    metric = prefer or PREFERRED
    methods = parse_methods(start)
    if controls := [str(one) for one in methods if any(part.entry.family == "control" for part in one.members)]:
        raise BenchError(
            f"--start {start}: {', '.join(controls)}: controls show what chance or the labels give, and are no methods "
            "to choose; leave them out"
        )
    limits = CostLimits(max_p95_ms, max_bytes, max_fit_s)
    plan = prepare.Plan(
        methods=methods,
        dataset=parse(DATASETS, dataset),
        root=data_root,
        seed=seed,
        weights=checked_weights(weights, any(method.deep for method in methods)),
        device=resolve_device("auto", methods, "exact"),
        threads=usable_threads(threads),
        decoding=decoding(None),
        cache=FeatureCache(cache_root()),
    )
    by = None if val is None else replace(plan, dataset=parse(DATASETS, val))
    with interruptible(), Display() as display:
        progress = stoppable(display)
        found = tune(
            *(plan, by, out, metric, limits, seconds, progress),
            on_trial=stoppable(lambda tried: display.say(shown.line(tried))),
        )
        display.say(shown.table(found, metric))
        record = runner.run(replace(plan, methods=found.methods), out, overwrite=True, progress=progress)
        display.say(f"record: {printable(out / 'run.json')}")
    typer.echo(shown.gaps(found, record, metric))
    return SOME_FAILED if any(row.status == "failed" for row in record.rows) else None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh])", text.strip())
    if match is None or not float(match[1]):
        raise BenchError(f"--budget {text!r}: write a time such as 90s, 30m or 2h")
    return float(match[1]) * UNITS[match[2]]
