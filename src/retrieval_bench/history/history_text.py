"""A history in words: a sentence for each dataset, tables of changes and breaks; for a terminal, as Markdown, as
JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrieval_bench.core import printable
from retrieval_bench.history.change_points import FEWEST, LEVEL
from retrieval_bench.history.timeline import LEAST_COST, LEAST_QUALITY, History, HistoryChange, Timeline
from retrieval_bench.report.lines import TERMINAL, aligned, counted, shortened, three_digits, wrapped
from retrieval_bench.report.names import Names, names_of
from retrieval_bench.report.table import in_a_cell

SCHEMA_VERSION = 1
MOST = 12
HOW = (
    "A score is marked where the same queries show a difference (95 % interval of the paired differences over "
    "products), or "
    "without rankings where it moved by more than the tolerance of `diff`. Scores and costs are also marked where "
    "their level "
    f"changed: circular binary segmentation, permutation test at {100 * LEVEL:g} %, at least {FEWEST} records on "
    "each side, "
    "and at least "
    f"{LEAST_QUALITY:g} of a score or {100 * LEAST_COST:g} % of a cost. So of 100 lines in which nothing changed "
    "about one has a "
    "false mark."
)
JOINED = (
    "A line joins records whose numbers mean the same: data, splits, definitions, seed and weights; for times also "
    "machine, threads and "
    "backend. Times that other programs disturbed are left out."
)


def name_map(timeline: Timeline) -> Names:
    """What methods are called where there is no room."""
    return names_of(timeline.methods)


def text(found: History) -> str:
    """All of it for a terminal of 80 columns."""
    lines = []
    for timeline in found.timelines:
        lines += [*wrapped(sentence(timeline)), ""]
        if len(grid := change_grid(timeline)) > 1:
            lines += [*aligned(_narrow(grid[: MOST + 1])), ""]
            lines += [f"  and {len(grid) - 1 - MOST} more", ""] if len(grid) > MOST + 1 else []
        for at, commit, methods, why in break_grid(timeline)[1:]:
            lines += wrapped(f"No line leads to record {at} (commit {commit}) of {methods}: {why}.", "  ", "    ")
    lines += [line for told in (HOW, JOINED, *_left_out(found)) for line in wrapped(told, "  ", "    ")]
    return "\n".join(lines)


def markdown(found: History) -> str:
    """All of it for a document."""
    parts = ["# History\n"]
    for timeline in found.timelines:
        parts.append(f"## {in_a_cell(timeline.name)}\n\n{in_a_cell(sentence(timeline))}\n")
        grids = change_grid(timeline), break_grid(timeline), record_grid(timeline)
        parts += [_as_table(grid) for grid in grids if len(grid) > 1]
    parts.append("".join(f"- {in_a_cell(told)}\n" for told in (HOW, JOINED, *_left_out(found))))
    return "\n".join(parts)


def _as_table(grid: Sequence[Sequence[str]]) -> str:
    heads, *lines = grid
    return "".join(f"| {' | '.join(map(in_a_cell, cells))} |\n" for cells in (heads, ["---"] * len(heads), *lines))


def sentence(timeline: Timeline) -> str:
    """What became of one dataset."""
    n = len(timeline.kept)
    first, last = timeline.kept[0], timeline.kept[-1]
    when = f"{first.record.created[:10]} to {last.record.created[:10]}" if n > 1 else first.record.created[:10]
    methods = counted(len(timeline.methods), "method")
    told = f"{timeline.name}: {counted(n, 'record')}, {when}, {methods}."
    changes = timeline.changes
    if n == 1:
        return f"{told} One record has no history."
    if not changes:
        return f"{told} No change is marked."
    worse = [one for one in changes if not one.better]
    new = [one for one in worse if one.at == n - 1]
    more = f" The newest record is worse in {_said(new[0], timeline)}." if new else ""
    marked = "1 change is marked" if len(changes) == 1 else f"{len(changes)} changes are marked"
    return f"{told} {marked}, {len(worse)} for the worse.{more}"


def _said(one: HistoryChange, timeline: Timeline) -> str:
    name = name_map(timeline).short[one.method]
    return f"{one.figure.title} of {name}, {_value(one, one.before)} to {_value(one, one.after)}"


def _value(one: HistoryChange, value: float) -> str:
    return f"{three_digits(value)} {one.figure.unit}" if one.figure.unit else f"{value:.3f}"


def change_grid(timeline: Timeline) -> list[list[str]]:
    """Heads, then a line for each change, the newest first."""
    names = name_map(timeline).short
    grid = [["method", "figure", "before", "after", "commit", "which", "seen by"]]
    for one in timeline.changes:
        how = one.how if one.p is None else f"level, p {one.p:.3f}"
        values = _value(one, one.before), _value(one, one.after)
        which = "better" if one.better else "worse"
        grid.append([names[one.method], one.figure.key, *values, timeline.kept[one.at].commit, which, how])
    return grid


def break_grid(timeline: Timeline) -> list[list[str]]:
    """Heads, then a line for each break of lines."""
    names = name_map(timeline).short
    grid = [["record", "commit", "methods", "no line leads to it, because"]]
    for (at, why), methods in timeline.breaks.items():
        told = "all" if len(methods) == len(timeline.methods) else ", ".join(names[one] for one in methods)
        grid.append([str(at + 1), timeline.kept[at].commit, told, why])
    return grid


def record_grid(timeline: Timeline) -> list[list[str]]:
    """Heads, then a line for each record."""
    grid = [["record", "made", "commit", "version", "processor", "threads", "folder"]]
    for number, one in enumerate(timeline.kept, start=1):
        where = one.record.environment
        cells = [one.record.created[:16].replace("T", " "), one.commit, where.version, where.processor]
        grid.append([str(number), *cells, str(one.record.settings.threads), printable(one.path)])
    return grid


def as_data(found: History) -> dict[str, Any]:
    """For JSON."""
    return {
        "schema_version": SCHEMA_VERSION,
        "timelines": [
            {
                "name": timeline.name,
                "records": [
                    {
                        "path": printable(one.path),
                        "created": one.record.created,
                        "commit": one.record.environment.commit,
                    }
                    for one in timeline.kept
                ],
                "lines": [
                    {
                        "method": line.method,
                        "figure": line.figure.key,
                        "unit": line.figure.unit,
                        "parts": [[list(point) for point in part] for part in line.parts],
                        "breaks": [list(one) for one in line.breaks],
                        "changes": [
                            {
                                "record": one.at,
                                "before": one.before,
                                "after": one.after,
                                "better": one.better,
                                "seen_by": one.how,
                                "p": one.p,
                            }
                            for one in line.changes
                        ],
                    }
                    for line in timeline.lines
                ],
            }
            for timeline in found.timelines
        ],
        "left_out": list(found.left_out),
    }


def _left_out(found: History) -> list[str]:
    return [f"Left out: {one}" for one in found.left_out]


def _narrow(lines: list[list[str]]) -> list[list[str]]:
    """The same with cells that are shortened until a line fits."""
    for most in (28, 20, 16, 12, 10, 8):
        shown = [[shortened(cell, most) for cell in line] for line in lines]
        wide = sum(max(len(line[place]) for line in shown) for place in range(len(shown[0]))) + 2 * (len(shown[0]) - 1)
        if wide <= TERMINAL:
            break
    return shown
