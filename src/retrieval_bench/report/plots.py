"""Charts as SVG: a few shapes of our own, coloured by the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from retrieval_bench.report.lines import shortened, three_digits
from retrieval_bench.report.markup import Markup, joined, tag

COLOURS = 10
"""Colours there are; further series take them again with another dash."""

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 42
_LETTER = 7.2  # width of a letter at 12 px, on average, in a wide typeface


@dataclass(frozen=True)
class Axis:
    """What one direction shows, from low to high; of a logarithmic one both are above 0."""

    label: str
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """0 at low, 1 at high."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


@dataclass(frozen=True)
class Series:
    """A line. series: its number, which decides the colour; control: drawn faintly."""

    name: str
    series: int
    points: Sequence[tuple[float, float]]
    control: bool = False


@dataclass(frozen=True)
class Spot:
    """A point with an interval of y, where that is known."""

    name: str
    series: int
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Reach:
    """A median and what lies above it."""

    name: str
    series: int
    p50: float
    p95: float | None
    p99: float | None


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high: steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    rough = 10.0 ** math.floor(math.log10(span / most))
    step = next(rough * factor for factor in (1, 2, 5, 10, 20) if span / (rough * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 12) for place in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; 1, 2 and 5 times them where there are fewer than three."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(inside) >= 3:
            break
    return inside[:: max(1, math.ceil(len(inside) / 7))]


def around(values: Sequence[float], log: bool = False) -> tuple[float, float]:
    """An axis range that leaves some room on both sides of the values."""
    low, high = min(values), max(values)
    if log:
        room = max((high / low) ** 0.12, 1.5)
        return low / room, high * room
    room = max((high - low) * 0.08, 0.01)
    return low - room, high + room


def amount(value: float) -> str:
    """A tick: as short as it can be written."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:g}"


def letter_width(text: str) -> float:
    """About how wide a text is in a chart."""
    return len(text) * _LETTER


def colour(series: int) -> str:
    """Class names of the series of this number."""
    return f"s{series % COLOURS} d{series // COLOURS % 4}"


def lines(series: Sequence[Series], x: Axis, y: Axis, title: str, diagonal: bool = False) -> Markup:
    """One line each; the legend is the page's."""
    drawn = []
    if diagonal:
        drawn.append(path_of([(x.low, y.low), (x.high, y.high)], x, y, "chance"))
    for one in series:
        kind = "line control" if one.control else "line"
        drawn.append(path_of(one.points, x, y, f"{kind} {colour(one.series)} on-{one.series}", one.name))
    return frame(x, y, title, drawn)


def clouds(series: Sequence[Series], x: Axis, y: Axis, title: str) -> Markup:
    """Points of a colour each, which no line joins; the legend is the page's."""
    drawn = [
        tag(
            "circle",
            tag("title", f"{one.name}: {three_digits(across)}, {three_digits(down)}"),
            cx=x_at(x, across),
            cy=y_at(y, down),
            r=4,
            class_=f"spot {colour(one.series)}",
        )
        for one in series
        for across, down in one.points
    ]
    return frame(x, y, title, drawn)


def spots(
    points: Sequence[Spot], front: Sequence[str], x: Axis, y: Axis, title: str, limit: float | None = None
) -> Markup:
    """Points with names beside them, and steps along the front: what no other point beats.

    limit: an upright line at this x, where it lies on the axis.
    """
    placed = {point.name: (x_at(x, point.x), y_at(y, point.y)) for point in points}
    drawn: list[Markup] = []
    if limit is not None and x.low <= limit <= x.high:
        said = f"limit {amount(limit)}"
        drawn.append(path_of([(limit, y.low), (limit, y.high)], x, y, "limit", said))
        left = x_at(x, limit) + 4 if x.at(limit) < 0.8 else x_at(x, limit) - 4
        anchor = "start" if x.at(limit) < 0.8 else "end"
        drawn.append(tag("text", said, x=left, y=TOP + 10, text_anchor=anchor, class_="tick"))
    best = [point for name in front for point in points if point.name == name]
    if best:
        steps = [(best[0].x, best[0].y)]
        for before, after in pairwise(best):
            steps += [(after.x, before.y), (after.x, after.y)]
        drawn.append(path_of([*steps, (x.high, best[-1].y)], x, y, "front"))
    for point in points:
        across, down = placed[point.name]
        if point.low is not None and point.high is not None:
            drawn.append(
                tag(
                    "line",
                    x1=across,
                    x2=across,
                    y1=y_at(y, max(point.low, y.low)),
                    y2=y_at(y, min(point.high, y.high)),
                    class_=f"whisker {colour(point.series)}",
                )
            )
    taken = [(across - 6, down - 6, across + 6, down + 6) for across, down in placed.values()]
    for point in sorted(points, key=lambda one: (one.name not in front, -one.y)):
        across, down = placed[point.name]
        said = tag("title", f"{point.name}: {three_digits(point.x)}, {point.y:.3f}")
        kind = "spot" if point.name in front else "spot beaten"
        drawn.append(tag("circle", said, cx=across, cy=down, r=5, class_=f"{kind} {colour(point.series)}"))
        name = shortened(point.name)
        spot = _free(across, down, len(name) * _LETTER, taken)
        if spot is not None:
            left, base, anchor, box = spot
            taken.append(box)
            drawn.append(tag("text", name, x=left, y=base, text_anchor=anchor, class_="name"))
    return frame(x, y, title, drawn)


_Box = tuple[float, float, float, float]


def _free(across: float, down: float, width: float, taken: Sequence[_Box]) -> tuple[float, float, str, _Box] | None:
    """Where a label of this width finds room near a point: x, baseline, anchor and box; None where it finds none."""
    choices = []
    for shift in (-9, 12, 0, -22, 25):
        choices.append((across + 9, down + 4 + shift, "start", across + 9))
        choices.append((across - 9, down + 4 + shift, "end", across - 9 - width))
        if abs(shift) > 10:
            choices.append((across, down + 4 + shift, "middle", across - width / 2))
    for left, base, anchor, edge in choices:
        box = (edge, base - 10, edge + width, base + 3)
        inside = box[0] >= LEFT + 2 and box[2] <= WIDTH - 2 and box[1] >= 2 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
        ):
            return left, base, anchor, box
    return None


