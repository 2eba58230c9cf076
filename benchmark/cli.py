"""`python -m benchmark` and `retrieval-bench`. Heavy imports wait until a command needs them."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retrieval_bench import __version__
from retrieval_bench.core import BenchError, NotComparable, printable
from retrieval_bench.diff import LEARNED_TOLERANCE, TOLERANCE

if TYPE_CHECKING:
    from retrieval_bench.core import Dataset
    from retrieval_bench.method import Method
    from retrieval_bench.registry import Entry, Registry
    from retrieval_bench.results import Record, Row
    from retrieval_bench.trial import Plan

FINE, GATE_FAILED, USER_MISTAKE, NOT_COMPARABLE, SOME_FAILED, OUR_BUG, INTERRUPTED = 0, 1, 2, 3, 4, 70, 130

app = typer.Typer(
    name="retrieval-bench",
    help="Which image-retrieval method, at what cost, on my images? Runs classical, hash and deep methods on the same "
    "splits and shows accuracy, recall, F1 and latency side by side.",
    epilog="Exit codes: 0 fine; 1 a gate failed; 2 your mistake; 3 not comparable; 4 some methods failed, the others "
    "are saved; 70 our bug; 130 interrupted, what was finished is kept.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data = typer.Typer(help="Get datasets ready and look at them.", no_args_is_help=True)
app.add_typer(data, name="data")


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Format(StrEnum):
    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


class DiffFormat(StrEnum):
    text = "text"
    md = "md"
    json = "json"
    github = "github"


class Kind(StrEnum):
    methods = "methods"
    joins = "joins"
    steps = "steps"
    heads = "heads"
    datasets = "datasets"
    metrics = "metrics"
    backends = "backends"
    perturbations = "perturbations"


def command(group: typer.Typer, name: str) -> Callable[[Callable[..., int | None]], Callable[..., None]]:
    """Register a command; its return value is the exit code, and a user's mistake is one sentence on stderr."""

    def register(function: Callable[..., int | None]) -> Callable[..., None]:
        @group.command(name)
        @functools.wraps(function)
        def guarded(*args: Any, **options: Any) -> None:
            try:
                code = function(*args, **options) or FINE
                sys.stdout.flush()
            except NotComparable as error:
                typer.echo(str(error), err=True)
                code = NOT_COMPARABLE
            except BenchError as error:
                typer.echo(f"error: {error}", err=True)
                code = USER_MISTAKE
            except KeyboardInterrupt:
                typer.echo("interrupted; what was finished is kept", err=True)
                code = INTERRUPTED
            except Exception:
                traceback.print_exc()
                code = OUR_BUG
            raise typer.Exit(code)

        return guarded

    return register


DataRoot = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="PATH", help="Where the dataset lies: a folder, or a manifest file."),
]


