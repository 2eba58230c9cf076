"""`dedupe`: which images of a dataset or folder are the same picture, and what to do about them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    MaxPixels,
    Plugins,
    checked_weights,
    decoding,
    parse_methods,
    usable_threads,
)
from retrieval_bench.core import BenchError, printable

if TYPE_CHECKING:
    import numpy as np

    from retrieval_bench.core import Distance, Split
    from retrieval_bench.data_audit.apply import ApplyPlan, Outcome
    from retrieval_bench.data_audit.dedupe import Collection, DuplicateGroups

SHOWN = 5
"""Groups of each method that are printed unless all are asked for."""


class Apply(StrEnum):
    list = "list"
    hardlink = "hardlink"
    move = "move"


@command(app, "dedupe")
def dedupe_command(
    source: Annotated[
        str | None,
        typer.Argument(metavar="DATASET|FOLDER", help="A dataset (see `list datasets`), or any folder of images."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="With --apply move: where to; outside the folder. Its tree is kept below."),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    methods: Annotated[
        str, typer.Option(metavar="phash,sift,...", help="Methods that images are compared by, comma-separated.")
    ] = "phash",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="folders|FILE",
            help="What each image of a folder shows: the name of its own folder, or a table (CSV, TSV, JSONL, Parquet) "
            "with the columns path and label. Pairs of one label are then no false pairs. A dataset has its labels.",
        ),
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Use this distance as the threshold instead of measuring one.")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Choose the threshold that reaches this precision. Default: the threshold of the best F1.",
        ),
    ] = None,
    copies: Annotated[
        int, typer.Option(min=4, help="How many copies are planted, about; the threshold is measured on these.")
    ] = 800,
    apply: Annotated[
        Apply | None,
        typer.Option(
            help="list: print every group. hardlink: make files that are equal byte for byte one file. move: move all "
            "but the best of each group to DIR. Without --yes it is only said what would be done."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do what --apply says, after writing the undo file.")] = False,
    undo_file: Annotated[
        Path | None,
        typer.Option(
            "--undo-file", metavar="FILE", help="Where to write it. Default: dedupe-undo-TIME.jsonl in this directory."
        ),
    ] = None,
    undo: Annotated[
        Path | None,
        typer.Option(
            "--undo", metavar="FILE", help="Bring back everything that the --apply of this undo file changed."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write duplicates.json and duplicates.html into this folder.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks, as in `run`.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of samples, copies and what methods learn.")
    ] = 0,
    max_pixels: MaxPixels = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Find near-duplicates, and put them away if asked to. The threshold is measured on planted copies.

    Pairs that resemble each other by nature, or have one label, are not counted as false; a line says how many there
    are. Every two images of a group lie within the threshold. The one to keep is a file before a link, then the one of
    most pixels, then of most bytes, then the first by name. Flat images are counted, and grouped by equal pixels alone.
    What was computed is kept, so that the same command goes on after an interruption.
    """
    from benchmark.display import Display
    from retrieval_bench.data_audit import dedupe
    from retrieval_bench.images.reading import DecodedBy
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.report.duplicates import page
    from retrieval_bench.system.cache import FeatureCache, cache_root
    from retrieval_bench.system.files import write_whole

    if undo is not None:
        if source is not None or apply is not None:
            raise BenchError("--undo FILE stands alone: the undo file says what was done, and where")
        return _undo(undo)
    if source is None:
        raise BenchError("name a dataset or a folder: dedupe FOLDER; or an undo file: dedupe --undo FILE")
    chosen = parse_methods(methods)
    a_dataset = source.partition(":")[0] in DATASETS
    _check(apply, to, yes, a_dataset, labels, len(chosen))
    if within is not None and precision is not None:
        raise BenchError("--within is a threshold and --precision chooses one; give one of them")
    if undo_file is not None and apply not in (Apply.hardlink, Apply.move):
        raise BenchError("--undo-file is written where something is changed; add --apply hardlink or --apply move")
    if data_root is not None and not a_dataset:
        raise BenchError(f"--data-root is for a dataset, and {printable(source)} is none; leave it out")
    if out is not None and out.exists() and not out.is_dir():
        raise BenchError(f"--out {printable(out)}: is a file, and two files are written into a folder; name a folder")
    workers = usable_threads(threads)
    checked_weights(weights, any(method.deep for method in chosen))
    with interruptible(), Display() as display:
        shown = stoppable(display)
        if a_dataset:
            collection = dedupe.of_dataset(parse(DATASETS, source).build(data_root))
        else:
            collection = dedupe.of_folder(Path(source), labels)
        collection = replace(collection, images=DecodedBy(collection.images, decoding(max_pixels)))
        cache = FeatureCache(cache_root())
        collection = dedupe.usable(
            collection, cache, workers, lambda done, total: shown("looking at images", done, total)
        )
        found = []
        for method in chosen:
            describe = describer(str(method), seed, workers, shown, weights)
            found.append(dedupe.by_method(collection, str(method), describe, within, precision, copies, seed))
    facts = dedupe.facts(collection, source, within, found)
    plan = None if apply in (None, Apply.list) else _planned(apply, collection, to, found[0])
    if plan is not None:
        facts["apply"] = _plan_facts(plan, yes)
    if out is not None:
        write_whole(out / "duplicates.json", (json.dumps(facts, indent=1) + "\n").encode())
        write_whole(out / "duplicates.html", page(facts, collection.thumbnail).encode("utf-8", "replace"))
    lines = _lines(facts, everything=apply is Apply.list)
    if plan is not None:
        lines += ["", *_plan_lines(plan, yes)]
    say(json.dumps(facts, indent=1) if as_json else "\n".join(lines))
    if out is not None:
        typer.echo(f"page: {printable(out / 'duplicates.html')}", err=True)
    if plan is not None and yes and plan.steps:
        _apply(plan, undo_file, as_json)
    return None


