"""Findings in the form that was asked for: text, a page, Markdown or JSON; to the terminal or a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import typer

from benchmark.app import say
from retrieval_bench.core import BenchError, printable


class Form(StrEnum):
    text = "text"
    html = "html"
    md = "md"
    json = "json"


_ENDINGS = {"": Form.text, ".txt": Form.text, ".html": Form.html, ".htm": Form.html, ".md": Form.md, ".json": Form.json}

T = TypeVar("T")


def refuse_place(out: Path, example: str, records: Sequence[Path] = (), option: str = "--out") -> None:
    """BenchError where out is a folder, or a file of a record: that one would be lost.

    Args:
        out: the file to be written.
        example: a name for a file that may be written.
        records: what is read: files of records, of any name, or their folders.
        option: by which the user chose the place.
    """
    from retrieval_bench.records.files import run_file
    from retrieval_bench.records.switch import RANKINGS_FILE, RUN_FILE

    if out.is_dir():
        raise BenchError(f"{option} {printable(out)}: is a folder; name a file in it, such as {example}")
    place = out.resolve()
    if out.is_file() and (
        place.name in (RUN_FILE, RANKINGS_FILE) or any(run_file(record).resolve() == place for record in records)
    ):
        raise BenchError(
            f"{option} {printable(out)}: is a file of a record, which would be lost; name another, such as {example}"
        )


def refuse_picture(out: Path, example: str, records: Sequence[Path] = (), option: str = "--out") -> None:
    """The same for a picture, whose file must also end in .png."""
    refuse_place(out, example, records, option)
    if out.suffix.lower() != ".png":
        raise BenchError(
            f"{option} {printable(out)}: the picture is a PNG file; name a file that ends in .png, such as {example}"
        )


def chosen_form(
    name: str, out: Path | None, form: Form | None, as_json: bool, records: Sequence[Path] = ()
) -> tuple[Form, Path | None]:
    """The form, and the file: what --json and --format say, else what --out ends in, else text. A page needs a file,
    which is then called as the command is; BenchError where --out is a folder, a file of one of the records, or ends
    in what no form is called, and where --json and --format disagree."""
    if out is not None:
        refuse_place(out, f"{name}.html", records)
    if as_json:
        if form not in (None, Form.json):
            raise BenchError(f"--json and --format {form}: two forms; give one of them")
        form = Form.json
    if form is None:
        form = Form.text if out is None else form_by_ending(out, _ENDINGS)
    return form, Path(f"{name}.html") if form is Form.html and out is None else out


def form_by_ending(out: Path, endings: Mapping[str, T]) -> T:
    """The form that a file's ending tells. endings: ending, in lower case -> form; BenchError where it has another."""
    ending = out.suffix.lower()
    if ending not in endings:
        raise BenchError(
            f"--out {printable(out)}: {out.suffix} is no form; end it in {', '.join(filter(None, endings))}, or say "
            "what it is by --format"
        )
    return endings[ending]


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
