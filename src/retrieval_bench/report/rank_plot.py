"""The critical-difference diagram, turned by 90 degrees so that names of methods find room: a row for each method."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from retrieval_bench.report.lines import shortened
from retrieval_bench.report.markup import Markup, tag
from retrieval_bench.report.plots import WIDTH, amount, colour, letter_width, svg


@dataclass(frozen=True)
class RankReach:
    """A method's mean rank, and its interval where there is one."""

    name: str
    series: int
    mean: float
    low: float | None = None
    high: float | None = None


def rank_plot(rows: Sequence[RankReach], groups: Mapping[str, str], title: str) -> Markup:
    """Mean ranks, the best on top; bars on the right join methods that cannot be told apart.

    groups: method -> letters; methods that share one are joined by a bar, with a dot at each of them. Empty: no bars.
    """
    held = [re.findall(r"[a-z]\d*", groups.get(row.name, "")) for row in rows]  # a, b, ..., z, a2, ...
    letters = list(dict.fromkeys(letter for own in held for letter in own))
    members = {letter: [place for place, own in enumerate(held) if letter in own] for letter in letters}
    bars = [places for places in members.values() if len(places) > 1]
    left = max(letter_width(shortened(row.name)) for row in rows) + 14
    step, top, aside = 24, 6, 14 * len(bars) + (10 if bars else 0)
    height = top + step * len(rows) + 36
    wide = WIDTH - left - aside - 40
    most = len(rows)

    def across(rank: float) -> float:
        return left + (rank - 1) / max(1, most - 1) * wide

    drawn = []
    for tick in range(1, most + 1, max(1, -(-most // 8))):
        at = across(tick)
        drawn.append(tag("line", x1=at, x2=at, y1=top, y2=top + step * most, class_="grid"))
        drawn.append(tag("text", amount(tick), x=at, y=height - 22, text_anchor="middle", class_="tick"))
    drawn.append(
        tag("text", "mean rank, 1 is the best", x=left + wide / 2, y=height - 5, text_anchor="middle", class_="axis")
    )
    for number, row in enumerate(rows):
        down = top + step * number + step / 2
        drawn.append(
            tag("text", tag("title", row.name), shortened(row.name), x=left - 8, y=down + 4, class_="name end")
        )
        end = row.mean
        said = f"{row.name}: {row.mean:.2f}"
        if row.low is not None and row.high is not None:
            end = max(end, row.high)
            said += f", 95 % interval {row.low:.2f} to {row.high:.2f}"
            reach = f"near {colour(row.series)}"
            drawn.append(tag("line", x1=across(row.low), x2=across(row.high), y1=down, y2=down, class_=reach))
        dot = tag("title", said)
        drawn.append(tag("circle", dot, cx=across(row.mean), cy=down, r=4.5, class_=f"spot {colour(row.series)}"))
        drawn.append(tag("text", f"{row.mean:.2f}", x=across(end) + 8, y=down + 4, class_="tick"))
    for number, places in enumerate(bars):
        at = WIDTH - aside + 14 + 14 * number
        ends = [top + step * place + step / 2 for place in (places[0], places[-1])]
        said = tag("title", f"cannot be told apart: {', '.join(rows[place].name for place in places)}")
        drawn.append(tag("line", said, x1=at, x2=at, y1=ends[0], y2=ends[1], class_="joint"))
        drawn += [tag("circle", cx=at, cy=top + step * place + step / 2, r=3.5, class_="joint-dot") for place in places]
    return svg(title, WIDTH, height, drawn)
