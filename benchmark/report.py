"""`report`: records as one page that opens anywhere, or as Markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.forms import form_by_ending, refuse_place
from benchmark.options import (
    AllowHost,
    AllowOutside,
    Costs,
    DataRoot,
    MaxBytes,
    MaxFit,
    MaxP95,
    OfImages,
    Plugins,
    Prefer,
)
from retrieval_bench.core import BenchError, printable


class ReportFormat(StrEnum):
    html = "html"
    md = "md"
    csv = "csv"
    latex = "latex"
    json = "json"


_ENDINGS = {
    "": ReportFormat.html,
    ".html": ReportFormat.html,
    ".htm": ReportFormat.html,
    ".md": ReportFormat.md,
    ".csv": ReportFormat.csv,
    ".tex": ReportFormat.latex,
    ".json": ReportFormat.json,
}


@command(app, "report")
def report_command(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORD...", help="Each is a run.json, or the folder that holds it.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Output file. Default: report.html; other formats go to stdout."),
    ] = None,
    form: Annotated[
        ReportFormat | None,
        typer.Option(
            "--format", help="json holds every number that the page draws. Default: what --out ends in, else html."
        ),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    no_images: Annotated[
        bool, typer.Option("--no-images", help="Show no images of the dataset, and do not look for the dataset.")
    ] = False,
    recommended: Annotated[
        bool,
        typer.Option(
            "--recommend", help="Begin with what `recommend` says of these records; its limits below imply this."
        ),
    ] = False,
    max_p95_ms: MaxP95 = None,
    max_bytes: MaxBytes = None,
    max_fit_s: MaxFit = None,
    images: OfImages = None,
    prefer: Prefer = None,
    costs: Costs = None,
) -> None:
    """Write records as one HTML page with tables, plots and failures with images; or as Markdown, LaTeX, ..."""
    from retrieval_bench.report import formats
    from retrieval_bench.report.evidence import gather
    from retrieval_bench.system.files import write_whole

    place = Path("report.html") if out is None else out
    if out is not None or form in (None, ReportFormat.html):
        refuse_place(place, "report.html", records)
    if form is None:
        form = form_by_ending(place, _ENDINGS)
    if form is ReportFormat.html:
        out = place
    asked = (max_p95_ms, max_bytes, max_fit_s, images, prefer, costs)
    recommended = recommended or any(one is not None for one in asked)
    if recommended and form is not ReportFormat.html:
        raise BenchError(
            f"--format {form}: a recommendation stands on the page alone; `recommend --json` has it as data"
        )
    drawn = form in (ReportFormat.html, ReportFormat.json)
    if not drawn and data_root is not None:
        raise BenchError(f"--data-root is of the pictures that html and json show; leave it out of --format {form}")
    looked_for = drawn and not no_images
    found = [gather(path, data_root, looked_for) for path in dict.fromkeys(records)]
    if form is ReportFormat.html:
        from retrieval_bench.report.page import render

        first = []
        if recommended:
            from retrieval_bench.choosing.advice_page import section
            from retrieval_bench.choosing.cost_file import measured_search
            from retrieval_bench.choosing.recommend import PREFERRED, ChoiceQuestion, recommend

            question = ChoiceQuestion(max_p95_ms, max_bytes, max_fit_s, images, prefer or PREFERRED)
            first = [section(recommend(found, question, None if costs is None else measured_search(costs)))]
        text = render(found, first=first)
    else:
        from retrieval_bench.report.latex import latex

        made = {
            ReportFormat.md: formats.markdown,
            ReportFormat.csv: formats.tidy_csv,
            ReportFormat.latex: latex,
            ReportFormat.json: formats.as_json,
        }
        text = made[form](found)
    if out is None:
        say(text, nl=False)
        return
    write_whole(out, text.encode())
    for evidence in found:
        for missing in (evidence.no_arrays if drawn else "", evidence.no_dataset if looked_for else ""):
            if missing:
                typer.echo(f"{evidence.name}: {missing}", err=True)
    typer.echo(f"report: {printable(out)} ({len(text.encode()) / 1024:,.0f} KiB)", err=True)
