"""`python -m benchmark.kernel` (`make kernel`): the top-k kernel against its peers, one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import Command
from benchmark.display import Display
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

OK, WRONG_RESULT, USER_MISTAKE = 0, 1, 2


@app.command(cls=Command)
def kernel(
    only: Annotated[
        str | None,
        typer.Option("--only", "--shapes", metavar="PATTERN,...", help='Shapes by name, as in "1x*,hamming*,*x512-*".'),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; quick searches run more.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="For all; without it every usable core.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Shrunk shapes, to try the programme out.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the memory of a search above gallery and index.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Every sample, for a later comparison.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Time against gallery size; needs matplotlib.")
    ] = None,
) -> None:
    """Milliseconds of this package's search and of numpy, torch, faiss and scikit-learn, interleaved, in one table.

    Exit codes: 0 fine; 1 somebody's result is wrong; 2 your mistake.
    """
    from retrieval_bench.peer_benchmarks.run import KernelPlan, run
    from retrieval_bench.system.files import write_whole

    try:
        with Display() as display:
            contest = run(KernelPlan(only, rounds, threads, quick, memory), display, display.say)
            typer.echo("\n".join(contest.lines()))
            if json_file is not None:
                write_whole(json_file, (json.dumps(contest.as_data(), indent=1, allow_nan=False) + "\n").encode())
            if plot is not None:
                contest.plot(plot, display, display.say)
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None
    raise typer.Exit(WRONG_RESULT if contest.wrong else OK)


if __name__ == "__main__":
    app(prog_name="python -m benchmark.kernel")
