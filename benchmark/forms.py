"""Findings in the form that was asked for: text, a page, Markdown or JSON; to the terminal or a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from benchmark.app import say
from retrieval_bench.core import BenchError, printable


class Form(StrEnum):
    text = "text"
    html = "html"
    md = "md"
    json = "json"


def chosen_form(name: str, out: Path | None, form: Form | None, as_json: bool) -> tuple[Form, Path | None]:
    """The form, and the file: what --json and --format say, else what --out ends in, else text. A page needs a file,
    which is then called as the command is; BenchError where --out is a folder."""
    if out is not None and out.is_dir():
        raise BenchError(f"--out {printable(out)}: is a folder; name a file in it, such as {name}.html")
    if as_json:
        form = Form.json
    if form is None:
        known = out is not None and out.suffix[1:] in Form.__members__
        form = Form(out.suffix[1:]) if out is not None and known else Form.text
    return form, Path(f"{name}.html") if form is Form.html and out is None else out


def tell(name: str, out: Path | None, form: Form, makers: Mapping[Form, Callable[[], Any]]) -> None:
    """Say it, or write it into out, whole. makers: of each form; of json what is to be written as JSON."""
    from retrieval_bench.system.files import write_whole

    made = makers[form]()
    if form is Form.json:
        made = json.dumps(made, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if out is None:
        say(made, nl=False)
        return
    write_whole(out, made.encode())
    typer.echo(f"{name}: {printable(out)} ({len(made.encode()) / 1024:,.0f} KiB)", err=True)
