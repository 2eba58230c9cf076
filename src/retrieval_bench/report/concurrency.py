"""Latency and throughput while several queries are under way at once: a small table."""

from __future__ import annotations

from retrieval_bench.records.schema import Record
from retrieval_bench.report.lines import aligned, three_digits
from retrieval_bench.system.timing import concurrency_name

HEADS = ["method", "at once", "p50 ms", "p95 ms", "p99 ms", "queries/s"]
MEANS = (
    "at once: queries under way at the same time, each in a thread of its own; they share the run's threads. The times "
    "are of one of them, from encoded bytes to its ranking."
)


def grid(record: Record) -> list[list[str]]:
    """Heads, then a line of cells for each row and number of queries at once; the heads alone where none was timed."""
    lines = [HEADS]
    for row in record.rows:
        for level in record.settings.concurrency:
            name = concurrency_name(level)
            figures = [row.times.get(f"{name}_{part}") for part in ("p50", "p95", "p99", "throughput")]
            if any(figures):
                cells = ["n/a" if one is None or one.value is None else three_digits(one.value) for one in figures]
                lines.append([row.method, str(level), *cells])
    return lines


def text(record: Record) -> str:
    """The same in columns; "" where none was timed."""
    lines = grid(record)
    return "\n".join([*aligned(lines), MEANS]) if len(lines) > 1 else ""
