"""Tables inside a document, made from records: the document names the records and the columns, and nothing else.

In Markdown, `head=column` renames a column, and rows are the methods that all of the records have:

    <!-- table
    some/record: accuracy, recall@10, B/image
    another/record: accuracy, again=accuracy
    -->
    (the table)
    <!-- /table -->

    <!-- gains
    some/record: accuracy
    -->
    (the table that `gains` makes of this metric)
    <!-- /gains -->
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.records.files import load
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.report.gains import gains
from retrieval_bench.report.table import NOT_AVAILABLE, columns

BLOCK = re.compile(r"(<!-- (table|gains)\n(.*?)-->\n).*?(<!-- /\2 -->)", re.S)


def renewed(text: str, root: Path) -> str:
    """The document with every table made anew from its records, whose paths start at root; BenchError for a bad one."""
    made = {"table": _table, "gains": _gains}
    return BLOCK.sub(lambda block: f"{block[1]}{made[block[2]](block[3], root)}{block[4]}", text)


def _asked(spec: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Lines `path: head=column, column` as (path, [(head, column)])."""
    asked = []
    for line in spec.strip().splitlines():
        path, _, wanted = line.partition(":")
        pairs = [cell.strip().rpartition("=") for cell in wanted.split(",")]
        asked.append((path.strip(), [(head or column, column) for head, _, column in pairs]))
    return asked


def _table(spec: str, root: Path) -> str:
    asked = [(load(root / path), wanted) for path, wanted in _asked(spec)]
    heads = ["method", *(head for _, wanted in asked for head, _ in wanted)]
    rows = [{row.method: row for row in record.rows if row.status == "ok"} for record, _ in asked]
    lines = [heads]
    for method in rows[0]:
        if all(method in have for have in rows):
            cells = [
                _cell(column, record)(have[method])
                for (record, wanted), have in zip(asked, rows, strict=True)
                for _, column in wanted
            ]
            lines.append([f"`{method}`", *cells])
    return _markdown(lines)


def _gains(spec: str, root: Path) -> str:
    [(path, [(_, metric)])] = _asked(spec)
    return _markdown(gains(load(root / path), metric))


def _markdown(lines: list[list[str]]) -> str:
    """The first line is the head, and the first column words."""
    ruled = [lines[0], ["---", *["---:"] * (len(lines[0]) - 1)], *lines[1:]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in ruled)


def _cell(name: str, record: Record) -> Callable[[Row], str]:
    """A column of the record's own table, or any score of its rows."""
    for column in columns(record):
        if column.head == name:
            return column.cell
    if not any(name in row.scores for row in record.rows):
        known = ", ".join(column.head for column in columns(record))
        raise BenchError(f"a table needs {name!r}, which its record does not have; it has {known} and every score")
    return lambda row: f"{row.scores[name]:.3f}" if name in row.scores else NOT_AVAILABLE
