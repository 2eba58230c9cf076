"""A record, or the file of a training, as what every tracker knows: parameters, numbers over steps, tags, texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from retrieval_bench.compare.contradictions import against_rankings
from retrieval_bench.core import BenchError, printable
from retrieval_bench.pair_training.file import SUFFIX as PAIR_SUFFIX
from retrieval_bench.pair_training.file import read_pairs
from retrieval_bench.records.files import load, run_file
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.records.scores import MARK, perturbed_of, quality_of
from retrieval_bench.report.table import markdown
from retrieval_bench.system.checkpoint import read_facts

SUFFIXES = (".pth", ".pt")


@dataclass(frozen=True)
class TrackedRun:
    """One method of a record, or one training. steps: step -> numbers; a method has step 0 alone."""

    name: str
    params: Mapping[str, str]
    steps: Mapping[int, Mapping[str, float]]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tracked:
    """What is sent at once. group: the dataset. sha256: of the file that it is from. when: seconds since 1970. text:
    Markdown; "" for none. file: what to keep beside it. doubts: sentences on scores that the rankings contradict, and
    on rankings that cannot be read."""

    name: str
    group: str
    sha256: str
    when: float
    runs: tuple[TrackedRun, ...]
    tags: Mapping[str, str]
    file: Path
    text: str = ""
    doubts: tuple[str, ...] = ()


def tracked(path: Path) -> Tracked:
    """Read a record, or a file of weights that `train` wrote.

    Raises:
        BenchError: It is neither.
    """
    if path.suffix in (*SUFFIXES, PAIR_SUFFIX):
        return _training(path)
    return _record(path)


def _record(path: Path) -> Tracked:
    record, doubts = against_rankings(path, load(path), "its scores are sent without a look at them")
    file = run_file(path)
    facts, where = record.dataset, record.environment
    tags = {
        "dataset": facts.spec,
        "fingerprint": facts.fingerprint,
        "version": where.version,
        "commit": where.commit or "",
        "processor": where.processor,
        "gpu": where.gpu or "",
        "status": record.status,
        "seed": str(record.settings.seed),
        "backend": record.settings.backend,
    }
    runs = tuple(_run(row, record) for row in record.rows if row.status == "ok")
    when = datetime.fromisoformat(record.created.replace("Z", "+00:00")).timestamp()
    name = f"{facts.spec} {record.created}"
    return Tracked(name, facts.spec, _sha256(file), when, runs, _known(tags), file, markdown(record), tuple(doubts))


def _run(row: Row, record: Record) -> TrackedRun:
    times = {f"{name} {figure.unit}": figure.value for name, figure in row.times.items() if figure.value is not None}
    sizes = {} if row.features is None else {"bytes_per_image": float(row.features.bytes_per_image)}
    params = {"method": row.method, **flat(row.params)}
    if said := next((notice for notice in row.notices if notice.startswith(MARK)), ""):
        params["contradicted"] = said.removeprefix(f"{MARK} ")
    tags = {"family": row.family, "dataset": record.dataset.spec}
    return TrackedRun(row.method, params, {0: {**quality_of(row), **perturbed_of(row), **times, **sizes}}, tags)


def _training(path: Path) -> Tracked:
    if not path.is_file():
        raise BenchError(f"{printable(path)}: there is no such file; name a record, or a file that `train` wrote")
    facts: Any = read_pairs(path, printable(path)).facts if path.suffix == PAIR_SUFFIX else read_facts(path)
    if not facts or "history" not in facts:
        raise BenchError(f"{printable(path)}: it does not say how it was trained; `train` writes files that do")
    held = "held-out map" if path.suffix == PAIR_SUFFIX else "validation accuracy"
    steps = {}
    for line in facts["history"]:
        numbers = {"loss": line["loss"], "learning rate": line["rate"], held: line["accuracy"]}
        steps[int(line["epoch"])] = {name: float(value) for name, value in numbers.items() if value is not None}
    tags = {
        "dataset": facts["dataset"],
        "fingerprint": facts["fingerprint"],
        "version": facts["version"],
        "commit": facts["commit"] or "",
        "best_epoch": str(facts["best_epoch"]),
    }
    run = TrackedRun(path.stem, flat(facts["identity"]), steps, {"dataset": facts["dataset"]})
    when = path.stat().st_mtime
    return Tracked(path.stem, facts["dataset"], _sha256(path), when, (run,), _known(tags), path)


def flat(options: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Options, and options within options, as text."""
    found: dict[str, str] = {}
    for name, value in options.items():
        found |= flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": str(value)}
    return found


def _known(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if value}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
