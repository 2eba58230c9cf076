"""`label`: labels for images that have none, proposed by their neighbours, decided by a person or, where sure, not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    Device,
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

    from retrieval_bench.labelling.pool import LabelPool
    from retrieval_bench.labelling.session import LabellingSession

NEEDS = "label --serve needs more packages: pip install 'retrieval-bench[serve]'"
SHOWN = 10
PORT, SEEDS = 8001, 10


@command(app, "label")
def label_command(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:key=value...]", help="A dataset; `manifest` reads a list in which labels may be missing."
        ),
    ],
    method: Annotated[
        str,
        typer.Option(metavar="NAME", help="By whose features images are neighbours, e.g. efficientnet_lite0+color."),
    ] = "efficientnet_lite0",
    data_root: DataRoot = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images beside the list of `manifest`: those that it lacks have no label."),
    ] = None,
    target: Annotated[
        float,
        typer.Option(min=0.5, max=0.999, help="Share of the proposals accepted without a person that should be right."),
    ] = 0.95,
    accept_confident: Annotated[
        bool, typer.Option("--accept-confident", help="Accept all proposals that are sure enough, as one decision.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write the list of labelled images, for `manifest`.")
    ] = None,
    keep_open: Annotated[
        bool,
        typer.Option("--keep-open", help="List images without a label, too; `manifest` takes them for distractors."),
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", help="Every decision, to go on from. Default: beside --out, or decisions.jsonl."
        ),
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Open the page on which a person decides, by keyboard.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Where the page of --serve is; 0: any free port. Default: {PORT}."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Hide labels that are known, and say what proposals are worth; needs --known."),
    ] = False,
    known: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep N labels of each product, and hide all others.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help=f"Drawings of known labels for --measure. Default: {SEEDS}.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the first drawing, and of what methods learn.")
    ] = 0,
    max_bad: Annotated[
        float, typer.Option("--max-bad", min=0.0, max=1.0, help="Share of images that may be broken and left out.")
    ] = 0.01,
    max_pixels: MaxPixels = None,
    weights: Annotated[str, typer.Option(metavar="auto|pretrained|random|DIR", help="Of networks.")] = "auto",
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    plugin: Plugins = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Propose labels, find labels that are likely to be wrong, and keep what a person decides."""
    from benchmark.display import Display
    from retrieval_bench import __version__
    from retrieval_bench.experiment.device_choice import resolve_device
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.labelling.decisions import DecisionLog, DecisionsOf
    from retrieval_bench.labelling.output import check_out
    from retrieval_bench.labelling.pool import features_of, pool_of, usable, with_few_known
    from retrieval_bench.labelling.session import LabellingSession
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.cache import FeatureCache, cache_root

    methods = parse_methods(method)
    if len(methods) > 1:
        raise BenchError(f"--method {method}: label compares by one method; join several with +")
    if measure and (known is None or serve or accept_confident or out is not None):
        raise BenchError("--measure goes with --known N, and without --serve, --accept-confident and --out")
    for option, given, partner in (
        ("--seeds", seeds is not None and not measure, "--measure"),
        ("--port", port is not None and not serve, "--serve"),
        ("--keep-open", keep_open and out is None, "--out FILE.csv"),
    ):
        if given:
            raise BenchError(f"{option} does nothing without {partner}; add that, or leave {option} out")
    if out is not None:  # before minutes are spent, and so for the port
        check_out(out, data_root)
        if log is not None and out.absolute() == log.absolute():
            raise BenchError(f"--log {printable(log)}: is the file of --out; name another, such as labelled.jsonl")
    listener = _listener(PORT if port is None else port) if serve else None
    try:
        cores = usable_threads(threads)
        plan = Plan(
            methods=methods,
            dataset=parse(DATASETS, dataset),
            root=data_root,
            seed=seed,
            weights=checked_weights(weights, methods[0].deep),
            device=resolve_device(device.value, methods, "exact"),
            threads=cores,
            decoding=decoding(max_pixels),
            cache=FeatureCache(cache_root()),
        )
        with interruptible(), Display() as display:
            progress = stoppable(display)
            pool, skipped = usable(pool_of(plan, images), plan, max_bad, progress)
            name, distance, features = features_of(pool, plan, progress)
            facts: dict[str, Any] = {"dataset": pool.name, "method": name, "images": len(pool)}
            facts["skipped"] = [f"{one.id}: {one.detail}" for one in skipped]
            facts["notices"] = list(pool.notices)
            if measure:
                assert known is not None
                drawings = range(seed, seed + (SEEDS if seeds is None else seeds))
                facts |= _measured(pool, features, distance, known, drawings, target, cores, progress)
                say(json.dumps(facts, indent=1) if as_json else "\n".join(_measured_lines(facts)))
                return
            if known is not None:
                pool = with_few_known(pool, known, seed)
            place = log or (Path("decisions.jsonl") if out is None else out.with_name(f"{out.stem}.decisions.jsonl"))
            of = DecisionsOf(version=__version__, dataset=pool.name, images=len(pool), fingerprint=pool.fingerprint())
            session = LabellingSession(pool, features, distance, DecisionLog(place, of), target, cores)
            display.say("\n".join(_lines(session, facts)))
        if accept_confident:
            taken = session.accept_confident()
            facts["accepted"] = taken
            told = f"accepted {taken:,} proposals, noted in {printable(place)}" if taken else "accepted no proposal"
            typer.echo(told, err=True)
        if listener is not None:
            _serve(session, listener, out, keep_open)
        facts |= _standing(session)
        if out is not None:
            facts["out"] = _written(session, out, keep_open)
        if as_json:
            say(json.dumps(facts, indent=1))
    finally:
        if listener is not None:
            listener.close()


