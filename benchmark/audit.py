"""`audit`: copies, leaks, conflicting labels, lone queries, balance and odd images of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import AllowHost, AllowOutside, DataRoot, MaxPixels, Plugins, decoding, usable_threads
from retrieval_bench.core import BenchError


@command(app, "audit")
def audit_command(
    dataset: Annotated[str, typer.Argument(metavar="NAME[:key=value...]", help="A dataset; see `list datasets`.")],
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    radius: Annotated[
        int,
        typer.Option(
            min=0, max=16, help="Two images are duplicates if their 64-bit hashes differ in at most so many bits."
        ),
    ] = 4,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="Also compare images by the features of this method, e.g. color.")
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(help="Largest distance of duplicates by --method. Default: measured on slightly changed copies."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(metavar="RECORD", help="Also show the scores of this record without the leaked queries."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of samples and of what methods learn.")] = 0,
    max_pixels: MaxPixels = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything, with examples, as JSON.")] = False,
) -> None:
    """Find duplicates within and across splits, conflicting labels, queries without a match, and broken images."""
    from benchmark.dedupe import describer
    from benchmark.display import Display
    from retrieval_bench.compare.reload import dataset_of
    from retrieval_bench.data_audit import audit
    from retrieval_bench.images.reading import decoded_by
    from retrieval_bench.records.files import load, load_rankings
    from retrieval_bench.registry import DATASETS, parse

    if within is not None and method is None:
        raise BenchError("--within is a distance by --method; name one, or set how many bits of hashes with --radius")
    spec = parse(DATASETS, dataset)
    workers = usable_threads(threads)
    whole = None if record is None else load(record)
    if whole is not None and whole.dataset.spec != str(spec):
        raise BenchError(
            f"--record {record}: this record is of {whole.dataset.spec}, not of {spec}; name a record of {spec}"
        )
    with interruptible(), Display() as display:
        shown = stoppable(display)
        data = decoded_by(spec.build(data_root), decoding(max_pixels))
        if whole is not None:
            dataset_of(whole, data_root)  # refuses a record of other images
        items = audit.items_of(data)
        seen = audit.look_at_all(data, items, workers, lambda done, total: shown("looking at images", done, total))
        kinds = audit.duplicates_of(seen, radius)
        facts: dict[str, Any] = {"dataset": str(spec), "images": len(items.ids), "radius": radius}
        if method is not None:
            describe = describer(method, seed, workers, shown)
            name, facts["within"], near = audit.by_method(describe, data, items, seen, within, seed)
            kinds[name] = near
    facts["duplicates"] = [audit.duplicate_facts(kind, pairs, items, data) for kind, pairs in kinds.items()]
    facts["odd"] = audit.odd_images(seen, items)
    facts["balance"] = audit.balance(data)
    facts["notices"] = list(data.notices)
    if whole is not None and record is not None:
        arrays = load_rankings(record, whole)
        facts["record"] = {
            kind: audit.without_leaked(whole, arrays, audit.leaked_queries(pairs, items)["either"], items)
            for kind, pairs in kinds.items()
        }
    say(json.dumps(facts, indent=1) if as_json else "\n".join(_lines(facts)))


def _lines(facts: dict[str, Any]) -> list[str]:
    from retrieval_bench.report.lines import aligned

    kinds = facts["duplicates"]
    crossings = list(kinds[0]["pairs_by_split"])
    table = [["duplicates", "pairs", "groups", "images", *crossings, "conflicts", "leaked queries"]]
    for kind in kinds:
        cells = [kind["pairs"], kind["groups"], kind["images"], *(kind["pairs_by_split"][name] for name in crossings)]
        cells += [kind["conflicts"], kind["leaked_queries"]["either"]]
        table.append([kind["kind"], *(f"{cell:,}" for cell in cells)])
    lines = [f"{facts['dataset']}: {facts['images']:,} images", *aligned(table)]
    lines.append(f"phash, dhash: at most {facts['radius']} of 64 bits differ.")
    if "within" in facts:
        lines.append(f"{kinds[-1]['kind']}: at a distance of {facts['within']:.4g} or less.")
    lines.append("Leaked: a duplicate lies in train or gallery. Conflict: the two labels differ.")
    for kind in kinds:
        for pair in kind["examples"][:3]:
            first, second = (f"{side['id']} ({side['label']})" for side in (pair["first"], pair["second"]))
            word = ", conflict" if pair["conflict"] else ""
            lines.append(f"  {kind['kind']} {pair['distance']:.4g}{word}: {first} = {second}")
    balance, odd = facts["balance"], facts["odd"]
    split_table = [["images of a label", "images", "labels", "without", "least", "median", "most"]]
    for name in ("train", "gallery", "query"):
        one = balance[name]
        cells = [one[key] for key in ("images", "labels", "labels_without", "least", "median", "most")]
        split_table.append([name, *(f"{cell:,g}" for cell in cells)])
    lines += ["", *aligned(split_table), ""]
    lines.append(f"lone queries (nothing in the gallery has their label): {balance['lone_queries']['count']}")
    sides = odd["shorter_side"]
    lines.append(
        f"broken {odd['broken']['count']}, tiny (below {odd['tiny']['below']} pixels) {odd['tiny']['count']}, "
        f"flat {odd['flat']['count']}; shorter side {sides['least']} to {sides['most']} pixels, "
        f"median {sides['median']:g}"
    )
    lines += [f"  broken: {sentence}" for sentence in odd["broken"]["examples"][:3]]
    lines += facts["notices"]
    leaks = facts.get("record", {})
    none = [kind for kind, found in leaks.items() if not found["leaked"]]
    if none:
        lines += ["", f"{', '.join(none)}: no query leaked, so the scores do not change"]
    for kind, found in leaks.items():
        if kind in none:
            continue
        lines += ["", f"without the {found['leaked']} of {found['queries']} queries that leaked by {kind}:"]
        if not found["scores"]:
            lines[-1] += " none is left"
            continue
        names = list(next(iter(found["scores"].values())))
        heads = [f"{name} {part}" for name in names for part in ("all", "without", "leaked")]
        rows = [
            [method, *(f"{values[name][part]:.3f}" for name in names for part in ("all", "without", "leaked"))]
            for method, values in found["scores"].items()
        ]
        lines += aligned([["method", *heads], *rows])
    return lines