def reaches(rows: Sequence[Reach], x: Axis, title: str) -> Markup:
    """A row for each method: a dot at the median, a thick line to the 95th percentile, a thin one to the 99th."""
    names = [shortened(row.name) for row in rows]
    left = max(map(len, names)) * _LETTER + 14
    step, top = 21, 6
    height = top + step * len(rows) + 36
    width = WIDTH - left - 52

    def across(value: float) -> float:
        return left + x.at(value) * width

    drawn = []
    for tick in x.ticks():
        at = across(tick)
        drawn.append(tag("line", x1=at, x2=at, y1=top, y2=top + step * len(rows), class_="grid"))
        drawn.append(tag("text", amount(tick), x=at, y=height - 22, text_anchor="middle", class_="tick"))
    drawn.append(tag("text", x.label, x=left + width / 2, y=height - 5, text_anchor="middle", class_="axis"))
    for number, row in enumerate(rows):
        down = top + step * number + step / 2
        drawn.append(tag("text", tag("title", row.name), names[number], x=left - 8, y=down + 4, class_="name end"))
        last = row.p50
        for kind, value in (("far", row.p99), ("near", row.p95)):
            if value is not None:
                last = max(last, value)
                shape = f"{kind} {colour(row.series)}"
                drawn.append(tag("line", x1=across(row.p50), x2=across(value), y1=down, y2=down, class_=shape))
        parts = [("p50", row.p50), ("p95", row.p95), ("p99", row.p99)]
        said = ", ".join(f"{name} {three_digits(value)} ms" for name, value in parts if value is not None)
        dot = tag("title", f"{row.name}: {said}")
        drawn.append(tag("circle", dot, cx=across(row.p50), cy=down, r=4.5, class_=f"spot {colour(row.series)}"))
        drawn.append(tag("text", three_digits(row.p50), x=across(last) + 8, y=down + 4, class_="tick"))
    return svg(title, WIDTH, height, drawn)


