"""`list`: what is registered, with its options; and what each metric means."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.options import DataRoot
from retrieval_bench.core import BenchError

if TYPE_CHECKING:
    from retrieval_bench.registry import Entry, Registry


class Kind(StrEnum):
    methods = "methods"
    joins = "joins"
    steps = "steps"
    heads = "heads"
    datasets = "datasets"
    metrics = "metrics"
    backends = "backends"
    perturbations = "perturbations"


@command(app, "list")
def list_command(
    kind: Annotated[Kind | None, typer.Argument(help="Only these.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME[:key=value...]", help="With `list metrics`: their ceilings on this dataset."),
    ] = None,
    data_root: DataRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, with options and definitions, as JSON.")] = False,
) -> None:
    """List methods, how they are joined and re-ranked, classifiers, datasets, metrics and backends, one line each.

    `list metrics` also says how each metric is defined, and with --dataset what a perfect ranking reaches there.
    """
    from retrieval_bench.registry import (
        BACKENDS,
        CLASSIFIERS,
        DATASETS,
        EXTRACTORS,
        JOINS,
        METRICS,
        PERTURBATIONS,
        STEPS,
    )

    registries: dict[Kind, Registry] = {
        Kind.methods: EXTRACTORS,
        Kind.joins: JOINS,
        Kind.steps: STEPS,
        Kind.heads: CLASSIFIERS,
        Kind.datasets: DATASETS,
        Kind.metrics: METRICS,
        Kind.backends: BACKENDS,
        Kind.perturbations: PERTURBATIONS,
    }
    chosen = {key: value for key, value in registries.items() if kind in (None, key)}
    if dataset is not None and kind is not Kind.metrics:
        raise BenchError("--dataset: ceilings belong to metrics; write list metrics --dataset NAME")
    highest = {} if dataset is None else _ceilings(dataset, data_root)
    if as_json:
        everything = {key.value: [_described(entry) for entry in registry] for key, registry in chosen.items()}
        if highest:
            for facts in everything[Kind.metrics.value]:
                facts["ceilings"] = _own(highest, facts["name"])
        say(json.dumps(everything, indent=1))
        return
    if kind is Kind.metrics:
        for entry in METRICS.own():
            say("\n".join(_definition(entry, _own(highest, entry.name), dataset)))
        return
    for key, registry in chosen.items():
        own = registry.own()
        say(f"{key.value}:")
        for entry in own:
            say(f"  {entry.name:16} {entry.about}{_options(entry)}")
        further = [entry.name for entry in registry if entry not in own]
        if further:
            say(f"  and {len(further)} torchvision networks by name: {_wrapped(further)}")
        say("")


def _definition(entry: Entry, highest: dict[str, float], dataset: str | None) -> list[str]:
    """All that a metric's name means, over several lines."""
    facts = entry.facts
    text = [f"{entry.name}{'@k' if facts['at_k'] else ''}: {entry.about}"]
    text += [f"  {name:12} {facts[name]}" for name in ("definition", "denominator", "ties", "empty", "ceiling")]
    if highest:
        text.append(f"  {'':12} on {dataset}: {', '.join(f'{name} {value:.4f}' for name, value in highest.items())}")
    return [*text, ""]


def _own(highest: dict[str, float], metric: str) -> dict[str, float]:
    return {name: value for name, value in highest.items() if metric in (name, name.rpartition("@")[0])}


def _ceilings(dataset: str, root: Path | None) -> dict[str, float]:
    from benchmark.display import Display
    from retrieval_bench.experiment.prepare import Plan, prepare
    from retrieval_bench.experiment.recording import ceilings_of
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.timing import usable_cores

    with Display() as display:
        return ceilings_of(prepare(Plan((), parse(DATASETS, dataset), root=root, threads=usable_cores()), display))


def _options(entry: Entry) -> str:
    options = [f"{name}={parameter.default}" for name, parameter in entry.options.items()]
    return f" [{', '.join(options)}]" if options else ""


def _wrapped(names: Iterable[str]) -> str:
    import textwrap

    return "\n" + textwrap.fill(", ".join(names), 110, initial_indent="    ", subsequent_indent="    ")


def _described(entry: Entry) -> dict[str, Any]:
    options = {name: parameter.default for name, parameter in entry.options.items()}
    return {"name": entry.name, "family": entry.family, "about": entry.about, "options": options, **entry.facts}