def _check(apply: Apply | None, to: Path | None, yes: bool, a_dataset: bool, labels: str | None, n: int) -> None:
    changes = apply in (Apply.hardlink, Apply.move)
    if to is not None and apply is not Apply.move:
        raise BenchError(f"{printable(to)}: a second folder is for --apply move alone")
    if apply is Apply.move and to is None:
        raise BenchError("--apply move needs a folder to move to: dedupe FOLDER --apply move DIR")
    if yes and not changes:
        raise BenchError("--yes needs --apply hardlink or --apply move; there is nothing else to do")
    if changes and a_dataset:
        raise BenchError(f"--apply {apply} works on a folder of images, not on a dataset; name the folder itself")
    if changes and n > 1:
        raise BenchError(f"--apply {apply} needs one method, whose groups it takes; name one with --methods")
    if labels is not None and a_dataset:
        raise BenchError("--labels is for a folder of images; a dataset has its labels")


def describer(
    method: str, seed: int, threads: int, progress: Callable[..., None], weights: str = "auto"
) -> Callable[[Split, Mapping[str, Split]], tuple[str, Distance, dict[str, np.ndarray]]]:
    """(train, splits) -> name, distance and features, through the feature cache."""
    from retrieval_bench.experiment.features import described
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.registry import DATASETS, Spec
    from retrieval_bench.system.cache import FeatureCache, cache_root

    chosen = parse_method(method)
    nothing = Spec(DATASETS["products"], {})  # a plan names a dataset; described() is given its splits instead
    plan = Plan((chosen,), nothing, seed=seed, threads=threads, weights=weights, cache=FeatureCache(cache_root()))

    def describe(train: Split, wanted: Mapping[str, Split]) -> tuple[str, Distance, dict[str, np.ndarray]]:
        pipeline, features = described(chosen, plan, train, wanted, progress)
        return pipeline.name, pipeline.distance, features

    return describe


def _planned(apply: Apply, collection: Collection, to: Path | None, found: DuplicateGroups) -> ApplyPlan:
    from retrieval_bench.data_audit.apply import planned

    assert collection.root is not None
    groups = [group.rows.tolist() for group in found.groups]
    return planned(
        "hardlink" if apply is Apply.hardlink else "move",
        collection.root,
        to,
        groups,
        collection.paths,
        collection.images,
    )