def whisker(value: float, low: float | None, high: float | None, least: float, most: float, series: int) -> Markup:
    """A mark at the value on a line from low to high, small enough for a table's cell."""
    axis = Axis("", least, most)
    width, middle = 76, 8

    def across(one: float) -> float:
        return 4 + axis.at(one) * (width - 8)

    drawn = [tag("line", x1=4, x2=width - 4, y1=middle, y2=middle, class_="rail")]
    if low is not None and high is not None:
        drawn.append(
            tag("line", x1=across(low), x2=across(high), y1=middle, y2=middle, class_=f"near {colour(series)}")
        )
    drawn.append(tag("circle", cx=across(value), cy=middle, r=2.8, class_=f"spot {colour(series)}"))
    return tag("svg", drawn, viewBox=f"0 0 {width} 16", width=width, height=16, class_="small", aria_hidden="true")


def frame(x: Axis, y: Axis, title: str, drawn: Sequence[Markup]) -> Markup:
    """A chart of two axes with what is drawn in it."""
    behind = []
    for tick in y.ticks():
        down = y_at(y, tick)
        behind.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=down, y2=down, class_="grid"))
        behind.append(tag("text", amount(tick), x=LEFT - 7, y=down + 4, class_="tick end"))
    for tick in x.ticks():
        across = x_at(x, tick)
        behind.append(tag("line", x1=across, x2=across, y1=TOP, y2=HEIGHT - BOTTOM, class_="grid"))
        half = len(amount(tick)) * _LETTER / 2  # a number that would leave the picture stands at its end
        at = min(across, WIDTH - half)
        behind.append(tag("text", amount(tick), x=at, y=HEIGHT - BOTTOM + 16, text_anchor="middle", class_="tick"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    behind.append(tag("text", x.label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, text_anchor="middle", class_="axis"))
    turned = f"rotate(-90 11 {middle:g})"
    behind.append(tag("text", y.label, x=11, y=middle, transform=turned, text_anchor="middle", class_="axis"))
    return svg(title, WIDTH, HEIGHT, [*behind, *drawn])


def svg(title: str, width: float, height: float, drawn: Sequence[Markup]) -> Markup:
    """A chart as wide as there is room. title: what it shows, for who does not see it."""
    return tag("svg", drawn, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_="chart")


def path_of(points: Sequence[tuple[float, float]], x: Axis, y: Axis, kind: str, name: str = "") -> Markup:
    """A line through points."""
    xy = " ".join(f"{x_at(x, one):.1f},{y_at(y, other):.1f}" for one, other in points)
    return tag("polyline", tag("title", name) if name else None, points=xy, class_=kind)


def x_at(axis: Axis, value: float) -> float:
    """Where a value of the first axis lies in the chart."""
    return LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def y_at(axis: Axis, value: float) -> float:
    """Where a value of the second axis lies in the chart."""
    return HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - TOP - BOTTOM)


def legend(names: Sequence[tuple[str, int]]) -> Markup:
    """Names with their colours, as a list; pointing at one fades the other lines of the same figure."""
    return joined(
        tag(
            "ul",
            [
                tag(
                    "li",
                    tag(
                        "svg",
                        tag("line", x1=1, x2=21, y1=6, y2=6, class_=f"line {colour(series)}"),
                        viewBox="0 0 22 12",
                        width=22,
                        height=12,
                        aria_hidden="true",
                    ),
                    name,
                    class_=f"key-{series}",
                )
                for name, series in names
            ],
            class_="legend",
        )
    )
