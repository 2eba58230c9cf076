"""A report in other forms than a page: Markdown, CSV, LaTeX, and JSON with every number that the page draws."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from retrieval_bench.report import table
from retrieval_bench.report.combined import combined
from retrieval_bench.report.evidence import Evidence
from retrieval_bench.report.findings import find
from retrieval_bench.system.csv_text import csv_of_columns


def markdown(evidences: Sequence[Evidence]) -> str:
    """The record's own table; of several records one table where they are of the same data, then each."""
    if len(evidences) == 1:
        return table.markdown(evidences[0].record)
    together = combined(evidences)
    parts = [f"{together.sentence}\n"]
    if together.comparable:
        lines = [together.heads, ("---", "---", *["---:"] * (len(together.heads) - 2)), *together.lines]
        parts.append("".join(f"| {' | '.join(map(table.in_a_cell, cells))} |\n" for cells in lines))
    parts += [f"## {table.in_a_cell(one.name)}\n\n{table.markdown(one.record)}" for one in evidences]
    return "\n".join(parts)


def tidy_csv(evidences: Sequence[Evidence]) -> str:
    """Every figure of every row; of several records with the record's name in the first column."""
    if len(evidences) == 1:
        return table.tidy_csv(evidences[0].record)
    rows: list[dict[str, str]] = []
    for evidence in evidences:
        for row in csv.DictReader(io.StringIO(table.tidy_csv(evidence.record))):
            rows.append({"record": evidence.name, **row})
    heads = list(dict.fromkeys(name for row in rows for name in row))
    return csv_of_columns(heads, rows)


def as_json(evidences: Sequence[Evidence]) -> str:
    """{"records": [{"name", "record", "figures"}]}: the records whole, and what the page draws from their rankings."""
    content = [
        {
            "name": evidence.name,
            "record": evidence.record.model_dump(mode="json", by_alias=True),
            "figures": find(evidence).as_data(),
            "without_figures_because": evidence.no_arrays or None,
        }
        for evidence in evidences
    ]
    return json.dumps({"records": content}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
