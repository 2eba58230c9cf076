"""`run --resume`: the finished rows of an interrupted record are kept, where it is of the very same run."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from retrieval_bench.compare.reload import judged
from retrieval_bench.core import BenchError, printable
from retrieval_bench.evaluation.uncertainty import COMPARED
from retrieval_bench.experiment.executor import MethodOutcome, Opened
from retrieval_bench.methods.parse import Method
from retrieval_bench.records.files import load, load_rankings, run_file
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.registry import METRICS

log = logging.getLogger("retrieval_bench")

_MARK = re.compile(r"\[[^\]]*\]")
"""What a row's name has beside the method's: "[untrained]", "[gallery]"."""
_SAME_MACHINE = ("version", "commit", "python", "libraries", "machine", "processor", "gpu")
"""Fields of the environment on which rankings or times depend."""


def finished_before(
    folder: Path, opened: Opened, methods: tuple[Method, ...]
) -> tuple[Record, dict[str, MethodOutcome]] | None:
    """Read what an interrupted run has finished.

    Args:
        folder: of its record.
        opened: the data made ready for this run.
        methods: those of this run.

    Returns:
        The record, and what became of each method that did not fail, by its name. None: there is no record to go on
        with, which is logged; all methods then run.

    Raises:
        BenchError: The record is of another run; the sentence says by what they differ.
    """
    if not run_file(folder).is_file():
        log.info("--resume: %s holds no record yet; all methods run", printable(folder))
        return None
    try:
        record = load(folder)
        arrays = load_rankings(folder, record)
    except BenchError as error:
        log.warning("--resume: %s; all methods run again", error)
        return None
    difference = next(_differences(record, opened.record), "")
    if not difference and not _same(arrays, opened.arrays):
        difference = "its gallery or queries are others"
    if difference:
        raise BenchError(
            f"--resume: the record in {printable(folder)} is of another run: {difference}; leave --resume out, which "
            "keeps it in earlier/, or name another --out"
        )
    libraries = {
        "thread_counts": record.environment.thread_counts,
        "gpu_settings": record.environment.gpu_settings,
    }
    names = [row.method for row in record.rows]
    found: dict[str, MethodOutcome] = {}
    for method in methods:
        row = _row_of(method, record)
        if row is not None:
            own = {name: array for name, array in arrays.items() if _owner(name, names) == row.method}
            ranked = judged(arrays, row.method)
            per_query = {name: METRICS[name].build(ranked, None) for name in COMPARED}
            found[str(method)] = MethodOutcome(row, own, per_query, libraries)
    return record, found


def _differences(then: Record, now: Record) -> Iterator[str]:
    """By what two runs are not the same, one clause each."""
    if then.dataset.fingerprint != now.dataset.fingerprint:
        yield f"fingerprint of the dataset {then.dataset.fingerprint[:12]} there, {now.dataset.fingerprint[:12]} here"
    for name in type(now.settings).model_fields:
        yield from _difference(name, getattr(then.settings, name), getattr(now.settings, name))
    for name in _SAME_MACHINE:
        yield from _difference(name, getattr(then.environment, name), getattr(now.environment, name))
    if then.metrics != now.metrics:
        yield "metrics are defined otherwise"
    if then.statistics != now.statistics:
        yield "intervals are defined otherwise"


def _difference(name: str, then: object, now: object) -> Iterator[str]:
    if then != now:
        yield f"{name} {_shown(then)} there, {_shown(now)} here"


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _same(arrays: Mapping[str, np.ndarray], common: Mapping[str, np.ndarray]) -> bool:
    return all(
        name in arrays and arrays[name].dtype == array.dtype and arrays[name].tobytes() == array.tobytes()
        for name, array in common.items()
    )


def _row_of(method: Method, record: Record) -> Row | None:
    """The row of a method; None where it failed, is not there, or could be that of two methods."""
    bare = _MARK.sub("", str(method))
    rows = [row for row in record.rows if _MARK.sub("", row.method) == bare]
    return rows[0] if len(rows) == 1 and rows[0].status == "ok" else None


def _owner(array: str, rows: list[str]) -> str | None:
    """The row to which an array belongs; None: to all. One row's name may be the beginning of another's."""
    return max((row for row in rows if array.startswith(f"{row}/")), key=len, default=None)
