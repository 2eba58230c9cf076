"""How much accuracy is left with perturbed queries: a small table, the curves as data, and as a picture."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.report.lines import aligned
from retrieval_bench.system.files import write_whole

MEANS = (
    "Accuracy with perturbed queries, mean over the severities. kept: mean over the perturbations of the row, as a "
    "share of the clean accuracy."
)
INK, GRID = "#222222", "#e4e4e4"
COLOURS = ("#0b4fa8", "#c4522b", "#2a7f3f", "#8a4fbf", "#b8860b", "#0f8b8d", "#b03060", "#5a5a5a")
DASHES = ("-", "--", ":", "-.")


def curves(record: Record, metric: str) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Method -> perturbation -> (severity, score), ascending; severity 0 is the clean pass. Rows without are absent."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in record.rows:
        for one in row.robustness:
            points = found.setdefault(row.method, {}).setdefault(one.perturbation, [(0, row.scores[metric])])
            points.append((one.severity, one.scores[metric]))
    return found


def perturbations(record: Record) -> list[str]:
    """In the order in which they were run."""
    return list(dict.fromkeys(one.perturbation for row in record.rows for one in row.robustness))


def grid(record: Record) -> list[list[str]]:
    """Heads, then a line of cells for each row that was asked with perturbed queries."""
    names = perturbations(record)
    lines = [["method", "clean", *names, "kept"]]
    for row in record.rows:
        if row.robustness:
            means = [_mean(row, name) for name in names]
            known = [mean for mean in means if mean is not None]
            clean = row.scores["accuracy"]
            kept = f"{sum(known) / len(known) / clean:.0%}" if clean else "n/a"
            cells = ("-" if mean is None else f"{mean:.3f}" for mean in means)
            lines.append([row.method, f"{clean:.3f}", *cells, kept])
    return lines


def text(record: Record) -> str:
    """The same in columns."""
    return "\n".join([*aligned(grid(record)), MEANS])


def draw(record: Record, file: Path, metric: str = "accuracy") -> None:
    """Write a PNG: one panel for each perturbation, one line for each method."""
    data = curves(record, metric)
    if not data:
        raise BenchError("--curves: this record has no perturbed queries; run again with --perturb all")
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--curves needs matplotlib: pip install matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = perturbations(record)
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(1.5 + 3.6 * across, 0.6 + 2.9 * down), facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    last = max(one.severity for row in record.rows for one in row.robustness)
    for axis, name in zip(axes, names, strict=False):
        for number, (method, of) in enumerate(data.items()):
            if name not in of:
                continue  # it changes what the queries of this method do not have
            xs, ys = zip(*of[name], strict=True)
            style = DASHES[number // len(COLOURS) % len(DASHES)]
            colour = COLOURS[number % len(COLOURS)]
            axis.plot(xs, ys, style, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=_plain(method))
        axis.set_title(name, loc="left", color=INK, size=11)
        axis.set_xlabel("severity (0: clean)", color=INK, size=9)
        axis.set_xlim(-0.2, last + 0.2)
        axis.set_ylim(bottom=0)
        axis.grid(color=GRID, linewidth=0.8)
        axis.tick_params(length=0, colors=INK, labelsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        for spine in axis.spines.values():
            spine.set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    drawn: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            drawn.setdefault(label, handle)
    order = [_plain(method) for method in data if _plain(method) in drawn]
    figure.legend([drawn[label] for label in order], order, loc="outside right upper", frameon=False, fontsize=9)
    title = f"{metric} of perturbed queries, {record.dataset.name}"
    figure.suptitle(_plain(title), x=0.01, ha="left", color=INK, size=12)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_whole(file, picture.getvalue(), option="--curves")


def _mean(row: Row, name: str) -> float | None:
    """None where the perturbation changes what the row's queries do not have."""
    values = [one.scores["accuracy"] for one in row.robustness if one.perturbation == name]
    return sum(values) / len(values) if values else None


def _plain(words: str) -> str:
    """A $ would begin a formula."""
    return words.replace("$", r"\$")
