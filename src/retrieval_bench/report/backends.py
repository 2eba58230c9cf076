"""What each backend finds of what exact search finds, and at what cost: a table of rows that name a backend."""

from __future__ import annotations

import textwrap

from retrieval_bench.records.schema import Difference, Record, Row
from retrieval_bench.report.lines import aligned, ends, signed

HEADS = [
    *("method and backend", "found", "95 %", "accuracy", "d", "95 %", "map@r", "d", "95 %"),
    *("build s", "MB", "p50 ms", "p95", "p99", "queries/s", "1 thread"),
]
WIDTH = 100
"""Of the sentence below the tables, in characters."""
MEANS = (
    "found: of the {k} nearest by exact search, the share that is found; ties count. d: paired difference to exact "
    "search of the same features. p50 to p99: one query's search alone, without decoding and extraction."
)


def grid(record: Record) -> list[list[str]]:
    """Heads, then a line of cells for each row that a backend of its own searched; the heads alone where none was."""
    finished = [row for row in record.rows if row.status == "ok"]
    beside = {row.method.removesuffix(f" on {backend}") for row in finished if (backend := _backend(row))}
    return [HEADS, *(_cells(row) for row in finished if _backend(row) or row.method in beside)]


def means(record: Record) -> str:
    """What the heads mean."""
    return MEANS.format(k=max((row.approximation.k for row in record.rows if row.approximation), default=10))


def text(record: Record) -> str:
    """The same in columns; "" where no row names a backend."""
    lines = grid(record)
    if len(lines) == 1:
        return ""
    halves = [[line[:9] for line in lines], [[line[0], *line[9:]] for line in lines]]  # each fits a terminal
    return "\n".join([*aligned(halves[0]), "", *aligned(halves[1]), textwrap.fill(means(record), WIDTH)])


def _cells(row: Row) -> list[str]:
    facts = row.approximation
    if facts is None:
        found = ["1.0000", "exact"]
    else:
        reach = facts.found_interval
        found = [f"{facts.found:.4f}", "n/a" if reach is None else "-".join(ends(reach.low, reach.high))]
    scores = []
    for name in ("accuracy", "map@r"):
        scores.append(f"{row.scores[name]:.3f}" if name in row.scores else "n/a")
        scores += ["", ""] if facts is None else _difference(facts.differences.get(name))
    costs = [_time(row, "index_build", 2), "n/a" if row.features is None else f"{row.features.index_bytes / 1e6:.2f}"]
    costs += [_time(row, f"search_{name}", 3) for name in ("p50", "p95", "p99")]
    return [row.method, *found, *scores, *costs, _time(row, "search_throughput", 0), _time(row, _ALONE, 0)]


def _backend(row: Row) -> str:
    """The backend that the method names; "" where the run's own searched."""
    named = row.params.get("on")
    return next(iter(named), "") if isinstance(named, dict) else ""


_ALONE = "search_throughput_1_thread"


def _time(row: Row, name: str, digits: int) -> str:
    figure = row.times.get(name)
    return "n/a" if figure is None or figure.value is None else f"{figure.value:,.{digits}f}"


def _difference(one: Difference | None) -> list[str]:
    if one is None:
        return ["n/a", "n/a"]
    reach = "n/a" if one.low is None or one.high is None else f"{signed(one.low)} {signed(one.high)}"
    return [signed(one.mean), reach]