def _plan_facts(plan: ApplyPlan, yes: bool) -> dict[str, Any]:
    return {
        "action": plan.action,
        "to": printable(plan.to),
        "dry_run": not yes,
        "bytes": plan.freed,
        "steps": [
            {"path": printable(step.path), "keep": printable(step.keep), "target": printable(step.target)}
            for step in plan.steps
        ],
        "left": [{"path": printable(path), "why": why} for path, why in plan.left],
    }


def _plan_lines(plan: ApplyPlan, yes: bool) -> list[str]:
    lines = []
    for step in plan.steps:
        if plan.action == "move":
            lines.append(f"move {_shown(step.path)} to {_shown(step.target)} (stays: {_shown(step.keep)})")
        else:
            lines.append(f"hardlink {_shown(step.path)} to {_shown(step.keep)}")
    lines += [f"leave {_shown(path)}: {why}" for path, why in plan.left]
    n = len(plan.steps)
    what = "move" if plan.action == "move" else "become hard links"
    lines.append(f"{n:,} files to {what}, {plan.freed:,} bytes; {len(plan.left):,} duplicates stay as they are.")
    if not yes:
        lines.append("Nothing was changed: this is a dry run. Add --yes to do it.")
    return lines


def _apply(plan: ApplyPlan, undo_file: Path | None, as_json: bool) -> None:
    from benchmark.display import Display
    from retrieval_bench.data_audit.apply import apply, write_journal

    file = undo_file or Path(f"dedupe-undo-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.jsonl")
    write_journal(plan, file)
    typer.echo(f"undo file: {printable(file)}; bring everything back with: dedupe --undo {printable(file)}", err=True)
    with interruptible(), Display() as display:
        outcome = apply(plan, _progress(stoppable(display), plan.action))
    _told(outcome, "moved" if plan.action == "move" else "linked", aside=as_json)


def _undo(file: Path) -> None:
    from benchmark.display import Display
    from retrieval_bench.data_audit.apply import undo

    with interruptible(), Display() as display:
        outcome = undo(file, _progress(stoppable(display), "undo"))
    _told(outcome, "as they were")


def _progress(shown: Callable[..., None], what: str) -> Callable[[int, int], None]:
    return lambda done, total: shown(what, done, total)


def _told(outcome: Outcome, what: str, aside: bool = False) -> None:
    """aside: on stderr, where stdout is JSON."""
    typer.echo(f"{outcome.done:,} files {what}", err=True) if aside else say(f"{outcome.done:,} files {what}")
    if outcome.failed:
        path, why = outcome.failed[0]
        raise BenchError(
            f"{len(outcome.failed):,} files were left as they are; the first: {_shown(path)}: {why}; "
            "the same command goes on when that is put right"
        )


