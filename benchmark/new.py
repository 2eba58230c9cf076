"""`new`: begin a plug-in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from retrieval_bench.core import printable

new = typer.Typer(help="Begin a plug-in.", no_args_is_help=True)
app.add_typer(new, name="new")


@new.callback()
def kinds() -> None:
    """Begin a plug-in."""


@command(new, "extractor")
def extractor_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the method: small letters, digits and hyphens.")],
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder in which the folder NAME is made. Default: this one.")
    ] = Path(),
) -> None:
    """Write a package with a method that works, its test and its entry point, for you to change."""
    from retrieval_bench.plugins.new_extractor import new_extractor
    from retrieval_bench.registry import EXTRACTORS, JOINS, STEPS

    taken = [entry.name for registry in (EXTRACTORS, JOINS, STEPS) for entry in registry]
    folder = new_extractor(name, into, taken)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        say(f"wrote {printable(file)}")
    package = name.replace("-", "_")
    say("Use it at once:")
    say(f"  python -m benchmark check {name} --plugin {printable(folder / 'src' / package / 'extractor.py')}")
    say("Install it, and it is found by its name alone:")
    say(f'  pip install -e "{printable(folder)}[dev]" && python -m benchmark check {name}')
