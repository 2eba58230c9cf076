"""`python -m benchmark.gpu`: everything that a GPU is used for, on the card that is there, in one record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import GATE_FAILED, OK, USER_MISTAKE, Command
from benchmark.display import Display
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

SECTIONS = ("tests", "agree", "speed", "search", "train", "memory")


@app.command(cls=Command)
def gpu(
    dry: Annotated[
        bool, typer.Option("--dry", help="Run the same on the CPU, with small numbers: it shows that the code runs.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of the records, one folder a card. Default results/gpu, dry .gpu-dry."
        ),
    ] = None,
    sections: Annotated[
        str, typer.Option(metavar="a,b", help=f"Which parts to run. Default all: {', '.join(SECTIONS)}.")
    ] = ",".join(SECTIONS),
    document: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write the table between its <!-- gpu --> marks, too.")
    ] = None,
) -> None:
    """Compare the GPU with the CPU: tests, features, speed from JPEG, search, training, and memory that runs out.

    Without a card it says so and ends with 0. A section that goes wrong is written down, and the others still run.

    Exit codes: 0 success or no card; 1 something did not hold; 2 a mistake in the command.
    """
    raise typer.Exit(_run(dry, out, sections, document))


def _run(dry: bool, out: Path | None, chosen: str, document: Path | None) -> int:
    from retrieval_bench.peer_benchmarks import gpu, gpu_features, gpu_search, gpu_training
    from retrieval_bench.peer_benchmarks.gpu_tests import tests_in
    from retrieval_bench.registry import fill
    from retrieval_bench.system.files import write_whole

    fill()
    runs = {
        "tests": tests_in(Path.cwd()),
        "agree": gpu_features.agree,
        "speed": gpu_features.speed,
        "search": gpu_search.search,
        "train": gpu_training.train,
        "memory": gpu_features.exhaust,
    }
    try:
        names = [name.strip() for name in chosen.split(",") if name.strip()]
        unknown = [name for name in names if name not in runs]
        if unknown or not names:
            raise BenchError(f"--sections {chosen}: choose from {', '.join(SECTIONS)}")
        where = gpu.place(dry)
        if where is None:
            typer.echo("torch sees no CUDA device here, so nothing was run; --dry runs the same on the CPU")
            return OK
        folder = out or Path(".gpu-dry" if dry else "results/gpu")
        with Display() as display:
            outcome = gpu.run(where, {name: runs[name] for name in names}, folder, display)
        typer.echo(outcome.text())
        if document is not None and not dry:
            write_whole(document, gpu.documented(document.read_text(encoding="utf-8"), outcome).encode())
    except (BenchError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        return USER_MISTAKE
    return GATE_FAILED if any(section.failed for section in outcome.sections) else OK


if __name__ == "__main__":
    app(prog_name="python -m benchmark.gpu")
