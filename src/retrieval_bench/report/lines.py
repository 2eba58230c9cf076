"""Cells in columns, for a terminal, and what stands in a cell."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

TERMINAL = 80
"""Characters of a terminal that a table or a paragraph takes at most."""

LONGEST = 28
"""Characters of a name in a chart or a table."""


def shortened(name: str, most: int = LONGEST) -> str:
    """A name without its middle where it is too long: names of methods differ at both ends."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def wrapped(text: str, begin: str = "", rest: str = "") -> list[str]:
    """A paragraph as lines. begin, rest: before the first line, and before each other."""
    return textwrap.wrap(text, TERMINAL, initial_indent=begin, subsequent_indent=rest, break_on_hyphens=False)


def with_short_names(lines: list[list[str]]) -> list[list[str]]:
    """The lines with first cells that are shortened to what the others leave of the width."""
    others = sum(2 + max(len(line[place]) for line in lines) for place in range(1, len(lines[0])))
    return [[shortened(first, max(12, TERMINAL - others)), *rest] for first, *rest in lines]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right, two blanks between them."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    shown = []
    for first, *others in lines:
        cells = [first.ljust(widths[0]), *(cell.rjust(wide) for cell, wide in zip(others, widths[1:], strict=True))]
        shown.append("  ".join(cells).rstrip())
    return shown


def ends(low: float, high: float, digits: int = 3) -> tuple[str, str]:
    """Both ends of an interval within 0 and 1. An end that is not 0 or 1 is not shown as it: 0.9999 as 0.999."""
    step = 10.0**-digits
    inside_low = min(low, 1 - step) if low < 1 else low
    inside_high = max(high, step) if high > 0 else high
    return f"{inside_low:.{digits}f}", f"{inside_high:.{digits}f}"


def signed(value: float) -> str:
    """A difference: +0.012, -0.012, +0.000."""
    return f"{round(value, 3) + 0.0:+.3f}"  # no minus before a zero


def counted(number: int, what: str) -> str:
    """1 record, 2 records."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def three_digits(value: float) -> str:
    """About three significant digits and never an exponent: 0.0123, 1.23, 12.3, 1,234."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:.{digits}f}"
