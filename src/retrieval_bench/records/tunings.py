"""What a search for methods has tried: `tuning.jsonl`, a line for each trial, so that it goes on where it was ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from retrieval_bench.core import BenchError, printable
from retrieval_bench.records.schema import Amount, Count, Model, Seed, Text
from retrieval_bench.system.files import read_regular, removed, write_whole
from retrieval_bench.system.line_file import add_line, drop_half_line, is_beginning_of, read_lines

FILE = "tuning.jsonl"
BEGUN_FILE = "tuning.begun.json"
"""The trial that is going on. It is left behind only where the process ends in the middle of it, as by a crash."""
ENDED = "the process ended while it was tried; to try it again, remove its line from tuning.jsonl"
MOST_BYTES = 1 << 28
Values = Annotated[tuple[float, ...], Field(max_length=10_000_000)]


class TuningOf(Model):
    """The first line: of what the trials are.

    fingerprint: of the data that they are chosen by. start: the methods that it began with, in alphabetical order; none
    in an older file, which goes on with any.
    """

    format: Annotated[int, Field(ge=1, le=1)] = 1
    version: Text
    dataset: Text
    validation: Text
    fingerprint: Text
    metric: Text
    seed: Seed
    weights: Text
    threads: Count
    start: tuple[Text, ...] = ()


class Tried(Model):
    """One method on one part of the data.

    part: the number of the part, ascending in size; whole: it is all of the data. score: mean of the metric; None where
    it failed, and `failed` says why. values: of each query, of the whole alone. bytes, p95_ms: an image and a query;
    fit_s: None where what was learned came from the cache. seconds: that the trial took.
    """

    method: Text
    family: Text
    part: Count
    whole: bool
    queries: Count
    score: float | None
    values: Values = ()
    bytes: Count | None = None
    p95_ms: Amount | None = None
    fit_s: Amount | None = None
    seconds: Amount
    failed: Text = ""


class TuningFile:
    """The trials in a folder, read when it is opened, and every further one added to it as it is done.

    Args:
        folder: where the file lies.
        of: what the trials are of.

    Raises:
        BenchError: There is such a file of another search, or it cannot be read or written.
    """

    def __init__(self, folder: Path, of: TuningOf) -> None:
        self.path, self._begun = folder / FILE, folder / BEGUN_FILE
        self.tried: list[Tried] = []
        folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            self._read(of)
            self._keep_what_ended()
        else:
            add_line(self.path, of.model_dump_json())

    def add(self, tried: Tried) -> None:
        """Keep one more; it is on the disk afterwards."""
        self.tried.append(tried)
        add_line(self.path, tried.model_dump_json())

    @contextmanager
    def begun(self, blank: Tried) -> Iterator[None]:
        """While a trial goes on: where it ends the process, the next search finds that it failed, and goes on.

        blank: the trial, of which nothing is known yet.
        """
        write_whole(self._begun, blank.model_copy(update={"failed": ENDED}).model_dump_json().encode())
        try:
            yield
        finally:
            removed(self._begun)

    def _read(self, of: TuningOf) -> None:
        lines = read_lines(self.path, MOST_BYTES)
        if not lines and is_beginning_of(self.path, of.model_dump_json(), MOST_BYTES):
            drop_half_line(self.path, MOST_BYTES)
            add_line(self.path, of.model_dump_json())
            return
        try:
            known = TuningOf.model_validate_json(lines[0] if lines else b"{}")
            self.tried = [Tried.model_validate_json(line) for line in lines[1:]]
        except ValidationError as error:
            first = error.errors()[0]
            raise BenchError(
                f"{printable(self.path)} is no list of trials ({first['msg']}); remove it, or name another --out"
            ) from None
        own, theirs = of.model_dump(exclude={"version"}), known.model_dump(exclude={"version"})
        if not known.start:
            own["start"] = theirs["start"]
        other = sorted(name for name in own if own[name] != theirs[name])
        if other:
            raise BenchError(
                f"{printable(self.path)} is of another search, with another {', '.join(other)}; name another --out"
            )
        drop_half_line(self.path, MOST_BYTES)

    def _keep_what_ended(self) -> None:
        """A trial that ended the process has failed."""
        if not self._begun.exists():
            return
        try:
            ended = Tried.model_validate_json(read_regular(self._begun, MOST_BYTES))
        except (OSError, ValidationError):
            raise BenchError(f"{printable(self._begun)} is no trial that was begun; remove it") from None
        if all((one.method, one.part) != (ended.method, ended.part) for one in self.tried):
            self.add(ended)
        removed(self._begun)
