"""`sweep`: one option of an approximate backend over several values, on the features of a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins, usable_threads
from retrieval_bench.core import BenchError, printable

if TYPE_CHECKING:
    from retrieval_bench.registry import Spec

MOST_VALUES = 64


@command(app, "sweep")
def sweep_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    backend: Annotated[
        str, typer.Option(metavar="NAME[:key=value...]", help="An approximate backend, such as faiss:hnsw.")
    ],
    over: Annotated[
        str,
        typer.Option(metavar="OPTION=A..B|A,B,C", help="Its option and the values; 16..512 doubles from 16 to 512."),
    ],
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="A method of the record. Default: its first that is no control.")
    ] = None,
    recall: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="What the chosen value must find of exact search, on train.")
    ] = 0.99,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
) -> None:
    """Draw what an approximate search finds, and how well it does its task, against queries/s."""
    from benchmark.display import Display
    from retrieval_bench.experiment.repeat import same_data
    from retrieval_bench.experiment.sweep import sweep
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.records import sweeps
    from retrieval_bench.records.environment import environment
    from retrieval_bench.records.files import load
    from retrieval_bench.registry import BACKENDS, parse
    from retrieval_bench.report import sweeps as shown

    spec = parse(BACKENDS, backend)
    if spec.entry.facts.get("exact"):
        raise BenchError(f"--backend {spec}: it is exact and has nothing to sweep over; name one such as faiss:hnsw")
    option, values = _values(spec, over)
    whole = load(record)
    names = [text for text, row in zip(whole.settings.methods, whole.rows, strict=True) if row.family != "control"]
    if method is not None and str(parse_method(method)) not in names:
        raise BenchError(f"--method {method}: the record has {', '.join(names) or 'no method'}")
    if not names:
        raise BenchError(f"{printable(record)}: only controls are in this record, and nothing of them is searched for")
    chosen = parse_method(names[0] if method is None else method).without_backend
    with interruptible(), Display() as display:
        progress = stoppable(display)
        plan, trial = same_data(whole, data_root, usable_threads(threads), progress)
        found = sweep(
            *(chosen, plan, trial, spec, option, values),
            wanted=recall,
            environment=environment({}, None, ""),
            progress=progress,
        )
        place = sweeps.place_of(record if record.is_dir() else record.parent, found)
        sweeps.save(place.with_name(f"{place.name}.json"), found)
        display.say(shown.text(found))
        display.say(f"sweep: {printable(place)}.json; `report` shows it, too")
        shown.draw(found, place.with_name(f"{place.name}.png"))
        display.say(f"picture: {printable(place)}.png")


def _values(spec: Spec, over: str) -> tuple[str, tuple[Any, ...]]:
    """ "ef=16..512" -> ("ef", (16, 32, 64, 128, 256, 512)). BenchError where the backend has no such option."""
    from retrieval_bench.registry import BACKENDS, parse

    option, equals, text = over.partition("=")
    if not equals or option not in spec.entry.options:
        raise BenchError(
            f"--over {over!r}: write an option of {spec.entry.name} with its values, e.g. ef=16..512; it has "
            f"{', '.join(spec.entry.options)}"
        )
    if option in spec.options:
        raise BenchError(
            f"--backend {spec} says {option} already, and --over {over} varies it; leave it out of --backend"
        )
    low, dots, high = text.partition("..")
    words = text.split(",") if not dots else _doubled(over, low, high)
    found = [parse(BACKENDS, f"{spec}:{option}={word.strip()}").options[option] for word in words]
    if len(set(found)) < 2 or len(found) > MOST_VALUES or not all(isinstance(one, int | float) for one in found):
        raise BenchError(f"--over {over!r}: give from 2 to {MOST_VALUES} different numbers, e.g. {option}=16..512")
    return option, tuple(sorted(set(found)))


def _doubled(over: str, low: str, high: str) -> list[str]:
    try:
        first, last = int(low), int(high)
    except ValueError:
        first, last = 0, 0
    if not 0 < first < last:
        raise BenchError(f"--over {over!r}: A..B are whole numbers above 0, the first smaller, e.g. ef=16..512")
    values = [first]
    while values[-1] * 2 < last:
        values.append(values[-1] * 2)
    return [*map(str, values), str(last)]
