"""The record of a run: its schema, its birth certificate, and how it is saved and loaded.

A record is a folder: `run.json` (this schema) and `rankings.npz` (which gallery rows each query found, from which every
metric can be recomputed). Tables are derived from it and never edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from retrieval_bench import __version__
from retrieval_bench.core import BenchError, printable
from retrieval_bench.records import validation

log = logging.getLogger("retrieval_bench")

SCHEMA_VERSION: Literal[1] = 1
RUN_FILE = "run.json"
RANKINGS_FILE = "rankings.npz"
LOCK_FILE = ".lock"
TABLE_FILES = ("table.md", "table.csv")


Fitted = Literal["nothing to learn", "learned", "from cache"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class TimeFigure(Model):
    """value None: n samples cannot carry this percentile."""

    value: float | None
    unit: str
    n: int | None = None


class Interval(Model):
    """Where the mean over all such queries is expected to lie; see statistics.resampling. level: how sure, 0.95."""

    low: float
    high: float


class Pair(Model):
    """Mean of `first` minus mean of `second` over the same queries.

    low, high: interval by the paired cluster bootstrap. p: of the sign-flip test of no difference; p_holm: the same
    after Holm's correction over all pairs of the table.
    """

    first: str
    second: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float


class Comparison(Model):
    """All pairs of methods by one metric. groups: letters of each method; those that share one cannot be told apart."""

    pairs: tuple[Pair, ...]
    groups: dict[str, str]


class Statistics(Model):
    """How intervals and comparisons were had. clusters: how many products the queries show, which are what is drawn."""

    resamples: int
    level: float
    seed: int
    clusters: int


class Features(Model):
    """What the method makes of an image and what that occupies."""

    distance: str
    dim: int
    dtype: str
    bytes_per_image: int
    index_bytes: int
    zero_rows: int
    computed: int
    from_cache: int
    fit: Fitted
    learned_from: str | None


class Ties(Model):
    """What the order of equal distances can make of a metric: its worst, mean and best value over all orders."""

    worst: float
    expected: float
    best: float


class PartFacts(Model):
    """One part of a method that has several. weight: what it counts where similarities are added up."""

    name: str
    weight: float | None
    bytes_per_image: int
    zero_rows: int
    fit: Fitted
    weights: dict[str, Any] | None


class HeadFacts(Model):
    """A classifier learned on this method's features.

    scores: see heads.judge_head. chosen: what it settled on, on train. times: `fit`, and `predict_p50` and so on, of
    the features of one query. error: why there are none, in one sentence.
    """

    scores: dict[str, float] = {}
    times: dict[str, TimeFigure] = {}
    chosen: dict[str, Any] = {}
    error: str | None = None


class Robustness(Model):
    """What is left when the queries, and they alone, are perturbed. severity: 1 to 5."""

    perturbation: str
    severity: int = Field(ge=1, le=5)
    scores: dict[str, float]
    intervals: dict[str, Interval] = {}


class Failure(Model):
    kind: str
    sentence: str
    traceback: str | None = None


class Row(Model):
    """One method on one dataset; `method` is the name with its mark, e.g. "resnet50[untrained]".

    intervals: by metric, for those that are a mean over queries; empty where all queries show one product.
    ties: by metric, for rows in which equal distances decide anything; see ties.py.
    """

    method: str
    family: str
    status: Literal["ok", "failed"]
    scores: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    ties: dict[str, Ties] = {}
    times: dict[str, TimeFigure] = {}
    params: dict[str, Any] = {}
    weights: dict[str, Any] | None = None
    features: Features | None = None
    parts: tuple[PartFacts, ...] = ()
    heads: dict[str, HeadFacts] = {}
    robustness: tuple[Robustness, ...] = ()
    error: Failure | None = None


class Skipped(Model):
    split: str
    id: str
    reason: str
    detail: str


class ImageCounts(Model):
    train: int
    gallery: int
    query: int


class DatasetFacts(Model):
    """labels: how many are in play, in the gallery or among the queries."""

    name: str
    spec: str
    root: str | None
    fingerprint: str
    images: ImageCounts
    labels: int
    categories: int
    leave_one_out: bool
    queries_left_out: int
    skipped: tuple[Skipped, ...]
    notices: tuple[str, ...]


class Settings(Model):
    methods: tuple[str, ...]
    heads: tuple[str, ...] = ()
    k: tuple[PositiveInt, ...] = Field(min_length=1)
    seed: int
    weights: str
    device: str
    threads: int
    limit: int | None
    backend: str
    depth: int
    perturb: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()


class Environment(Model):
    version: str
    commit: str | None
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    system: str
    machine: str
    processor: str
    cores: int
    memory_gib: float
    gpu: str | None
    gpu_settings: dict[str, str] = {}
    thread_counts: dict[str, int]
    allocator: str


class MetricFacts(Model):
    """What a metric's name means; what a record of an earlier version does not say is empty."""

    about: str
    definition: str
    denominator: str = ""
    ties: str = ""
    empty: str = ""
    ceiling: str = ""
    short: str
    at_k: bool
    per_query: bool
    whole_ranking: bool
    higher_is_better: bool
    has_ceiling: bool


