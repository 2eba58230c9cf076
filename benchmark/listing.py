"""`list`: what is registered, family by family; one thing with its options; and what each metric means."""

from __future__ import annotations

import itertools
import json
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.options import AllowHost, AllowOutside, DataRoot, Plugins
from benchmark.plugins_shown import described_plugins, plugin_lines
from retrieval_bench.core import BenchError
from retrieval_bench.registry import ALL, CLEANINGS, Entry, unknown_name

WIDTH = 80
NAMES = 18
"""Columns of a name, and of an option."""
SHOWN_NETWORKS = ("resnet18", "resnet50", "vgg16", "squeezenet1_0", "mobilenet_v3_small", "vit_b_16")
"""Of torchvision's networks, those that the short list names."""
PLUGINS = "plugins"
FORMER_NAMES = {"heads": "classifiers"}
"""Former names of kinds, which go on working."""


@command(app, "list")
def list_command(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND|NAME]",
            help="methods, cleanings, joins, steps, classifiers, datasets, metrics, backends, perturbations, plugins; "
            "or the name of one thing, as sift.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME[:key=value...]", help="With `list metrics`: their ceilings on this dataset."),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, with options and definitions, as JSON.")] = False,
) -> None:
    """List methods by family, cleanings, joins, steps, classifiers, datasets, metrics, backends and plug-ins.

    `list NAME` explains one of them: each option, its default and its meaning. `list metrics` says how each metric is
    defined, and with --dataset what a perfect ranking reaches there.
    """
    kind = None if what is None else FORMER_NAMES.get(what, what)
    if dataset is not None and kind != "metrics":
        raise BenchError("--dataset: ceilings belong to metrics; write list metrics --dataset NAME")
    highest = {} if dataset is None else _ceilings(dataset, data_root)
    chosen: dict[str, list[Entry]]
    if kind == PLUGINS:
        say(json.dumps({PLUGINS: described_plugins()}, indent=1) if as_json else "\n".join(plugin_lines() or ["none"]))
        return
    if kind is None or kind in ALL:
        chosen = {key: list(registry) for key, registry in ALL.items() if kind in (None, key)}
    else:
        chosen = {key: [registry[kind]] for key, registry in ALL.items() if kind in registry}
        if not chosen:
            raise BenchError(_unknown(kind))
    if as_json:
        everything = {key: [_described(entry) for entry in entries] for key, entries in chosen.items()}
        if highest:
            for facts in everything["metrics"]:
                facts["ceilings"] = _own(highest, facts["name"])
        if kind is None:
            everything[PLUGINS] = described_plugins()
        say(json.dumps(everything, indent=1))
        return
    for line in _lines(kind, chosen, highest, dataset):
        say(line)


def _unknown(name: str) -> str:
    known = [*ALL, PLUGINS, *(entry.name for registry in ALL.values() for entry in registry)]
    return unknown_name("kind or name", name, known)


def _lines(
    kind: str | None, chosen: dict[str, list[Entry]], highest: dict[str, float], dataset: str | None
) -> Iterator[str]:
    if kind == "metrics":
        for entry in chosen["metrics"]:
            yield from _definition(entry, _own(highest, entry.name), dataset)
        return
    if kind is not None and kind not in chosen:
        for key, (entry,) in chosen.items():
            yield from _definition(entry, {}, None) if key == "metrics" else _explained(ALL[key].kind, entry)
        return
    for key, entries in chosen.items():
        for family, members in _families(entries):
            yield f"{key}, family {family}:" if family else f"{key}:"
            yield from _family(members, short=kind is None)
            yield ""
    if kind is None and (found := plugin_lines()):
        yield f"{PLUGINS}:"
        for line in found:
            yield from _wrapped(line, indent=2)
        yield ""
    if kind is None:
        yield from _wrapped("`list NAME` explains one of these with its options, `list metrics` defines the metrics.")
    elif any(entry.options for entries in chosen.values() for entry in entries):
        yield from _wrapped("`list NAME` explains one of these with its options.")


def _families(entries: Iterable[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    ordered = sorted(entries, key=lambda entry: entry.family)
    for family, members in itertools.groupby(ordered, key=lambda entry: entry.family):
        yield family, list(members)


def _family(members: list[Entry], short: bool) -> Iterator[str]:
    """A line or two for each entry; those that a provider adds (torchvision's networks) by name alone."""
    for entry in members:
        if not entry.facts.get("provided"):
            yield from _row(entry.name, entry.about)
    provided = [entry.name for entry in members if entry.facts.get("provided")]
    if provided and short:
        some = [name for name in SHOWN_NETWORKS if name in provided]
        yield from _row(
            "NETWORK", f"one of {len(provided)} networks of torchvision by its name: {', '.join(some)}, ..."
        )
        yield from _row("", "`list methods` names them all")
    elif provided:
        yield from _wrapped(f"and {len(provided)} networks of torchvision by name: {', '.join(provided)}", indent=2)


def _explained(kind: str, entry: Entry) -> Iterator[str]:
    """All that there is to say of one entry: what it is, and each option with its default and meaning."""
    family = f", family {entry.family}" if entry.family else ""
    yield f"{entry.name} ({kind}{family})"
    yield from _wrapped(entry.about, indent=2)
    yield ""
    if note := entry.facts.get("note"):
        yield from _wrapped(note, indent=2)
        yield ""
    main, argument = entry.facts.get("main"), entry.facts.get("argument")
    options = {name: parameter for name, parameter in entry.options.items() if name != argument}
    if argument:
        yield from _wrapped(f"{entry.name}:{argument.upper()} says which: {entry.meanings[argument]}", indent=2)
        yield ""
    if not options:
        yield "  It has no options."
        return
    yield f"  {'option':{NAMES}} {'default':10} what it means"
    for name, parameter in options.items():
        text = entry.meanings.get(name, "").rstrip(".")
        lines = textwrap.wrap(text, WIDTH - NAMES - 14, break_on_hyphens=False) or [""]
        yield f"  {name:{NAMES}} {_written(parameter.default):10} {lines[0]}".rstrip()
        for line in lines[1:]:
            yield f"  {'':{NAMES}} {'':10} {line}"
    yield ""
    first = next(iter(options))
    if main:
        default = options[main].default
        text = f"Write the value of `{main}` behind the name, {entry.name}={default}; others follow behind colons."
    else:
        called = f"{entry.name}:{argument.upper()}" if argument else entry.name
        before = "sift@" if kind == CLEANINGS.kind else ""
        given = f"{before}{called}:{first}={_written(options[first].default)}"
        text = f"Write options behind the name, each behind a colon: {given}"
    yield from _wrapped(text, indent=2)


def _written(default: Any) -> str:
    """The default as a user writes it."""
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default) or "-"


def _row(name: str, text: str) -> list[str]:
    indent = f"  {name:{NAMES}} "
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
    )


def _wrapped(text: str, indent: int = 0) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)


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
    from retrieval_bench.system.cores import usable_cores

    with Display() as display:
        return ceilings_of(prepare(Plan((), parse(DATASETS, dataset), root=root, threads=usable_cores()), display))


def _described(entry: Entry) -> dict[str, Any]:
    options = {name: parameter.default for name, parameter in entry.options.items()}
    facts = {"name": entry.name, "family": entry.family, "about": entry.about, "options": options}
    told = {key: value if key != "trains" else True for key, value in entry.facts.items()}  # how is no matter of JSON
    return {**facts, "meanings": entry.meanings, **told}
