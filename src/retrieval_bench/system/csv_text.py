"""Tables as CSV that every reader takes apart in the same way, whatever names and labels hold."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class _Lines(list[str]):
    """What `csv.writer` writes to: it hands over a record at a time."""

    def write(self, line: str) -> None:
        self.append(line)


def csv_text(records: Iterable[Iterable[Any]]) -> str:
    r"""Records of cells as text with a line, which ends in \n, for each.

    Up to Python 3.12, `csv.writer` quotes a carriage return only where its own lines end in one, and readers take one
    without quotes for the end of a line. So its lines end in \r\n here, and then the carriage return is taken away.
    """
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(records)
    return "".join(f"{line[:-2]}\n" for line in lines)


def csv_of_columns(heads: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The same with `heads` above; a row that lacks one of them, or has None, has an empty cell there."""
    return csv_text([heads, *([row.get(head) for head in heads] for row in rows)])