@command(app, "run")
def run_command(
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="a,b[:key=value...]",
            help="Methods, comma-separated, with options. Default: one of each family and the controls "
            "(sift, hog, phash, color, resnet18, convnet, random, oracle). Any torchvision network works.",
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(metavar="NAME[:key=value...]", help="products (embedded), folder, manifest, grocery."),
    ] = "products",
    data_root: DataRoot = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="svm,knn,...",
            help="Classifiers that learn from train on every method's features: knn, svm, logistic, tree, mlp.",
        ),
    ] = None,
    k: Annotated[
        str | None, typer.Option("--k", metavar="1,5,10", help="Cutoffs of the metrics. Default 1,5,10.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Fixes vocabularies, samples and random weights.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the record goes. Default results/<dataset>/.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="auto|pretrained|random|DIR",
            help="Networks' weights. auto: a file in RETRIEVAL_BENCH_WEIGHTS or torch's cache, else a download, else "
            "random and marked [untrained]. pretrained: fail instead of random. DIR: look there first.",
        ),
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores this process may use.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most N images in each split, evenly over labels.")
    ] = None,
    backend: Annotated[str, typer.Option(help="What finds the nearest; see `list backends`.")] = "exact",
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Stop when more than this share of the images is unusable.")
    ] = 0.01,
    perturb: Annotated[
        str | None,
        typer.Option(
            metavar="rotate,blur,...|all",
            help="Ask again with perturbed queries: rotate, crop, jpeg, blur, noise, brightness, occlude, flip, "
            "background. Gallery and what was learned stay as they are.",
        ),
    ] = None,
    severity: Annotated[
        str, typer.Option(metavar="1,3,5", help="How strong perturbations are, from 1 (slight) to 5 (severe).")
    ] = "1,2,3,4,5",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute every feature anew and store none.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier record in DIR instead of keeping it in DIR/earlier.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check data and methods, say what would run, run nothing.")
    ] = (False),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record alone on stdout.")] = False,
) -> int:
    """Run methods on a dataset: accuracy, recall, F1, latency and cost of each, on the same splits."""
    from benchmark.display import Display
    from retrieval_bench import runner, trial
    from retrieval_bench.cache import FeatureCache, cache_root
    from retrieval_bench.perturb import parse_perturbations, parse_severities
    from retrieval_bench.registry import BACKENDS, DATASETS, parse

    chosen = runner.unique(_methods(",".join(runner.DEFAULT_METHODS) if methods is None else methods))
    plan = trial.Plan(
        methods=chosen,
        dataset=parse(DATASETS, dataset),
        root=data_root,
        heads=() if heads is None else _heads(heads),
        k=None if k is None else _cutoffs(k),
        seed=seed,
        weights=_weights(weights, chosen),
        device=runner.resolve_device(device.value, chosen, BACKENDS[backend].name),
        threads=_threads(threads),
        limit=limit,
        backend=BACKENDS[backend].name,
        max_bad=max_bad,
        perturb=() if perturb is None else parse_perturbations(perturb),
        severities=parse_severities(severity),
        cache=FeatureCache(None if no_cache else cache_root()),
    )
    folder = out or Path("results") / plan.dataset.entry.name
    if folder.exists() and not folder.is_dir():
        raise BenchError(f"--out {folder}: a file of this name exists; name a folder")
    if dry_run:
        return _dry_run(plan, folder, as_json)

    with _interruptible(), Display() as display:
        record = runner.run(
            plan,
            folder,
            overwrite=overwrite,
            progress=_stoppable(display),
            on_row=_stoppable(lambda row: display.say(_one_line(row))),
        )
        display.say(f"record: {printable(folder / 'run.json')}")
    say(_formatted(record, Format.json if as_json else Format.table), nl=False)
    if record.violations:
        typer.echo("run failed; the record is saved, and its numbers are not to be trusted:", err=True)
        for sentence in record.violations:
            typer.echo(f"  {sentence}", err=True)
        return GATE_FAILED
    return SOME_FAILED if any(row.status == "failed" or _failed_heads(row) for row in record.rows) else FINE


def _failed_heads(row: Row) -> bool:
    return any(head.error is not None for head in row.heads.values())


def say(text: str, nl: bool = True) -> None:
    """Print on stdout. A reader that went away (`| head`) has what it wanted; a full disk is one sentence."""
    try:
        typer.echo(text, nl=nl)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise BenchError(f"standard output cannot be written ({error.strerror})") from None


def _methods(text: str) -> tuple[Method, ...]:
    from retrieval_bench.method import parse_method

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchError("--methods names no method; write e.g. --methods sift,resnet50")
    return tuple(parse_method(name) for name in names)


def _heads(text: str) -> tuple[str, ...]:
    from retrieval_bench.registry import HEADS

    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise BenchError(f"--heads {text!r} names no head; write e.g. --heads svm,knn")
    return tuple(HEADS[name].name for name in names)


def _cutoffs(text: str) -> tuple[int, ...]:
    try:
        values = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise BenchError(f"--k {text!r}: write whole numbers with commas, e.g. --k 1,5,10") from None
    if values[0] < 1:
        raise BenchError(f"--k {text!r}: every cutoff must be at least 1")
    return tuple(values)


def _weights(text: str, methods: tuple[Method, ...]) -> str:
    from retrieval_bench.weights import weights_directories

    words = ("auto", "pretrained", "random")
    if text not in words and not Path(text).is_dir():
        raise BenchError(f"--weights {text!r} is no folder and not one of {', '.join(words)}")
    if any(method.deep for method in methods):
        weights_directories(text)
    return text


def _threads(wanted: int | None) -> int:
    from retrieval_bench.timing import usable_cores

    cores = usable_cores()
    if wanted is not None and wanted > cores:
        typer.echo(f"--threads {wanted}: this process may use {cores} cores; going on with {cores}", err=True)
    return min(wanted or cores, cores)


