"""Kept records to timelines: for each dataset and method, quality and cost over records, joined where they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from retrieval_bench.compare.contradictions import against_rankings
from retrieval_bench.compare.diff import (
    LEARNED_TOLERANCE,
    TOLERANCE,
    machine_key,
    paired_intervals,
    refuse_false_comparison,
    refuse_other_method,
)
from retrieval_bench.compare.reload import Values, values_of
from retrieval_bench.core import BenchError, NotComparable, printable
from retrieval_bench.history.change_points import level_changes
from retrieval_bench.records.files import load, run_files_below
from retrieval_bench.records.schema import Record, Row, find_row
from retrieval_bench.records.scores import is_marked
from retrieval_bench.system.other_processes import DISTURBED

QUALITY = ("accuracy", "map@r")
LEAST_QUALITY = 0.002
"""The smallest change of a score's level that is marked."""
LEAST_COST = 0.05
"""Likewise of a cost, as a share of it: timings repeat no better."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class HistoryFigure:
    """What a timeline shows. unit: "" for quality. timed: only times of one machine are joined. more: more is
    better."""

    key: str
    title: str
    unit: str = ""
    timed: bool = False
    more: bool = False

    def of(self, row: Row) -> float | None:
        """What a row says; None where it says nothing, of a score that its rankings contradict, and of a cost where
        that is 0, which has no ratio to others."""
        if not self.unit:
            return None if is_marked(row) else row.scores.get(self.key)
        if self.key == "bytes_per_image":
            return None if row.features is None else float(row.features.bytes_per_image) or None
        found = row.times.get(self.key)
        return None if found is None or not found.value else found.value


COSTS = (
    HistoryFigure("end_to_end_p50", "Time of a query, median", "ms", timed=True),
    HistoryFigure("extract_throughput", "Images described in bulk", "images/s", timed=True, more=True),
    HistoryFigure("fit", "Learning from train", "s", timed=True),
    HistoryFigure("bytes_per_image", "Size in the gallery", "B/image"),
    HistoryFigure("added_memory", "Memory that the method added", "MiB", timed=True),
)


@dataclass(frozen=True, eq=False)
class KeptRecord:
    """A record and where it lies."""

    path: Path
    record: Record

    @property
    def commit(self) -> str:
        """Short; with a mark where the tree had changes."""
        where = self.record.environment
        return "unknown" if where.commit is None else f"{where.commit[:9]}{'+' if where.dirty else ''}"


@dataclass(frozen=True)
class HistoryChange:
    """A figure that changed. at: the first record of the new level, from 0. how: what says so. p: of the split; None
    where queries or tolerances say it."""

    method: str
    figure: HistoryFigure
    at: int
    before: float
    after: float
    how: str
    p: float | None = None

    @property
    def better(self) -> bool:
        """Whether the change is one for the better."""
        return (self.after > self.before) == (self.figure.more or not self.figure.unit)


@dataclass(frozen=True)
class Line:
    """One figure of one method. parts: points (record, value) that are joined; breaks: record -> why no line leads to
    it."""

    method: str
    figure: HistoryFigure
    parts: tuple[tuple[tuple[int, float], ...], ...]
    breaks: tuple[tuple[int, str], ...]
    changes: tuple[HistoryChange, ...]


@dataclass(frozen=True, eq=False)
class Timeline:
    """All records of one dataset, the oldest first. methods: in the order in which they came."""

    name: str
    kept: tuple[KeptRecord, ...]
    methods: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def changes(self) -> list[HistoryChange]:
        """All changes, the newest first."""
        return sorted((one for line in self.lines for one in line.changes), key=lambda one: -one.at)

    @property
    def breaks(self) -> dict[tuple[int, str], list[str]]:
        """(record, why) -> methods and figures whose line does not lead there."""
        found: dict[tuple[int, str], list[str]] = {}
        for line in self.lines:
            for at, why in line.breaks:
                found.setdefault((at, why), []).append(line.method)
        return {key: list(dict.fromkeys(found[key])) for key in sorted(found)}


@dataclass(frozen=True, eq=False)
class History:
    """Timelines of the datasets, that with the newest record first; and sentences on what is left out: records, scores
    that the rankings beside them contradict, and rankings that cannot be read."""

    timelines: tuple[Timeline, ...]
    left_out: tuple[str, ...]

    @property
    def newest(self) -> KeptRecord:
        """The newest of all records."""
        return self.timelines[0].kept[-1]


def history(folder: Path, metrics: Sequence[str] = QUALITY) -> History:
    """Read every record below a folder, those in `earlier/` too.

    Args:
        folder: where records were kept.
        metrics: scores that are shown.

    Raises:
        BenchError: There is no record.
    """
    if not folder.is_dir():
        raise BenchError(f"{printable(folder)}: is not a folder; name the one in which records are kept")
    kept, left_out = [], []
    for file in run_files_below(folder):
        try:
            record, told = against_rankings(file.parent, load(file), "here the tolerances tell what changed")
        except BenchError as error:
            left_out.append(str(error))
            continue
        kept.append(KeptRecord(file.parent, record))
        left_out += told
    if not kept:
        reason = f": {left_out[0]}" if left_out else "; `run --out` writes one, and keeps the one before in earlier/"
        raise BenchError(f"{printable(folder)}: there is no record below it{reason}")
    if unfinished := [one for one in kept if one.record.status in ("running", "interrupted")]:
        left_out += [f"{printable(one.path)}: the run did not finish ({one.record.status})" for one in unfinished]
        kept = [one for one in kept if one not in unfinished] or kept
    parted: dict[tuple[object, ...], list[KeptRecord]] = {}
    for one in sorted(kept, key=lambda one: (one.record.created, str(one.path))):
        parted.setdefault(_question(one.record), []).append(one)
    figures = [*(HistoryFigure(name, name) for name in metrics), *COSTS]
    known = {name for one in kept for row in one.record.rows for name in row.scores}
    if absent := [name for name in metrics if name not in known and metrics != QUALITY]:
        raise BenchError(f"--prefer {absent[0]}: the records have {', '.join(sorted(known))}")
    ordered = sorted(parted.values(), key=lambda own: own[-1].record.created, reverse=True)
    return History(tuple(_timeline(own, figures) for own in ordered), tuple(left_out))


def _question(record: Record) -> tuple[object, ...]:
    """Records of one question stand in one timeline, whether or not their numbers compare."""
    facts, how = record.dataset, record.settings
    return (facts.spec, facts.root, how.limit, how.relevance, how.learn_from)


def _name(record: Record) -> str:
    name = record.dataset.spec if record.dataset.root is None else f"{record.dataset.spec} in {record.dataset.root}"
    more = [f"limit {record.settings.limit}"] if record.settings.limit is not None else []
    more += [f"relevance {record.settings.relevance}"] if record.settings.relevance != "label" else []
    more += [f"learned from {record.settings.learn_from}"] if record.settings.learn_from != "train" else []
    return ", ".join([name, *more])


def _timeline(kept: Sequence[KeptRecord], figures: Sequence[HistoryFigure]) -> Timeline:
    methods = list(dict.fromkeys(row.method for one in kept for row in one.record.rows if row.family != "control"))
    values = _ValuesOf(kept)
    lines = []
    for method in methods:
        for figure in figures:
            points = [
                (place, row, value)
                for place, one in enumerate(kept)
                if (row := find_row(one.record.rows, method)) is not None
                and row.status == "ok"
                and (value := figure.of(row)) is not None
                and not (figure.timed and (row.other_processes or 0.0) > DISTURBED)
            ]
            if points:
                lines.append(_line(method, figure, points, kept, values))
    return Timeline(_name(kept[-1].record), tuple(kept), tuple(methods), tuple(lines))


class _ValuesOf:
    """What each query of a record scored; read when it is asked for, once."""

    def __init__(self, kept: Sequence[KeptRecord]) -> None:
        self._kept = kept
        self._read: dict[int, Values | None] = {}

    def __call__(self, place: int) -> Values | None:
        if place not in self._read:
            one = self._kept[place]
            try:
                self._read[place] = values_of(one.path, one.record)
            except BenchError:  # then the tolerances decide
                self._read[place] = None
        return self._read[place]


def _line(
    method: str,
    figure: HistoryFigure,
    points: Sequence[tuple[int, Row, float]],
    kept: Sequence[KeptRecord],
    values: _ValuesOf,
) -> Line:
    parts: list[list[tuple[int, float]]] = [[points[0][::2]]]
    breaks: list[tuple[int, str]] = []
    changes: list[HistoryChange] = []
    for (last, old, before), (place, new, after) in pairwise(points):
        why = _why_apart(kept[last].record, kept[place].record, old, new, figure)
        if why:
            parts.append([])
            breaks.append((place, why))
        elif not figure.unit and abs(after - before) > _ROUNDING:
            said = _moved(method, figure.key, (last, before), (place, after), old, kept, values)
            changes += [HistoryChange(method, figure, place, before, after, said)] if said else []
        parts[-1].append((place, after))
    marked = {one.at for one in changes}
    for part in parts:
        changes += [one for one in _levels(method, figure, part) if one.at not in marked]
    return Line(method, figure, tuple(map(tuple, parts)), tuple(breaks), tuple(sorted(changes, key=lambda one: one.at)))


def _why_apart(before: Record, after: Record, old: Row, new: Row, figure: HistoryFigure) -> str:
    """Why two neighbouring values must not be joined; "" where they may."""
    try:
        refuse_false_comparison(before, after, one_backend=not figure.unit)
        refuse_other_method(old, new)
    except NotComparable as refusal:
        return str(refusal).removeprefix("not comparable: ")
    if figure.timed and machine_key(before) != machine_key(after):
        return "times of another machine, thread count or device"
    if figure.timed and before.settings.backend != after.settings.backend:
        return "times of another backend"
    return ""


def _moved(
    method: str,
    metric: str,
    before: tuple[int, float],
    after: tuple[int, float],
    old: Row,
    kept: Sequence[KeptRecord],
    values: _ValuesOf,
) -> str:
    """How it is known that a score changed from one record to the next; "" where it is not."""
    record = kept[before[0]].record
    reach = paired_intervals(method, (values(before[0]), values(after[0])), record).get(metric)
    if reach is not None:
        low, high = reach
        return f"the same queries, {low:+.3f} to {high:+.3f}" if low > 0 or high < 0 else ""
    learns = old.features is not None and old.features.fit != "nothing to learn"
    allowed = LEARNED_TOLERANCE if learns else TOLERANCE
    return f"more than {allowed:g}" if abs(after[1] - before[1]) > allowed else ""


def _levels(method: str, figure: HistoryFigure, part: Sequence[tuple[int, float]]) -> list[HistoryChange]:
    """Changes of the level; of costs by their ratio."""
    found = np.array([value for _, value in part])
    if figure.unit:
        found = np.log(found)
    least = math.log1p(LEAST_COST) if figure.unit else LEAST_QUALITY
    changes = []
    for one in level_changes(found, least):
        before, after = (math.exp(level) if figure.unit else level for level in (one.before, one.after))
        changes.append(HistoryChange(method, figure, part[one.at][0], before, after, "level", one.p))
    return changes
