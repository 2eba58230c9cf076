"""Search by a threshold, method by method: a small table, and why a method has none."""

from __future__ import annotations

from retrieval_bench.records.schema import Record
from retrieval_bench.report.lines import aligned, ends

HEADS = ["method", "distance <=", "precision", "95 %", "recall", "95 %", "f1", "95 %", "f1 on train"]
MEANS = (
    "Search by a threshold: all gallery items within the distance are the answer. The distance is the one of the "
    "highest F1 on train; precision, recall and F1 are over all pairs of a query and an item."
)


def grid(record: Record) -> list[list[str]]:
    """Heads, then a line of cells for each row that has a threshold; the heads alone where none has."""
    lines = [HEADS]
    for row in record.rows:
        facts = row.by_threshold
        if facts is None or facts.threshold is None:
            continue
        cells = [row.method, f"{facts.threshold:.4g}"]
        for name in ("precision", "recall", "f1"):
            reach = facts.intervals.get(name)
            cells.append(f"{facts.scores[name]:.3f}" if name in facts.scores else "n/a")
            cells.append("n/a" if reach is None else "-".join(ends(reach.low, reach.high)))
        known = facts.train.get("f1")
        lines.append([*cells, "n/a" if known is None else f"{known:.3f}"])
    return lines


def reasons(record: Record) -> list[str]:
    """A sentence for each reason why rows have no threshold."""
    found: dict[str, list[str]] = {}
    for row in record.rows:
        if row.by_threshold is not None and row.by_threshold.unavailable:
            found.setdefault(row.by_threshold.unavailable, []).append(row.method)
    return [f"No threshold of {', '.join(methods)}: {reason}." for reason, methods in found.items()]


def text(record: Record) -> str:
    """The same in columns; "" where nobody asked for it."""
    lines, without = grid(record), reasons(record)
    if len(lines) == 1:
        return "\n".join(without)
    return "\n".join([*aligned(lines), MEANS, *without])