def _shown(name: str) -> str:
    """A path on one line: what is no letter is escaped, so that no name looks like two, or like another."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter)[0] == "C" else letter
        for letter in printable(name)
    )


def _lines(facts: dict[str, Any], everything: bool) -> list[str]:
    from retrieval_bench.report.lines import aligned

    lines = [
        (
            f"{_shown(facts['source'])}: {facts['images']:,} images, {facts['distinct']:,} distinct, "
            f"{len(facts['unusable'])} unusable"
        ),
        *facts["notices"],
    ]
    for reason, ids in _by_reason(facts["unusable"]).items():
        lines.append(f"unusable: {len(ids):,} {reason}: {', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}")
    if facts["flat"]:
        names = ", ".join(method["method"] for method in facts["methods"])
        lines.append(f"{facts['flat']:,} flat, not compared by {names}; of these only equal pixels are grouped")
    heads = ["method", "threshold", "precision", "recall", "F1", "false/million", "pairs", "groups"]
    table = [[*heads, "images", "diameter", *(["one label", "several"] if facts["labelled"] else []), "s"]]
    for method in facts["methods"]:
        table.append(_row(method, facts["labelled"]))
    lines += aligned(table)
    measured = [method for method in facts["methods"] if method["judged"] is not None]
    if measured:
        lines.append(
            "Thresholds were chosen on one half of the planted copies and measured on the other half, for a "
            "collection of this size in which one image in a hundred has a copy."
        )
        for method in measured:
            lines.append(_alike_line(method, facts["labelled"]))
        kinds = list(measured[0]["judged"]["found"])
        recall = [["copies found", *kinds]]
        for method in measured:
            recall.append([method["method"], *(f"{method['judged']['found'].get(kind, 0):.2f}" for kind in kinds)])
        lines += ["", *aligned(recall)]
    if not measured and facts["within"] is None:
        lines.append(_unmeasured(facts["methods"]))
    cut = [method for method in facts["methods"] if method["pairs"] > method["pairs_in_groups"]]
    lines += [
        f"{method['method']}: {method['pairs'] - method['pairs_in_groups']:,} more pairs lie within the threshold, but "
        "not within that of a whole group: chains are cut"
        for method in cut
    ]
    if any(method["groups"] for method in facts["methods"]):
        lines.append(f"First of each group is {facts['keep']}.")
    for method in facts["methods"]:
        for group in method["groups"] if everything else method["groups"][:SHOWN]:
            lines += _group_lines(method["method"], group, everything)
        more = len(method["groups"]) - SHOWN
        if more > 0 and not everything:
            lines.append(f"  {method['method']}: and {more:,} more groups; --apply list prints all")
    return lines


def _unmeasured(methods: list[dict[str, Any]]) -> str:
    if all(method["threshold"] is None for method in methods):
        return "Only images of equal pixels are grouped."
    return (
        "Too few pictures differ to measure how many strangers a threshold would take: it is the distance of the "
        "farthest JPEG copy. Give another with --within."
    )


def _by_reason(unusable: list[dict[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in unusable:
        found.setdefault(one["reason"], []).append(_shown(one["id"]))
    return found


def _row(method: dict[str, Any], labelled: bool) -> list[str]:
    judged, groups = method["judged"], method["groups"]
    quality = ["n/a"] * 4
    if judged is not None:
        quality = [f"{judged['held_out'][name]:.3f}" for name in ("precision", "recall", "f1")]
        quality.append(f"{judged['false_per_million']:,.1f}")
    counts = [method["pairs"], len(groups), sum(len(group["members"]) for group in groups)]
    one = (
        [str(sum(group["labels"] <= 1 for group in groups)), str(sum(group["labels"] > 1 for group in groups))]
        if labelled
        else []
    )
    return [
        method["method"],
        "equal" if method["threshold"] is None else f"{method['threshold']:.4g}",
        *quality,
        *(f"{count:,}" for count in counts),
        f"{max((group['diameter'] for group in groups), default=0):.4g}",
        *one,
        f"{method['search_s']:.2f}",
    ]


def _alike_line(method: dict[str, Any], labelled: bool) -> str:
    judged = method["judged"]
    of = f"of the {judged['looked_at']:,} pictures looked at"
    if not judged["alike_by_nature"]:
        return f"{method['method']}: no two {of} resemble each other by nature."
    why = "have one label or show one and the same picture" if labelled else "resemble each other by nature"
    return (
        f"{method['method']}: {judged['alike_by_nature']:,} pairs {of} {why}. They "
        f"are left out, not counted as false; {judged['alike_found']:,} of them lie within the threshold. Other "
        "duplicates that are in the collection already count as false, so the precision is a lower bound as to those."
    )


def _group_lines(method: str, group: dict[str, Any], everything: bool) -> list[str]:
    ids = [_shown(item["id"]) for item in group["members"]]
    labels = f", {group['labels']} labels" if group.get("labels", 1) > 1 else ""
    head = f"  {method}, diameter {group['diameter']:.4g}{labels}: "
    if everything:
        return [head + f"keep {ids[0]}", *(f"    = {item}" for item in ids[1:])]
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return [head + " = ".join(ids[:3]) + more]
