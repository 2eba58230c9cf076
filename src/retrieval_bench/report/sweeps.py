"""Sweeps of a record: what each value finds and costs, as a table and a picture, and one sentence of advice."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.records.sweeps import OptionSweep, Point
from retrieval_bench.report import plots
from retrieval_bench.report.lines import aligned, three_digits
from retrieval_bench.report.markup import Markup, joined, tag
from retrieval_bench.report.plots import Axis, Spot
from retrieval_bench.system.files import write_whole

INK, GRID, BLUE, RUST = "#222222", "#e4e4e4", "#0b4fa8", "#c4522b"


def grid(sweep: OptionSweep) -> list[list[str]]:
    """Heads, exact search, then a line for each value; a star marks the front."""
    heads = [sweep.option, "found", "on train", "accuracy", "d", "95 %", "map@r", "d", "queries/s", "p50 ms", "MB"]
    exact = [f"{sweep.exact_scores.get(name, 0.0):.3f}" for name in ("accuracy", "map@r")]
    times = [f"{sweep.exact_rate:,.0f}", f"{sweep.exact_p50_ms:.3f}"]
    lines = [heads, ["exact", "1.0000", "1.0000", exact[0], "", "", exact[1], "", *times, ""]]
    for one in sweep.points:
        accuracy, map_at_r = one.differences["accuracy"], one.differences["map@r"]
        reach = "n/a" if accuracy.low is None or accuracy.high is None else f"{accuracy.low:+.3f} {accuracy.high:+.3f}"
        marks = ("*" if one.on_front else "") + (" chosen" if one.value == sweep.chosen else "")
        lines.append(
            [
                f"{one.value:g}{marks}",
                *(f"{one.found:.4f}", f"{one.found_on_train:.4f}"),
                *(f"{one.scores['accuracy']:.3f}", f"{accuracy.mean:+.3f}", reach),
                *(f"{one.scores['map@r']:.3f}", f"{map_at_r.mean:+.3f}"),
                *(f"{one.rate:,.0f}", f"{one.p50_ms:.3f}", f"{one.index_bytes / 1e6:.1f}"),
            ]
        )
    return lines


def advice(sweep: OptionSweep) -> str:
    """Which value is chosen, why, and what the queries say of it."""
    where = f"{sweep.train:,} training items asking {sweep.gallery:,} rows"
    best = max(sweep.points, key=lambda one: one.found_on_train)
    if sweep.chosen is None:
        return (
            f"No value finds {sweep.wanted:g} of the {sweep.k} nearest on train ({where}); {sweep.option}="
            f"{best.value:g} finds most, {best.found_on_train:.4f}. Sweep further, or take exact search."
        )
    one = chosen(sweep)
    share = one.rate / sweep.exact_rate
    told = f"finds {one.found:.4f} of what exact search finds at {three_digits(share)} times its queries/s"
    lost = one.differences["accuracy"]
    within = lost.low is not None and lost.high is not None and lost.low <= 0 <= lost.high
    cost = "no difference in accuracy that can be told" if within else f"accuracy changes by {lost.mean:+.3f}"
    slower = " Exact search is faster here: take it." if share < 1 else ""
    return (
        f"Chosen on train: {sweep.option}={one.value:g}, the fastest that finds {sweep.wanted:g} there ({where}). On "
        f"the {sweep.queries:,} queries it {told}; {cost}.{slower}"
    )


def chosen(sweep: OptionSweep) -> Point:
    """The point of the chosen value."""
    return next(one for one in sweep.points if one.value == sweep.chosen)


def title(sweep: OptionSweep) -> str:
    """color on faiss:hnsw: ef from 16 to 512"""
    low, high = sweep.points[0].value, sweep.points[-1].value
    return f"{sweep.method} on {sweep.backend}: {sweep.option} from {low:g} to {high:g}"


def text(sweep: OptionSweep) -> str:
    """Title, table and advice."""
    return "\n".join([title(sweep), *aligned(grid(sweep)), "*: on the front, on train.", advice(sweep)])


def section(sweeps: tuple[OptionSweep, ...]) -> Markup | None:
    """Of a page; None where there are none."""
    if not sweeps:
        return None
    parts = []
    for sweep in sweeps:
        rate = Axis(
            "queries/s", *plots.around([one.rate for one in sweep.points] + [sweep.exact_rate], log=True), log=True
        )
        figures = [_figure(sweep, rate, "found"), _figure(sweep, rate, "accuracy")]
        heads, *cells = grid(sweep)
        body = [tag("tr", tag("th", line[0], scope="row"), [tag("td", cell) for cell in line[1:]]) for line in cells]
        table = tag("table", tag("thead", tag("tr", [tag("th", head) for head in heads])), tag("tbody", body))
        parts.append(
            joined(
                tag("h3", title(sweep)),
                tag("p", advice(sweep)),
                tag("div", figures, class_="charts two"),
                tag("div", table, class_="scroll"),
            )
        )
    return joined(*parts)


def _figure(sweep: OptionSweep, rate: Axis, what: str) -> Markup:
    spots = []
    for one in sweep.points:
        y = one.found if what == "found" else one.scores["accuracy"]
        low, high = _reach(sweep, one, what)
        spots.append(Spot(f"{sweep.option}={one.value:g}", 0, one.rate, y, low, high))
    spots.append(Spot("exact", 1, sweep.exact_rate, 1.0 if what == "found" else sweep.exact_scores["accuracy"]))
    ends = [end for spot in spots for end in (spot.y, spot.low, spot.high) if end is not None]
    low, high = plots.around(ends)
    axis = Axis(what, max(0.0, low), min(1.0, high))
    drawn = plots.spots(spots, [], rate, axis, f"{what} against queries/s")
    name = f"Found of the {sweep.k} nearest" if what == "found" else "Accuracy"
    bars = "95 % interval" if what == "found" else "95 % interval of the difference to exact search"
    told = f", against queries/s; up and to the right is better. Bars: {bars}"
    return tag("figure", tag("figcaption", tag("b", name), told), drawn)


def _reach(sweep: OptionSweep, one: Point, what: str) -> tuple[float | None, float | None]:
    """The ends of the bar of a point: of accuracy, what the difference to exact search may be, laid on exact search."""
    if what == "found":
        return (None, None) if one.found_interval is None else (one.found_interval.low, one.found_interval.high)
    away, exact = one.differences["accuracy"], sweep.exact_scores["accuracy"]
    return (None, None) if away.low is None or away.high is None else (exact + away.low, exact + away.high)


def draw(sweep: OptionSweep, file: Path) -> None:
    """Write a PNG: what is found, and accuracy, against queries/s. BenchError where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("the picture needs matplotlib: pip install matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.4), facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for axis, what in zip(panels, ("found", "accuracy"), strict=True):
        ys = [one.found if what == "found" else one.scores["accuracy"] for one in sweep.points]
        xs = [one.rate for one in sweep.points]
        axis.plot(xs, ys, "-", color=BLUE, linewidth=1.2, alpha=0.5)
        for one, x, y in zip(sweep.points, xs, ys, strict=True):
            face = BLUE if one.on_front else "white"
            low, high = _reach(sweep, one, what)
            if low is not None and high is not None:
                axis.plot([x, x], [low, high], "-", color=BLUE, linewidth=1.6, alpha=0.45)
            axis.plot([x], [y], "o", color=BLUE, markerfacecolor=face, markersize=9 if one.value == sweep.chosen else 5)
            axis.annotate(f"{one.value:g}", (x, y), textcoords="offset points", xytext=(5, -11), color=INK, fontsize=8)
        exact = 1.0 if what == "found" else sweep.exact_scores["accuracy"]
        axis.plot([sweep.exact_rate], [exact], "D", color=RUST, markersize=7)
        axis.annotate(
            "exact", (sweep.exact_rate, exact), textcoords="offset points", xytext=(7, 5), color=RUST, fontsize=9
        )
        bars = "95 %" if what == "found" else "95 % of the difference to exact"
        name = f"found of the {sweep.k} nearest" if what == "found" else "accuracy"
        axis.set_title(f"{name} (bars: {bars})", loc="left", color=INK, size=11)
        axis.set_xscale("log")
        for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
            ticks(lambda value, _: f"{value:,.0f}" if f"{value:.0e}"[0] in "125" else "")
        axis.set_xlabel("queries/s, all in one batch", color=INK, size=9)
        axis.margins(0.12, 0.15)
        axis.grid(color=GRID, linewidth=0.8)
        axis.tick_params(length=0, colors=INK, labelsize=9)
        for spine in axis.spines.values():
            spine.set_visible(False)
    where = f"{sweep.gallery:,} rows, {sweep.threads} threads, {sweep.environment.processor}"
    figure.suptitle(f"{title(sweep)} ({where})".replace("$", r"\$"), x=0.01, ha="left", color=INK, size=11)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_whole(file, picture.getvalue())
