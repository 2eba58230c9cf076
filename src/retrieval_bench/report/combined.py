"""Several records in one table, where their numbers mean the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval_bench.records.schema import Record
from retrieval_bench.report.evidence import Evidence
from retrieval_bench.report.table import NOT_AVAILABLE, columns, grid

ONE_RECORD_ALONE = frozenset({"group"})
"""Columns whose entries mean something within one record only."""


@dataclass(frozen=True)
class Combined:
    """comparable: are all records of the same data, by the same definitions. Without that, `lines` is empty and
    `sentence` says why.

    heads: "method", "record", then the columns that any of the records has; lines: one for each row of each record.
    """

    comparable: bool
    sentence: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def combined(evidences: Sequence[Evidence]) -> Combined:
    """One table of these records, at least one."""
    records = [evidence.record for evidence in evidences]
    if len({record.dataset.fingerprint for record in records}) > 1:
        names = "; ".join(f"{one.name}: {one.record.dataset.fingerprint[:12]}" for one in evidences)
        sentence = (
            "These records are of different data (other fingerprints of images, labels or splits), so their numbers "
            f"must not stand in one table: {names}."
        )
        return Combined(False, sentence, (), ())
    if len({record.settings.relevance == "category" for record in records}) > 1:
        sentence = (
            "Relevant is what has the query's category in some of these records and what has its label in others, so "
            "their numbers must not stand in one table."
        )
        return Combined(False, sentence, (), ())
    others = _defined_otherwise(records)
    if others:
        sentence = (
            f"These records define {', '.join(others)} differently, so their numbers must not stand in one table; "
            "run them again."
        )
        return Combined(False, sentence, (), ())
    shown = [[column for column in columns(record) if column.head not in ONE_RECORD_ALONE] for record in records]
    heads = list(dict.fromkeys(column.head for each in shown for column in each))
    lines = []
    for evidence, each in zip(evidences, shown, strict=True):
        for cells, row in zip(grid(evidence.record, each), evidence.record.rows, strict=True):
            have = dict(zip((column.head for column in each), cells[1:], strict=True))
            absent = "" if row.status == "failed" else NOT_AVAILABLE
            lines.append((row.method, evidence.name, *(have.get(head, absent) for head in heads)))
    machines = {(record.environment.processor, record.settings.threads) for record in records}
    sentence = "All records are of the same images, labels and splits, so that quality can be compared across them."
    if len(machines) > 1:
        sentence += " They come from different machines or thread counts: their times cannot be compared."
    sentence += " Letters of groups hold within one record and are left out here."
    return Combined(True, sentence, ("method", "record", *heads), tuple(lines))


def _defined_otherwise(records: Sequence[Record]) -> list[str]:
    """Metrics whose name does not mean the same in all of them."""
    meanings: dict[str, set[str]] = {}
    for record in records:
        for name, facts in record.metrics.items():
            meanings.setdefault(name, set()).add(facts.definition)
    return sorted(name for name, definitions in meanings.items() if len(definitions) > 1)
