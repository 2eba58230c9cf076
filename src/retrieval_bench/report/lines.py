"""Cells in columns, for a terminal, and what stands in a cell."""

from __future__ import annotations

from collections.abc import Sequence


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


def three_digits(value: float) -> str:
    """About three significant digits and never an exponent: 0.0123, 1.23, 12.3, 1,234."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:.{digits}f}"
