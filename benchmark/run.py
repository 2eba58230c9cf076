"""`run`: methods on a dataset, from their names to a record and a table; or only what would run."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import GATE_FAILED, OK, SOME_FAILED, app, command, say
from benchmark.early_worker import taken
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    Decode,
    Device,
    Isolate,
    LearnFrom,
    MaxPixels,
    Plugins,
    Relevance,
    Unknown,
    checked_weights,
    decoding,
    parse_backends,
    parse_classifiers,
    parse_concurrency,
    parse_cutoffs,
    parse_methods,
    parse_sides,
    renamed,
    usable_threads,
)
from benchmark.shown import Format, formatted, one_line
from retrieval_bench.core import SEVERITIES, BenchError, printable

if TYPE_CHECKING:
    from retrieval_bench.experiment.isolation import IsolatedExecutor
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.records.schema import Row
    from retrieval_bench.registry import Spec


@command(app, "run")
def run_command(
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="a,b[:key=value...][@cleaning...]",
            help="Methods with their options, comma-separated; sift@trim cleans images first. Default: one of each "
            "family and the controls (sift, hog, phash, color, efficientnet_lite0, convnet, random, oracle). Any "
            "torchvision network works. embeddings:FILE and ranking:FILE judge what another program computed.",
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(metavar="NAME[:key=value...]", help="products (embedded), folder, manifest, grocery."),
    ] = "products",
    query: Annotated[
        str | None,
        typer.Option(
            "--query",
            metavar="image|text|image+text,...",
            help="What a query is; several ask each method with all that it can read. Default: what it reads.",
        ),
    ] = None,
    gallery: Annotated[
        str | None,
        typer.Option("--gallery", metavar="image|text|image+text,...", help="What an item of the gallery is."),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    classifiers: Annotated[
        str | None,
        typer.Option(
            metavar="svm,knn,...",
            help="Train these classifiers on the features of every method: knn, svm, logistic, tree, mlp.",
        ),
    ] = None,
    heads: Annotated[str | None, typer.Option(hidden=True, help="Former name of --classifiers.")] = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="1,5,10", help="Cutoffs k of the metrics. Default 1,5,10.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of vocabularies, samples and random weights.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the record. Default results/<dataset>/.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="auto|pretrained|random|DIR",
            help="Weights of networks. auto: a file in RETRIEVAL_BENCH_WEIGHTS or torch's cache, else a download, else "
            "random weights, marked [untrained]. pretrained: like auto, but fail instead of random weights. random: "
            "random weights. DIR: like auto, but look in this folder first, for a checkpoint called like the network; "
            "or the folder of one network by timm.",
        ),
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Use at most N images of each split, evenly over labels and in proportion over attributes.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What searches, for all methods; default exact. See `list backends`."),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="A row of each method for each of these, e.g. exact,faiss:hnsw,faiss:ivf:probes=8, and for --backend "
            "where that is given; columns say what an approximate one costs beside exact search.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|processes|ray://HOST:PORT|ray://local",
            help="Who describes images and searches exactly, with the same result: threads of this process; several "
            "processes, for many images on many cores; or workers of a Ray cluster. Behind all but local, "
            "?workers=N&threads=N.",
        ),
    ] = "local",
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Stop if more than this share of the images is unusable.")
    ] = 0.01,
    max_pixels: MaxPixels = None,
    decode: Annotated[
        Decode,
        typer.Option(
            help="reduced: decode large JPEG photos at 1/2, 1/4 or 1/8 of their size, where every method of the run "
            "shrinks them by more than that."
        ),
    ] = Decode.full,
    perturb: Annotated[
        str | None,
        typer.Option(
            metavar="rotate,blur,...|all",
            help="Also evaluate with perturbed queries: rotate, crop, jpeg, blur, noise, brightness, occlude, flip, "
            "background; of texts: typos, drop-words, synonyms, spanish, capitals. The gallery and the fitted methods "
            "stay the same.",
        ),
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option(
            metavar="1,3,5",
            help="Strengths of the perturbations of --perturb, from 1 (slight) to 5 (severe). Default 1,2,3,4,5.",
        ),
    ] = None,
    relevance: Annotated[
        Relevance,
        typer.Option(
            help="What makes a gallery image right: the query's label, or its category, which then takes the place of "
            "labels everywhere. graded: the label, and beside it graded_ndcg, where the category alone counts half."
        ),
    ] = Relevance.label,
    learn_from: Annotated[
        LearnFrom,
        typer.Option(
            "--learn-from",
            help="The split that methods and classifiers learn from. gallery: for a catalogue without train images; "
            "rows are marked [gallery].",
        ),
    ] = LearnFrom.train,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="1,2,4",
            help="Also time so many queries at once: p50, p95, p99 and throughput, as a search service sees them.",
        ),
    ] = None,
    thresholds: Annotated[
        bool,
        typer.Option(
            "--thresholds",
            help="Also judge search by a threshold: all items near enough are the answer. The distance is chosen on "
            "train; precision, recall and F1 are of the queries.",
        ),
    ] = False,
    isolate: Annotated[
        Isolate,
        typer.Option(
            help="on: methods run in a process of their own, so that one that crashes, hangs or eats all memory ends "
            "as a failed row. off: all in this process, for debuggers."
        ),
    ] = Isolate.on,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="A method that takes longer is ended: a failed row. Default: an hour, and a second more for each "
            "image that it describes.",
        ),
    ] = None,
    max_memory: Annotated[
        float | None,
        typer.Option(
            "--max-memory",
            min=0.1,
            metavar="GIB",
            help="A method whose process holds more memory is ended: a failed row. Default: 90 % of what there is.",
        ),
    ] = None,
    unknown: Unknown = False,
    recompute: Annotated[
        bool,
        typer.Option("--recompute", help="Compute all features again and store none; compiled kernels are kept."),
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Read and write no cache: also compile the kernels and draw the dataset products again."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the record in DIR instead of moving it to DIR/earlier.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the interrupted run of the same settings in DIR; its finished rows are kept."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and methods and show what would run, without running it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the record on stdout, as JSON.")] = False,
) -> int:
    """Run methods on a dataset: accuracy, recall, F1, latency and cost of each, on the same splits."""
    from retrieval_bench.system.cache import FeatureCache, cache_root, set_aside

    with (
        set_aside() if no_cache else contextlib.nullcontext(),
        _executor(isolate, timeout, max_memory, dry_run) as executor,
    ):
        from benchmark.display import Display
        from retrieval_bench.distributed.engine import check_address
        from retrieval_bench.experiment import prepare, runner
        from retrieval_bench.experiment.device_choice import resolve_device
        from retrieval_bench.images.perturbations import parse_severities
        from retrieval_bench.methods.parse import read_of, with_backends, with_sides
        from retrieval_bench.plugins.loading import plugins
        from retrieval_bench.registry import DATASETS, parse
        from retrieval_bench.texts.perturbations import entry_of, parse_perturbations

        named = {file.absolute() for file in plugin or ()}  # of which the option has told already
        for one in plugins():
            if one.reason and one.file not in named:
                typer.echo(f"{one.failure}; it is left out", err=True)
        if severity is not None and perturb is None:
            raise BenchError(
                f"--severity {severity!r} is of --perturb; name what changes the queries, e.g. --perturb blur"
            )
        classifiers = renamed("--classifiers", classifiers, "--heads", heads, None)
        given = parse_methods(
            ",".join(runner.DEFAULT_METHODS) if methods is None else methods, texts=True, backends=True
        )
        sided = with_sides(given, parse_sides("--query", query), parse_sides("--gallery", gallery))
        of_run, others = _searches(backend, backends)
        chosen = runner.unique(with_backends(sided, others, of_run))
        searching = [method for method in chosen if method.family != "control"]
        perturbed = () if perturb is None else parse_perturbations(perturb, read_of(searching))
        if severity is not None and not any(entry_of(name).facts["graded"] for name in perturbed):
            raise BenchError(
                f"--severity {severity!r}: {' and '.join(perturbed)} {'has' if len(perturbed) == 1 else 'have'} no "
                "severity; leave it out"
            )
        plan = prepare.Plan(
            methods=chosen,
            dataset=parse(DATASETS, dataset),
            root=data_root,
            classifiers=() if classifiers is None else parse_classifiers(classifiers),
            k=None if k is None else parse_cutoffs(k),
            seed=seed,
            weights=checked_weights(weights, any(method.deep for method in chosen)),
            # torch, which knows the GPUs, belongs to the worker, as a broken one does.
            device=resolve_device(device.value, chosen, of_run) if executor is None else device.value,
            threads=usable_threads(threads),
            limit=limit,
            backend=of_run,
            max_bad=max_bad,
            decoding=decoding(max_pixels),
            decode=decode.value,
            perturb=perturbed,
            severities=SEVERITIES if severity is None else parse_severities(severity),
            relevance=relevance.value,
            learn_from=learn_from.value,
            concurrency=() if concurrency is None else parse_concurrency(concurrency),
            thresholds=thresholds,
            engine=check_address(engine),
            cache=FeatureCache(None if no_cache or recompute else cache_root()),
        )
        folder = out or Path("results") / plan.dataset.entry.name
        if folder.exists() and not folder.is_dir():
            raise BenchError(f"--out {folder}: a file of this name exists; name a folder")
        if dry_run:
            return _dry_run(plan, folder, resume, as_json)

        with interruptible(), Display() as display:
            record = runner.run(
                plan,
                folder,
                overwrite=overwrite,
                resume=resume,
                progress=stoppable(display),
                on_row=stoppable(lambda row: display.say(one_line(row))),
                executor=executor,
            )
            display.say(f"record: {printable(folder / 'run.json')}")
        say(formatted(record, Format.json if as_json else Format.table, unknown), nl=False)
        if record.violations:
            typer.echo("run failed; the record is saved, but do not trust its numbers:", err=True)
            for sentence in record.violations:
                typer.echo(f"  {sentence}", err=True)
            return GATE_FAILED
        return SOME_FAILED if any(row.status == "failed" or _failed_classifiers(row) for row in record.rows) else OK


def _searches(backend: str | None, backends: str | None) -> tuple[str, tuple[Spec, ...]]:
    """The backend of the run, which is exact and has no options, and what searches for each method."""
    from retrieval_bench.registry import BACKENDS, parse

    one = parse(BACKENDS, backend or "exact")
    of_run = one.entry.name if one.entry.facts.get("exact") and not one.options else "exact"
    if backends is None:
        return of_run, (one,)
    if str(one) != of_run:
        raise BenchError(f"--backend {one} and --backends {backends}: name all of them in --backends")
    compared = parse_backends(backends)
    if backend is not None and one not in compared:  # what is named stands beside the others, and first
        compared = (one, *compared)
    return of_run, compared


@contextlib.contextmanager
def _executor(
    isolate: Isolate, timeout: float | None, max_memory: float | None, dry_run: bool
) -> Iterator[IsolatedExecutor | None]:
    """Who carries out the run, if not this process; ended with the command, however that ends."""
    if isolate is Isolate.off and (timeout is not None or max_memory is not None):
        raise BenchError("--timeout and --max-memory end a process of its own; leave --isolate off out")
    if isolate is Isolate.off or dry_run:
        yield None
        return
    from retrieval_bench.experiment.isolation import IsolatedExecutor

    most_bytes = None if max_memory is None else int(max_memory * 2**30)
    with IsolatedExecutor(timeout, most_bytes, taken()) as executor:
        yield executor


def _failed_classifiers(row: Row) -> bool:
    return any(facts.error is not None for facts in row.classifiers.values())


def _dry_run(plan: Plan, folder: Path, resume: bool, as_json: bool) -> int:
    from benchmark.display import Display
    from retrieval_bench.experiment import runner
    from retrieval_bench.experiment.in_process import InProcessExecutor
    from retrieval_bench.experiment.resume import finished_before
    from retrieval_bench.records.files import refuse_no_files

    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise BenchError(f"--out {printable(folder)}: cannot be written; name another")
    refuse_no_files(folder)
    finished: list[str] = []
    with Display() as display:
        if resume:  # the executor prepares the data, as it does for the run that went before
            with contextlib.closing(InProcessExecutor()) as executor:
                opened = executor.open(plan, display)
                trial = executor.trial
                runner.check_on(executor.plan, trial)
                before = finished_before(folder, opened, plan.methods)
            finished = [] if before is None else list(before[1])
        else:
            trial = runner.check(plan, display)
    dataset = trial.dataset
    facts = {
        "dataset": str(plan.dataset),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "labels": dataset.label_count,
        "fingerprint": trial.fingerprint,
        "skipped": len(trial.skipped),
        "methods": [name for method in plan.methods if (name := str(method)) not in finished],
        **({"finished": finished} if resume else {}),
        "classifiers": plan.classifiers or "none",
        "k": trial.k,
        "seed": plan.seed,
        "weights": plan.weights,
        "device": plan.device,
        "threads": plan.threads,
        "backend": plan.backend,
        "engine": plan.engine,
        "relevance": plan.relevance,
        "learn from": plan.learn_from,
        "decode": plan.decode,
        "cache": "off" if plan.cache.root is None else printable(plan.cache.root),
        "out": printable(folder),
    }
    if as_json:
        say(json.dumps(facts, indent=1))
    else:
        say("Would run (nothing was run):")
        for name, value in facts.items():
            shown = (", ".join(map(str, value)) or "none") if isinstance(value, (list, tuple)) else value
            if isinstance(value, dict):
                shown = ", ".join(f"{key} {count:,}" for key, count in value.items())
            say(f"  {name:12} {shown}")
    return OK
