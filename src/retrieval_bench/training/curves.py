"""How a training went, as a picture, and for TensorBoard."""

from __future__ import annotations

import importlib.util
import io
import os
import time
from collections.abc import Sequence
from pathlib import Path

from retrieval_bench.core import BenchError
from retrieval_bench.system import event_files
from retrieval_bench.system.csv_text import csv_text
from retrieval_bench.system.event_files import write_events
from retrieval_bench.system.files import write_whole
from retrieval_bench.training_loop.epochs import Epoch

INK, GRID, LOSS, ACCURACY = "#222222", "#e4e4e4", "#c4522b", "#0b4fa8"
HELD_OUT = "mean average precision among held-out products"
"""What chooses the epoch of a training on pairs."""


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(history: Sequence[Epoch], title: str, file: Path, score: str = "validation accuracy") -> None:
    """Write a PNG: loss, score where there is one, and learning rate, over epochs. score: what it is called."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = [("loss", [line.loss for line in history], LOSS)]
    validated = [(line.epoch, line.accuracy) for line in history if line.accuracy is not None]
    if validated:
        series.append((score, [accuracy for _, accuracy in validated], ACCURACY))
    series.append(("learning rate", [line.rate for line in history], INK))
    figure = Figure(figsize=(4.2 * len(series), 3.4), facecolor="white", layout="constrained")
    canvas = FigureCanvasAgg(figure)
    epochs = [line.epoch for line in history]
    for axis, (name, values, colour) in zip(figure.subplots(1, len(series), squeeze=False)[0], series, strict=True):
        axis.plot(epochs, values, color=colour, linewidth=2, marker="o", markersize=3)
        axis.set_title(name, loc="left", color=INK, size=11)
        axis.set_xlabel("epoch", color=INK, size=10)
        axis.grid(color=GRID, linewidth=0.8)
        axis.tick_params(length=0, colors=INK, labelsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", color=INK, size=12)
    picture = io.BytesIO()
    canvas.print_png(picture)
    write_whole(file, picture.getvalue())


def as_csv(history: Sequence[Epoch], file: Path, score: str) -> None:
    """Write a table with a line for each epoch. score: what its third column is called; empty where there is none."""
    lines = [["epoch", "loss", score, "learning rate", "seconds"]]
    for line in history:
        judged = "" if line.accuracy is None else f"{line.accuracy:.6f}"
        lines.append([str(line.epoch), f"{line.loss:.6f}", judged, f"{line.rate:.8f}", f"{line.seconds:.3f}"])
    write_whole(file, csv_text(lines).encode())


def tensorboard(history: Sequence[Epoch], folder: Path, score: str = "validation accuracy") -> None:
    """Write the scalars of all epochs as one event file into `folder`. score: what is held out, as in `draw`."""
    need_tensorboard()
    now = time.time()
    values = []
    for line in history:
        values += [(line.epoch, "loss/train", line.loss), (line.epoch, "learning rate", line.rate)]
        if line.accuracy is not None:
            held = "accuracy/validation" if score != HELD_OUT else "map/held-out products"
            values.append((line.epoch, held, line.accuracy))
    file = folder / f"events.out.tfevents.{int(now)}.{os.getpid()}"
    try:
        write_events(file, values, now, option="--tensorboard")
    except BenchError as error:
        raise BenchError(f"{error}; the weights are saved") from None


def need_tensorboard() -> None:
    event_files.need_tensorboard("--tensorboard", "train")