def _listener(port: int) -> Any:
    try:
        from retrieval_bench.serving import running
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("retrieval_bench"):
            raise
        raise BenchError(NEEDS) from None
    return running.listening("127.0.0.1", port)


def _serve(session: LabellingSession, listener: Any, out: Path | None, keep_open: bool) -> None:
    from retrieval_bench.labelling.output import write_list
    from retrieval_bench.serving import running
    from retrieval_bench.serving.decoding.pool import DecodingPool
    from retrieval_bench.serving.labelling_app import create_labelling_app

    children = DecodingPool(1)
    try:
        save = None if out is None else (lambda: write_list(session, out, keep_open))
        address = running.address_of(listener)
        page = create_labelling_app(session, children, save)
        running.run(page, listener, lambda: say(f"ready: {address}"))
    finally:
        children.close()


def _written(session: LabellingSession, out: Path, keep_open: bool) -> dict[str, Any]:
    from retrieval_bench.labelling.output import write_list

    written = write_list(session, out, keep_open)
    typer.echo(
        f"{printable(out)}: {written.rows:,} images; {written.given:,} labels given, {written.person:,} by a person, "
        f"{written.machine:,} by machine, {written.nothing:,} without a product; {written.left_out:,} left out",
        err=True,
    )
    for notice in written.notices:
        typer.echo(notice, err=True)
    return {
        "path": printable(out),
        "rows": written.rows,
        "left_out": written.left_out,
        "notices": list(written.notices),
    }


def _standing(session: LabellingSession) -> dict[str, Any]:
    from dataclasses import asdict

    confidence = session.confidence
    return {
        "standing": asdict(session.standing()),
        "threshold": confidence.threshold,
        "why_not": confidence.why_not,
        "held_out": confidence.held_out,
        "new_share": confidence.new_share,
        "suspects": [
            {"id": one.id, "given": one.given, "proposed": one.candidates[0].label}
            for one in map(session.proposal, session.suspicious)
        ],
    }


def _lines(session: LabellingSession, facts: dict[str, Any]) -> list[str]:
    from retrieval_bench.report.markup import visible

    standing, confidence = session.standing(), session.confidence
    lines = [
        (
            f"{facts['dataset']}, by {facts['method']}: {standing.images:,} images, "
            f"{standing.images - standing.open:,} with a label or a decision, {standing.open:,} without"
        ),
        *facts["notices"],
        *(f"left out: {visible(one)}" for one in facts["skipped"][:SHOWN]),
    ]
    if confidence.threshold is None:
        lines.append(f"nothing is accepted without a person: {confidence.why_not}")
    else:
        lines.append(
            f"sure: {standing.confident:,} proposals; of {confidence.held_out:,} labels that were held out, the "
            f"proposals as sure as these were right in {confidence.precision:.1%} (at least {confidence.low:.1%})"
        )
    if standing.open:
        lines.append(f"about {confidence.new_share:.0%} of the images without a label show a product without any label")
    rows = session.suspicious
    if rows:
        lines.append(f"{len(rows):,} of the labels are likely to be wrong:")
        for one in map(session.proposal, rows[:SHOWN]):
            lines.append(visible(f"  {one.id}: {one.given}, or rather {one.candidates[0].label}"))
    return lines


def _measured(
    pool: LabelPool,
    features: np.ndarray,
    distance: Any,
    known: int,
    seeds: range,
    target: float,
    threads: int,
    progress: Any,
) -> dict[str, Any]:
    from dataclasses import asdict

    from retrieval_bench.labelling import measure

    graph = measure.graph_for(pool, features, distance, threads)
    told: dict[str, Any] = {"known": known, "target": target, "trials": {}, "planted": {}}
    for name, new in (("no new product", 0.0), ("20 % new products", 0.2)):
        found = measure.trials(pool, graph, known, seeds, target, new, progress)
        told["trials"][name] = [asdict(one) | {"saved": one.saved} for one in found]
    for name, few in ((f"{known} labels a product", known), ("all labels", None)):
        errors = measure.planted(pool, graph, few, seeds)
        told["planted"][name] = [asdict(one) | {"precision": one.precision, "recall": one.recall} for one in errors]
    return told


def _measured_lines(facts: dict[str, Any]) -> list[str]:
    import math

    from retrieval_bench.report.lines import aligned

    def over(values: list[float]) -> str:
        held = [one for one in values if not math.isnan(one)]
        if not held:
            return "n/a"
        return f"{sum(held) / len(held):.1%} ({min(held):.1%} to {max(held):.1%})"

    heads = ["hidden images", "first right", "accepted", "of these right", "new, estimated", "presses saved"]
    table = [heads]
    for name, found in facts["trials"].items():
        cells = [name]
        for key in ("forced", "accepted", "right", "new_share", "saved"):
            cells.append(over([one[key] for one in found]))
        table.append(cells)
    one = next(iter(facts["trials"].values()))[0]
    count = len(next(iter(facts["trials"].values())))
    lines = [
        (
            f"{facts['dataset']}, by {facts['method']}: {facts['images']:,} images, {one['known']:,} labels known "
            f"({facts['known']} a product), {one['hidden']:,} hidden; target {facts['target']:.0%}; mean of {count} "
            "drawings (least to most)"
        ),
        *aligned(table),
        "",
    ]
    heads = ["planted errors among", "labels", "planted", "precision", "recall"]
    table = [heads]
    for name, errors in facts["planted"].items():
        first = errors[0]
        cells = [name, f"{first['labels']:,}", f"{first['planted']:,}"]
        table.append([*cells, over([e["precision"] for e in errors]), over([e["recall"] for e in errors])])
    return [*lines, *aligned(table)]
