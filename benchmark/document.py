"""`python -m benchmark.document FILE.md ...`: write the tables in documents again from the records they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import Command
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

USER_MISTAKE = 2


@app.command(cls=Command)
def document(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE.md ...", help="Documents whose tables are written again.")
    ],
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that the paths of the records start from.")
    ] = Path(),
) -> None:
    """Write the tables between `<!-- table` and `<!-- /table -->` again, where they changed."""
    from retrieval_bench.report.document import renewed
    from retrieval_bench.system.files import write_whole

    try:
        for file in files:
            before = file.read_text(encoding="utf-8")
            after = renewed(before, root)
            if after != before:
                write_whole(file, after.encode())
    except (BenchError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.document")