class Rankings(Model):
    file: str
    sha256: str


class Record(Model):
    """`ceilings`: what a perfect ranking scores on this dataset, by metric name with cutoff; votes have none.

    perturbations: what each that was asked for does, severity by severity; empty in records of earlier versions.
    controls: see guards.controls; control -> metric -> score. violations: the rules of `guards` that this run breaks,
    one sentence each; it then ends as failed.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    status: Literal["finished", "interrupted", "running", "failed"]
    created: str
    command: tuple[str, ...]
    dataset: DatasetFacts
    settings: Settings
    environment: Environment
    metrics: dict[str, MetricFacts]
    ceilings: dict[str, float]
    perturbations: dict[str, str] = {}
    statistics: Statistics | None = None
    rows: tuple[Row, ...]
    comparisons: dict[str, Comparison] = {}
    controls: dict[str, dict[str, float]] = {}
    violations: tuple[str, ...] = ()
    rankings: Rankings | None = None

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def environment(libraries: Mapping[str, str], gpu: str | None, allocator: str) -> Environment:
    """Where this run is taking place. The thread counts are read back later, when the libraries are loaded."""
    commit, dirty = _commit()
    return Environment(
        version=__version__,
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        libraries=dict(libraries),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        processor=_processor(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        gpu=gpu,
        thread_counts={},
        allocator=allocator,
    )


def _processor() -> str:
    """The processor's name in its maker's words where the system tells it, else its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
            if told:
                return told
    return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this package runs from; (None, None) for an installed wheel."""
    home = Path(__file__).resolve().parents[3]
    if not (home / ".git").exists():
        return None, None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=home, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        return git("rev-parse", "HEAD").strip(), bool(git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def write_whole(path: Path, content: bytes, option: str = "--out") -> None:
    """Write a file whole or not at all: beside it first, then in one rename. option: by which the user chose the place;
    it is in the sentence of the BenchError where the file cannot be written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise BenchError(f"{path}: cannot be written ({error.strerror}); choose another place with {option}") from None


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make sure, before any work, that a record can be written to `folder` and that no other run is writing there."""
    made = not folder.exists()
    lock = folder / LOCK_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(lock)
    except OSError as error:
        raise BenchError(f"--out {printable(folder)}: cannot be written ({error.strerror}); name another") from None
    try:
        for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES):
            if (folder / name).is_dir():
                raise BenchError(f"--out {printable(folder)}: {name} is a folder there; name another")
        yield
    finally:
        lock.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # it is not empty, as it should be
                folder.rmdir()


def _take(lock: Path) -> None:
    try:
        with lock.open("x", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        owner = lock.read_text(encoding="ascii", errors="replace")
        if owner.isdecimal() and psutil.pid_exists(int(owner)):
            raise BenchError(
                f"--out {printable(lock.parent)}: another run (process {owner}) is writing there; "
                f"wait for it, name another, or remove {LOCK_FILE} if that is no run"
            ) from None
        lock.unlink()  # its run was killed
        _take(lock)


def save(
    record: Record,
    folder: Path,
    arrays: Mapping[str, np.ndarray],
    tables: Mapping[str, str] | None = None,
    keep_earlier: bool = False,
) -> Record:
    """Write all files of a record; the record that is returned names the rankings' sha256.

    The same arrays give the same bytes. tables: file name -> text, derived from the record.
    keep_earlier: set aside what lies in `folder` first. All is serialised before anything there is touched.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    content = buffer.getvalue()
    stamp = Rankings(file=RANKINGS_FILE, sha256=hashlib.sha256(content).hexdigest())
    record = record.model_copy(update={"rankings": stamp})
    files = {RANKINGS_FILE: content, RUN_FILE: record.to_json().encode()}
    files |= {name: text.encode() for name, text in (tables or {}).items()}
    if keep_earlier:
        set_aside(folder)
    for name, whole in files.items():
        write_whole(folder / name, whole)
    return record


