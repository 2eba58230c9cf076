"""Files for the front page of a repository: a badge as SVG and for shields.io, and the newest table as Markdown."""

from __future__ import annotations

import json
import os
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.history.timeline import History
from retrieval_bench.records.scores import is_marked
from retrieval_bench.records.switch import RANKINGS_FILE, RUN_FILE
from retrieval_bench.report import table
from retrieval_bench.report.lines import shortened
from retrieval_bench.report.markup import tag
from retrieval_bench.report.names import names_of
from retrieval_bench.system.files import write_whole

BADGE, ENDPOINT, TABLE = "badge.svg", "badge.json", "table.md"
COLOURS = {"brightgreen": "#3a9d23", "red": "#c33221", "lightgrey": "#8a8f98"}
_LETTER = 6.6
_ROOM = 34


def write_front_page(found: History, folder: Path, metric: str) -> list[Path]:
    """Write the three files into a folder, which is made where it is missing.

    Args:
        found: whose newest record is shown.
        folder: where to.
        metric: whose best is on the badge.

    Returns:
        What was written.

    Raises:
        BenchError: The folder is a record's, whose own table would be lost, or cannot be written.
    """
    if any(os.path.lexists(folder / name) for name in (RUN_FILE, RANKINGS_FILE)):
        raise BenchError(
            f"--front-page {printable(folder)}: is the folder of a record, whose {TABLE} would be lost; name another"
        )
    label, message, colour = badge(found, metric)
    record = found.newest.record
    heading = f"{record.dataset.spec}, {record.created[:10]}, commit {found.newest.commit}"
    contents = {
        BADGE: badge_svg(label, message, colour),
        ENDPOINT: json.dumps({"schemaVersion": 1, "label": label, "message": message, "color": colour}) + "\n",
        TABLE: f"{table.in_a_cell(heading)}\n\n{table.markdown(record)}",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"--front-page {printable(folder)}: cannot be made ({error.strerror}); name another") from None
    for name, content in contents.items():
        write_whole(folder / name, content.encode(), option="--front-page")
    return [folder / name for name in contents]


def badge(found: History, metric: str) -> tuple[str, str, str]:
    """Label, message and colour: the best method of the newest record whose scores its rankings do not contradict; red
    where that record is marked as worse."""
    timeline, newest = found.timelines[0], found.newest
    rows = [
        row
        for row in newest.record.rows
        if row.status == "ok" and row.family != "control" and metric in row.scores and not is_marked(row)
    ]
    if not rows:
        return metric, "no result", "lightgrey"
    best = max(rows, key=lambda row: row.scores[metric])
    last = len(timeline.kept) - 1
    worse = any(one.at == last and not one.better for one in timeline.changes)
    name = shortened(names_of(row.method for row in newest.record.rows).short[best.method], _ROOM)
    told = f"{name} {best.scores[metric]:.3f}"
    return metric, f"{told}, worse" if worse else told, "red" if worse else "brightgreen"


def badge_svg(label: str, message: str, colour: str) -> str:
    """A small picture of two words."""
    left, right = (len(word) * _LETTER + 14 for word in (label, message))
    wide = left + right
    words = [
        tag("text", word, x=at, y=14, fill="#fff", text_anchor="middle")
        for word, at in ((label, left / 2), (message, left + right / 2))
    ]
    drawn = tag(
        "svg",
        tag("title", f"{label}: {message}"),
        tag("rect", width=wide, height=20, rx=3, fill="#4a4f57"),
        tag("rect", x=left, width=right, height=20, rx=3, fill=COLOURS[colour]),
        tag("rect", x=left, width=6, height=20, fill=COLOURS[colour]),
        tag("g", words, font_family="Verdana,DejaVu Sans,sans-serif", font_size=11),
        xmlns="http://www.w3.org/2000/svg",
        width=wide,
        height=20,
        role="img",
        aria_label=f"{label}: {message}",
    )
    return f"{drawn}\n"
