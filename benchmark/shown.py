"""A record on the screen: the whole of it in the form that was asked for, or one finished row as a line."""

from __future__ import annotations

import os
import shutil
import sys
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_bench.records.schema import Record, Row


class Format(StrEnum):
    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


def formatted(record: Record, form: Format, unknown: bool = False) -> str:
    """unknown: with how well queries without an answer can be told, where the form does not hold everything anyway."""
    from retrieval_bench.report import table

    if form is Format.json:
        return record.to_json()
    if form is Format.md:
        return table.markdown(record, unknown)
    if form is Format.csv:
        return table.tidy_csv(record)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        return table.terminal(record, width, color="NO_COLOR" not in os.environ, unknown=unknown)
    return table.terminal(record, unknown=unknown)


def one_line(row: Row) -> str:
    if row.status == "failed":
        return f"{row.method}: failed"
    latency = row.times.get("end_to_end_p50")
    cost = "" if latency is None or latency.value is None else f", {latency.value:.1f} ms a query"
    return f"{row.method}: accuracy {row.scores['accuracy']:.3f}{cost}"
