"""One option of a backend over several values, kept beside the record whose method was searched: `sweeps/*.json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records.schema import Amount, Count, Difference, Environment, Interval, Model, Scores, Share, Text
from retrieval_bench.system.files import read_regular, write_whole

FOLDER = "sweeps"
MOST_POINTS = 1_000
MOST_BYTES = 4_000_000


class Point(Model):
    """One value of the option.

    on_train: recall of what exact search finds, and queries/s, with training items as queries; by them the front and
    the choice are made. found, scores, differences to exact search and times: of the queries, which are reported.
    """

    backend: Text
    value: float
    build_s: Amount
    index_bytes: Count
    found_on_train: Share
    rate_on_train: Amount
    found: Share
    found_interval: Interval | None = None
    scores: Scores
    differences: Annotated[dict[Text, Difference], Field(max_length=100)]
    rate: Amount
    p50_ms: Amount
    on_front: bool = False


class OptionSweep(Model):
    """exact_...: of exact search, in the same turns. chosen: the fastest value that finds `wanted` on train; None: no
    value does. depth: to which rankings go, for the scores."""

    method: Text
    backend: Text
    option: Text
    fingerprint: Text
    gallery: Count
    queries: Count
    train: Count
    k: Count
    depth: Count
    threads: Count
    wanted: Share
    chosen: float | None
    exact_scores: Scores
    exact_rate: Amount
    exact_p50_ms: Amount
    points: Annotated[tuple[Point, ...], Field(max_length=MOST_POINTS)]
    environment: Environment


def place_of(folder: Path, sweep: OptionSweep) -> Path:
    """The file of a sweep in the folder of its record, without a suffix."""
    return folder / FOLDER / re.sub(r"[^\w.=-]+", "-", f"{sweep.method}-{sweep.backend}-{sweep.option}").strip("-")


def save(file: Path, sweep: OptionSweep) -> None:
    """Write it whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (sweep.model_dump_json(indent=2) + "\n").encode())


def load(file: Path) -> OptionSweep:
    """Read one. BenchError where the file is not one of this program."""
    try:
        return OptionSweep.model_validate_json(read_regular(file, MOST_BYTES))
    except OSError as error:
        raise BenchError(f"{printable(file)} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BenchError(f"{printable(file)} is no sweep: {where}: {first['msg']}; remove it, or sweep again") from None


def load_all(folder: Path) -> tuple[OptionSweep, ...]:
    """Those beside a record, by name."""
    return tuple(load(file) for file in sorted((folder / FOLDER).glob("*.json")))
