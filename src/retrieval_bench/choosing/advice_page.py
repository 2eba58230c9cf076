"""Advice as a section of a report: the paragraph, quality against time and bytes with the limits, and the table."""

from __future__ import annotations

from retrieval_bench.choosing import advice_text
from retrieval_bench.choosing.recommend import Advice
from retrieval_bench.report import plots
from retrieval_bench.report.findings import front
from retrieval_bench.report.markup import Markup, joined, tag
from retrieval_bench.report.page import small_table
from retrieval_bench.report.plots import Axis, Spot
from retrieval_bench.report.shell import Section

ANCHOR = "recommendation"


def section(advice: Advice) -> Section:
    """The section, which stands in front of the others."""
    figures = [
        _figure(advice, "Time of a query", "ms a query, 95th percentile, log scale", "p95_ms"),
        _figure(advice, "Size in the gallery", "bytes an image, log scale", "bytes_per_image"),
    ]
    drawn = [figure for figure in figures if figure is not None]
    body = joined(
        tag("p", advice_text.paragraph(advice)),
        [tag("p", sentence, class_="warn") for sentence in advice.warnings],
        tag("div", drawn, class_="charts two") if drawn else None,
        small_table([[method, told, *costs] for method, *costs, told in advice_text.grid(advice)]),
        tag("ul", [tag("li", sentence) for sentence in advice_text.notes(advice)], class_="sentences"),
    )
    return Section(ANCHOR, "Recommendation", body)


def _figure(advice: Advice, title: str, unit: str, key: str) -> Markup | None:
    known = [(one, value) for one in advice.candidates if (value := getattr(one, key)) is not None and value > 0]
    if len(known) < 2:
        return None
    methods = [[row.method for row in record.rows] for record in advice.records]
    points = [
        Spot(one.name, methods[one.record].index(one.method), value, one.quality, one.low, one.high)
        for one, value in known
    ]
    best = [points[place].name for place in front([one.x for one in points], [one.y for one in points])]
    most = next((limit.most for limit in advice.question.limits if limit.key == key), None)
    across = [one.x for one in points] + ([most] if most else [])
    x = Axis(unit, *plots.around(across, log=True), log=True)
    ends = [value for one in points for value in (one.y, one.low, one.high) if value is not None]
    low, high = plots.around(ends)
    metric = advice.question.prefer
    y = Axis(metric, max(0.0, low), min(1.0, high))
    chart = plots.spots(points, best, x, y, f"{metric} against {unit}", most)
    told = f"Filled: on the front of {metric} and this cost alone, {', '.join(best)}."
    return tag("figure", tag("figcaption", tag("b", title)), chart, tag("figcaption", told))