def set_aside(folder: Path) -> Path | None:
    """Move an earlier record in `folder` to `earlier/<its time>/`, so that no finished run is lost; where it went."""
    files = [folder / name for name in (RUN_FILE, RANKINGS_FILE, *TABLE_FILES) if (folder / name).exists()]
    if not files:
        return None
    taken = datetime.fromtimestamp(files[0].stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    home = folder / "earlier" / taken
    number = 1
    while home.exists():
        number += 1
        home = folder / "earlier" / f"{taken}-{number}"
    try:
        home.mkdir(parents=True)
        for file in files:
            os.replace(file, home / file.name)
    except OSError as error:
        raise BenchError(f"{folder}: the earlier record cannot be set aside ({error.strerror}); use --out") from None
    log.info("the earlier record of %s is kept in %s", printable(folder), printable(home))
    return home


def run_file(path: Path) -> Path:
    """A record may be named by its folder or by its run.json."""
    return path / RUN_FILE if path.is_dir() else path


def load(path: Path) -> Record:
    """Read and validate a record; BenchError says what is wrong with it and where."""
    file = run_file(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BenchError(f"{file}: no such record; name a run.json or the folder that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: cannot be read as a record ({error})") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{file}: not JSON ({error}); it was cut short or is no record") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise BenchError(
            f"{file}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "run again, or use the version of retrieval_bench that wrote it"
        )
    try:
        record = Record.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise BenchError(
            f"{file}: not a valid record: {first['msg']} at {where}; run again to get a whole one"
        ) from None
    names = [row.method for row in record.rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BenchError(f"{file}: not a valid record: two rows are called {twice!r}; run again to get a whole one")
    return record


def load_rankings(path: Path, record: Record) -> dict[str, np.ndarray]:
    """The arrays that belong to this record; BenchError when they are missing or are not the ones it names."""
    file = run_file(path).with_name(RANKINGS_FILE)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error.strerror}); the record needs it") from None
    if record.rankings is None or hashlib.sha256(content).hexdigest() != record.rankings.sha256:
        raise BenchError(f"{file}: not the rankings that {RUN_FILE} beside it names; keep the two together")
    try:
        arrays = validation.read(content)
    except ValueError as error:
        raise BenchError(f"{file}: {error}; run again to get a whole one") from None
    if wrong := validation.fault(arrays, [row.method for row in record.rows if row.status == "ok"]):
        raise BenchError(f"{file}: no rankings of this record: {wrong}; run again to get whole ones")
    return arrays


def find_row(rows: Iterable[Row], method: str) -> Row | None:
    return next((row for row in rows if row.method == method), None)


def command_line() -> tuple[str, ...]:
    """The command that repeats this run, without the path of the interpreter."""
    program = "retrieval-bench" if Path(sys.argv[0]).name == "retrieval-bench" else "python -m benchmark"
    return (program, *map(printable, sys.argv[1:]))
