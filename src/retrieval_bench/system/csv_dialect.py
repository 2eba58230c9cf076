"""Which character divides the cells of a CSV file: its first line tells, by the columns that a reader knows."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What may divide cells, and what each is called."""

_HEAD = 1 << 16
"""Characters within which the first line is looked for: a file may be large."""


def told_delimiter(text: str, known: Collection[str]) -> str:
    """The one that divides the first line into most of the known names, and then into most cells.

    Args:
        text: the whole text, or its beginning.
        known: names of columns, in lower case.

    Returns:
        One of DELIMITERS; the first of them where no line tells.
    """
    return max(DELIMITERS, key=lambda delimiter: header(text, delimiter, known))


def header(text: str, delimiter: str, known: Collection[str]) -> tuple[int, int]:
    """How many cells of the first line are known names, and how many there are."""
    reader = csv.reader(io.StringIO(text[:_HEAD], newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        cells = next((row for row in reader if any(cell.strip() for cell in row)), [])
    except csv.Error:
        return 0, 0
    return sum(cell.strip().casefold() in known for cell in cells), len(cells)
