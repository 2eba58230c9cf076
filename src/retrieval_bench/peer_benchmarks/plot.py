"""Time against gallery size as a picture: one line a rival, labelled where it ends."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.measurement import Result, names
from retrieval_bench.system.files import write_whole

# Ours in two blues and thicker; peers in greys and muted tones that stay apart in print and for the colour-blind.
COLOURS = {
    "float32": "#0b4fa8",
    "int8": "#3f9be8",
    "numpy": "#8c6d1f",
    "torch": "#c4522b",
    "faiss": "#3d7a4a",
    "usearch": "#8a5aa8",
    "numkong": "#b0722f",
    "sklearn": "#777777",
    "sklearn64": "#a8a8a8",
}
LABELS = {
    "float32": "ours, float32",
    "int8": "ours, int8 certified",
    "sklearn": "scikit-learn",
    "sklearn64": "scikit-learn, float64",
}
INK, GRID = "#222222", "#e4e4e4"

_LABEL_GAP = 0.045  # of the height of the (logarithmic) axis, so that two labels do not touch


def draw(panels: Mapping[str, Sequence[Result]], file: Path) -> None:
    """Write a PNG: one panel for each entry, title -> results over growing galleries of one dimension."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(panels), 5.2), facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, results) in zip(axes, panels.items(), strict=True):
        _panel(axis, title, results)
    shape = next(iter(panels.values()))[0].shape
    figure.suptitle(
        f"Time of an exact search of the {shape.k} nearest, {shape.dim} dimensions",
        x=0.01,
        ha="left",
        color=INK,
        size=14,
    )
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_whole(file, picture.getvalue())


def _panel(axis: Any, title: str, results: Sequence[Result]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ends: dict[str, float] = {}
    rows = [result.shape.rows for result in results]
    for name in names(results):
        points = [(result.shape.rows, time) for result in results if (time := result.ms(name)) is not None]
        own = name in ("float32", "int8")
        axis.plot(
            *zip(*points, strict=True),
            color=COLOURS[name],
            linewidth=2.6 if own else 1.5,
            marker="o",
            markersize=4.5 if own else 3,
            zorder=3 if own else 2,
            solid_capstyle="round",
        )
        ends[name] = points[-1][1]
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    for name, height in _spread(ends, (high / low) ** _LABEL_GAP).items():
        axis.annotate(
            LABELS.get(name, name),
            xy=(rows[-1], ends[name]),
            xytext=(rows[-1] * 1.25, height),
            color=COLOURS[name],
            va="center",
            size=10.5,
            weight="bold" if name in ("float32", "int8") else "normal",
            arrowprops={"arrowstyle": "-", "color": COLOURS[name], "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
            annotation_clip=False,
        )
    axis.set_xscale("log")
    axis.set_xlim(rows[0] / 1.15, rows[-1] * 1.15)
    axis.xaxis.set_major_locator(LogLocator(10))
    axis.xaxis.set_minor_formatter(NullFormatter())
    for one_axis in (axis.xaxis, axis.yaxis):
        one_axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="both", length=0, colors=INK, labelsize=10)
    axis.grid(which="major", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title(f"{title}: milliseconds", loc="left", color=INK, size=12)
    axis.set_xlabel("gallery rows", color=INK, size=11)


def _spread(ends: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights for the labels: near the ends of their lines, in the same order, each at least `gap` times the last."""
    order = sorted(ends, key=lambda name: ends[name])
    heights = {name: ends[name] for name in order}
    for _ in range(50):
        for below, above in pairwise(order):
            factor = heights[above] / heights[below]
            if factor < gap:
                push = (gap / factor) ** 0.5 * 1.001
                heights[below] /= push
                heights[above] *= push
    return heights
