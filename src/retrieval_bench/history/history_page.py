"""A history as a page: for each dataset its charts over records, with changes ringed and breaks drawn, and tables."""

from __future__ import annotations

from collections.abc import Mapping

from retrieval_bench.history import history_text
from retrieval_bench.history.timeline import History, HistoryFigure, Line, Timeline
from retrieval_bench.report import plots
from retrieval_bench.report.lines import counted, three_digits
from retrieval_bench.report.markup import Markup, joined, tag
from retrieval_bench.report.page import small_table
from retrieval_bench.report.plots import Axis, colour, frame, path_of, x_at, y_at
from retrieval_bench.report.shell import Section, in_place, whole_page


class RecordAxis(Axis):
    """Numbers of records, which are whole."""

    def ticks(self) -> list[float]:
        """At most seven."""
        last = int(self.high)
        return [float(number) for number in range(1, last + 1, max(1, -(-last // 7)))]


def render(found: History) -> str:
    """The page as HTML."""
    sections = [
        Section(f"dataset-{number}", timeline.name, _dataset(timeline))
        for number, timeline in enumerate(found.timelines, start=1)
    ]
    notes = [history_text.HOW, history_text.JOINED, *(f"Left out: {one}" for one in found.left_out)]
    told = tag("ul", [tag("li", one) for one in notes], class_="sentences")
    sections.append(Section("how", "How changes are found", told))
    count = sum(len(timeline.kept) for timeline in found.timelines)
    most = max(len(timeline.methods) for timeline in found.timelines)
    return whole_page(
        "Image retrieval over time",
        f"{counted(count, 'record')} of {counted(len(found.timelines), 'dataset')}",
        [(section.anchor, section.title) for section in sections],
        [in_place(section) for section in sections],
        range(most),
        f"Made by retrieval_bench {found.newest.record.environment.version}. This page loads nothing from the network.",
    )


def _dataset(timeline: Timeline) -> Markup:
    names = history_text.name_map(timeline).short
    series = {method: place for place, method in enumerate(timeline.methods)}
    figures: dict[str, list[Line]] = {}
    for line in timeline.lines:
        figures.setdefault(line.figure.key, []).append(line)
    charts = [_chart(lines[0].figure, lines, timeline, series, names) for lines in figures.values()]
    key = plots.legend([(names[method], number) for method, number in series.items()])
    changes, breaks = history_text.change_grid(timeline), history_text.break_grid(timeline)
    records = small_table(history_text.record_grid(timeline))
    parts = history_text.name_map(timeline).parts
    meanings = [joined(tag("dt", part), tag("dd", tag("code", meaning))) for part, meaning in parts.items()]
    return joined(
        tag("p", history_text.sentence(timeline)),
        tag("div", key, tag("div", charts, class_="charts two"), class_="plotted"),
        tag(
            "p",
            "Ring: a marked change, red for the worse. Dashed line: no line of any method leads across it.",
            class_="note",
        ),
        joined(tag("h3", "Changes"), small_table(changes)) if len(changes) > 1 else None,
        joined(tag("h3", "Breaks"), small_table(breaks)) if len(breaks) > 1 else None,
        tag("dl", meanings, class_="facts key") if meanings else None,
        tag("details", tag("summary", counted(len(timeline.kept), "record")), records),
    )


def _chart(
    figure: HistoryFigure,
    lines: list[Line],
    timeline: Timeline,
    series: Mapping[str, int],
    names: Mapping[str, str],
) -> Markup:
    values = [value for line in lines for part in line.parts for _, value in part]
    log = bool(figure.unit) and min(values) > 0 and max(values) / min(values) > 20
    y = Axis(f"{figure.unit or figure.title}{', log scale' if log else ''}", *plots.around(values, log), log)
    if not figure.unit:
        y = Axis(figure.title, max(0.0, y.low), min(1.0, y.high))
    elif not log:  # at least a tenth of the values, so that a hundredth does not look like a leap
        y = Axis(y.label, min(y.low, 0.95 * min(values)), max(y.high, 1.05 * max(values)))
    x = RecordAxis("record, the oldest first", 0.5, len(timeline.kept) + 0.5)
    drawn: list[Markup] = []
    for at in _everywhere(lines):
        drawn.append(
            path_of([(at + 0.5, y.low), (at + 0.5, y.high)], x, y, "limit", f"no line leads to record {at + 1}")
        )
    for line in lines:
        number = series[line.method]
        for part in line.parts:
            points = [(place + 1.0, value) for place, value in part]
            if len(points) > 1:
                drawn.append(path_of(points, x, y, f"line {colour(number)} on-{number}", names[line.method]))
        rings = {one.at: one for one in line.changes}
        for place, value in (point for part in line.parts for point in part):
            unit = f" {figure.unit}" if figure.unit else ""
            told = three_digits(value) if figure.unit else f"{value:.3f}"
            commit = timeline.kept[place].commit
            said = tag("title", f"{line.method}: {told}{unit}, record {place + 1}, commit {commit}")
            across, down = x_at(x, place + 1.0), y_at(y, value)
            drawn.append(tag("circle", said, cx=across, cy=down, r=2.6, class_=f"spot {colour(number)}"))
            if place in rings:
                kind = "ring" if rings[place].better else "ring worse"
                drawn.append(
                    tag("circle", tag("title", f"marked change of {line.method}"), cx=across, cy=down, r=7, class_=kind)
                )
    title = figure.title
    return tag("figure", tag("figcaption", tag("b", title)), frame(x, y, f"{title} over records", drawn))


def _everywhere(lines: list[Line]) -> list[int]:
    """Records to which no line leads, of all that could."""
    broken = [{at for at, _ in line.breaks} for line in lines if sum(map(len, line.parts)) > 1]
    return sorted(set.intersection(*broken)) if broken else []