_stopping = threading.Event()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A polite kill keeps what was finished, as Ctrl-C does."""
    before = {number: signal.signal(number, _stop_once) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the run, once: what comes after the first signal must not break the saving that it starts.

    Python prints and drops an exception that is raised in a destructor. There only the event is set, and the run ends
    at its next step.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    _stopping.set()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _stoppable(shown: Callable[..., None]) -> Callable[..., None]:
    """The same callback, which the run calls often, and which ends the run when a signal has come."""

    def call(*args: Any) -> None:
        if _stopping.is_set():
            raise KeyboardInterrupt
        shown(*args)

    return call


def _dry_run(plan: Plan, folder: Path, as_json: bool) -> int:
    from benchmark.display import Display
    from retrieval_bench import runner

    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise BenchError(f"--out {printable(folder)}: cannot be written; name another")
    with Display() as display:
        trial = runner.check(plan, display)
    dataset = trial.dataset
    facts = {
        "dataset": str(plan.dataset),
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "labels": len(dataset.label_names),
        "fingerprint": trial.fingerprint,
        "skipped": len(trial.skipped),
        "methods": [str(method) for method in plan.methods],
        "heads": plan.heads or "none",
        "k": trial.k,
        "seed": plan.seed,
        "weights": plan.weights,
        "device": plan.device,
        "threads": plan.threads,
        "backend": plan.backend,
        "cache": "off" if plan.cache.root is None else printable(plan.cache.root),
        "out": printable(folder),
    }
    if as_json:
        say(json.dumps(facts, indent=1))
    else:
        say("Would run (nothing was run):")
        for name, value in facts.items():
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            if isinstance(value, dict):
                shown = ", ".join(f"{key} {count:,}" for key, count in value.items())
            say(f"  {name:12} {shown}")
    return FINE


def _one_line(row: Row) -> str:
    if row.status == "failed":
        return f"{row.method}: failed"
    latency = row.times.get("end_to_end_p50")
    cost = "" if latency is None or latency.value is None else f", {latency.value:.1f} ms a query"
    return f"{row.method}: accuracy {row.scores['accuracy']:.3f}{cost}"


def _formatted(record: Record, form: Format) -> str:
    from retrieval_bench.report import table

    if form is Format.json:
        return record.to_json()
    if form is Format.md:
        return table.markdown(record)
    if form is Format.csv:
        return table.tidy_csv(record)
    if sys.stdout.isatty():
        return table.terminal(record, shutil.get_terminal_size().columns, color="NO_COLOR" not in os.environ)
    return table.terminal(record)


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
    from retrieval_bench.registry import BACKENDS, DATASETS, EXTRACTORS, HEADS, JOINS, METRICS, PERTURBATIONS, STEPS

    registries: dict[Kind, Registry] = {
        Kind.methods: EXTRACTORS,
        Kind.joins: JOINS,
        Kind.steps: STEPS,
        Kind.heads: HEADS,
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
    from retrieval_bench.recording import ceilings_of
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.timing import usable_cores
    from retrieval_bench.trial import Plan, prepare

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


@command(app, "show")
def show_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    form: Annotated[Format, typer.Option("--format", help="csv has every figure.")] = Format.table,
    curves: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw accuracy over severity, of a run with --perturb.")
    ] = None,
) -> None:
    """Show the table of a record again, from its file."""
    from retrieval_bench.report import robustness
    from retrieval_bench.results import load

    shown = load(record)
    if curves is not None:
        robustness.draw(shown, curves)
    say(_formatted(shown, form), nl=False)


class ReportFormat(StrEnum):
    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"
    json = "json"


@command(app, "report")
def report_command(
    records: Annotated[list[Path], typer.Argument(metavar="RECORD...", help="Each a run.json, or its folder.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where it goes. Default: report.html; the other forms go to stdout."),
    ] = None,
    form: Annotated[
        ReportFormat, typer.Option("--format", help="json has every number that the page draws.")
    ] = ReportFormat.html,
    data_root: DataRoot = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Show no image of the dataset, and do not look for them.")
    ] = False,
) -> None:
    """Make a page of records that opens anywhere: tables, plots, failures with images; or Markdown, LaTeX, ..."""
    from retrieval_bench.report import formats
    from retrieval_bench.report.evidence import gather
    from retrieval_bench.results import write_whole

    if form is ReportFormat.html and out is None:
        out = Path("report.html")
    if out is not None and out.is_dir():
        raise BenchError(f"--out {printable(out)}: is a folder; name a file in it, such as report.html")
    drawn = form in (ReportFormat.html, ReportFormat.json)
    looked_for = drawn and not no_images
    found = [gather(path, data_root, looked_for) for path in dict.fromkeys(records)]
    if form is ReportFormat.html:
        from retrieval_bench.report.page import render

        text = render(found)
    else:
        from retrieval_bench.report.latex import latex

        made = {
            ReportFormat.md: formats.markdown,
            ReportFormat.csv: formats.tidy_csv,
            ReportFormat.latex: latex,
            ReportFormat.json: formats.as_json,
        }
        text = made[form](found)
    if out is None:
        say(text, nl=False)
        return
    write_whole(out, text.encode())
    for evidence in found:
        for missing in (evidence.no_arrays if drawn else "", evidence.no_dataset if looked_for else ""):
            if missing:
                typer.echo(f"{evidence.name}: {missing}", err=True)
    typer.echo(f"report: {printable(out)} ({len(text.encode()) / 1024:,.0f} KiB)", err=True)


@command(app, "diff")
def diff_command(
    before: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    after: Annotated[Path, typer.Argument(help="The record to hold against it.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest change of a quality number, up or down, that is still the same.")
    ] = TOLERANCE,
    learned_tolerance: Annotated[
        float, typer.Option(min=0.0, help="The same for methods that learn from train, which vary more.")
    ] = LEARNED_TOLERANCE,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail",
            metavar="NAME:LIMIT[%]",
            help="Fail where NAME gets worse by more than LIMIT, in its unit or in percent: map@r:0.01, "
            "search_ms_p50:20%. May be repeated; the tolerances are then not judged.",
        ),
    ] = None,
    form: Annotated[
        DiffFormat,
        typer.Option("--format", help="md: for a pull request. github: lists for github-action-benchmark."),
    ] = DiffFormat.text,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON; the same as --format json.")] = False,
) -> int:
    """Compare two records: exit 0 same, 1 moved or missing, 3 not comparable."""
    from retrieval_bench.diff import diff
    from retrieval_bench.gates import parse_gate
    from retrieval_bench.recomputed import values_of
    from retrieval_bench.report import verdict as shown
    from retrieval_bench.results import load

    gates = [parse_gate(text) for text in fail or ()]
    old, new = load(before), load(after)
    values = (values_of(before, old), values_of(after, new))
    try:
        verdict = diff(old, new, tolerance, learned_tolerance, gates=gates, values=values)
    except NotComparable as refusal:  # whoever reads the output and not the exit code is told as well
        if as_json or form is DiffFormat.json:
            say(json.dumps({"passed": False, "not_comparable": str(refusal)}, indent=1))
        elif form is DiffFormat.md:
            say(shown.refused(str(refusal)), nl=False)
        raise
    if as_json or form is DiffFormat.json:
        say(json.dumps(shown.as_data(verdict), indent=1))
    elif form is DiffFormat.md:
        say(shown.markdown(verdict), nl=False)
    elif form is DiffFormat.github:
        say(json.dumps(shown.github(new), indent=1))
    else:
        say("\n".join(shown.lines(verdict)))
    if not verdict.passed:
        return GATE_FAILED
    return NOT_COMPARABLE if verdict.unjudged else FINE


@command(app, "repeat")
def repeat_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the new record here; else it is dropped.")
    ] = None,
    data_root: DataRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON.")] = False,
) -> int:
    """Run a record again from what it says of itself: exit 0 identical or within tolerance, 1 different."""
    import tempfile
    from dataclasses import asdict

    from benchmark.display import Display
    from retrieval_bench import repeat, runner
    from retrieval_bench.results import RANKINGS_FILE, load, load_rankings, run_file

    before = load(record)
    has_rankings = run_file(record).with_name(RANKINGS_FILE).exists()
    plan = repeat.plan_of(before, data_root)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch) / "again"
        if out is not None and out.resolve() == run_file(record).parent.resolve():
            raise BenchError(f"--out {printable(out)}: that is the record itself; name another folder")
        with _interruptible(), Display() as display:
            after = runner.run(
                plan,
                folder,
                progress=_stoppable(display),
                on_row=_stoppable(lambda row: display.say(_one_line(row))),
            )
        old = load_rankings(record, before) if has_rankings else None
        again = repeat.compared(before, after, old, load_rankings(folder, after))
    if as_json:
        say(json.dumps(asdict(again), indent=1))
    else:
        say(again.verdict)
        for sentence in again.differences:
            say(f"  {sentence}")
        if again.reasons:
            say("What is not as it was:")
            for sentence in again.reasons:
                say(f"  {sentence}")
    return GATE_FAILED if again.verdict == "different" else FINE


@command(app, "race")
def race_command(
    base: Annotated[str, typer.Argument(help="A command in quotes, or a virtual environment with this installed.")],
    head: Annotated[str, typer.Argument(help="What to hold against it: the same.")],
    rounds: Annotated[int, typer.Option(min=3, help="How often each is run, by turns, after one uncounted.")] = 10,
    run_options: Annotated[
        str, typer.Option("--run", metavar="'--methods a,b ...'", help="For environments: what `run` is given.")
    ] = "",
    fail: Annotated[
        list[str] | None,
        typer.Option(
            "--fail", metavar="NAME:LIMIT%", help="Fail where HEAD is surely worse by more, e.g. wall_s:5%. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The ratios as JSON.")] = False,
) -> int:
    """Time two commands or two installed versions by turns: paired ratios, HEAD over BASE, with 95 % intervals."""
    import shlex
    from dataclasses import asdict

    from benchmark.display import Display
    from retrieval_bench import race
    from retrieval_bench.gates import parse_gate

    gates = [parse_gate(text) for text in fail or ()]
    for gate in gates:
        if not gate.relative:
            raise BenchError(f"--fail {gate}: a race knows ratios; write the limit in percent, e.g. {gate.name}:5%")
    first, second = (race.argv_of(one, shlex.split(run_options)) for one in (base, head))
    with Display() as display:
        ratios = race.race(first, second, rounds, display)
    names = [ratio.name for ratio in ratios]
    for gate in gates:
        if gate.name not in names:
            raise BenchError(f"--fail {gate}: the race has no figure {gate.name}; it has {', '.join(names)}")
    slower = [(ratio, gate) for gate in gates for ratio in ratios if ratio.name == gate.name and ratio.worse_than(gate)]
    if as_json:
        say(json.dumps([asdict(ratio) for ratio in ratios], indent=1))
    else:
        say(f"HEAD over BASE, {rounds} rounds by turns, geometric mean and 95 % interval:")
        for ratio in ratios:
            say(
                f"  {ratio.name:40} {ratio.base:10.4g} -> {ratio.head:10.4g} {ratio.unit:9} "
                f"x {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
            )
    for ratio, gate in slower:
        typer.echo(f"{ratio.name}: x {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), --fail {gate}", err=True)
    return GATE_FAILED if slower else FINE


@command(app, "doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """What the search engine found on this machine: processor features, the kernel chosen, threads, its cache."""
    from retrieval_bench.search import doctor

    say(json.dumps(doctor.report(), indent=1) if as_json else "\n".join(doctor.lines()))


@command(data, "prepare")
def prepare_command(
    name: Annotated[str, typer.Argument(metavar="NAME[:key=value...]", help="A dataset; see `list datasets`.")],
    data_root: DataRoot = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a contact sheet: a glance at what is in it.")
    ] = None,
) -> None:
    """Load (or render) a dataset, decode every image once, and say what is in it."""
    from benchmark.display import Display
    from retrieval_bench.datasets.sheet import contact_sheet
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.screening import screen
    from retrieval_bench.timing import usable_cores

    spec = parse(DATASETS, name)
    with Display() as display:
        dataset: Dataset = spec.build(data_root)
        dataset, skipped = screen(
            dataset, threads=usable_cores(), progress=lambda done, total: display("checking images", done, total)
        )
        say(f"{spec}: {len(dataset.label_names)} labels, {len(dataset.category_names)} categories")
        for part, split in dataset.splits.items():
            known = f"; known of each: {', '.join(split.attributes)}" if split.attributes else ""
            say(f"  {part:8} {len(split):7,} images{known}")
        say(f"  fingerprint {dataset.fingerprint}")
        for notice in dataset.notices:
            say(f"  note: {notice}")
        for reason, count in Counter(bad.reason for bad in skipped).most_common():
            say(f"  unusable: {count} {reason}, e.g. {next(bad.id for bad in skipped if bad.reason == reason)}")
        if sheet is not None:
            contact_sheet(dataset, sheet)
            say(f"  contact sheet: {sheet}")


import benchmark.audit  # noqa: E402  registers its command, with the options above
import benchmark.dedupe  # noqa: E402
import benchmark.explain  # noqa: E402
import benchmark.export  # noqa: E402
import benchmark.slices  # noqa: E402
import benchmark.train  # noqa: E402, F401


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    import retrieval_bench.datasets
    import retrieval_bench.extractors
    import retrieval_bench.heads
    import retrieval_bench.metrics
    import retrieval_bench.perturb
    import retrieval_bench.pipeline
    import retrieval_bench.search  # noqa: F401  importing the packages fills the registries that names are looked up in


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another one
    app(prog_name="retrieval-bench" if Path(sys.argv[0]).name == "retrieval-bench" else "python -m benchmark")


if __name__ == "__main__":
    main()
