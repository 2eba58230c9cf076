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
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; fast searches run more of them.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of all competitors. Default: all usable cores.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Use small shapes, to try the program.")] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure the memory that a search needs beside gallery and index.")
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            metavar="gauss|clustered|duplicates",
            help="What is searched: noise, 1,000 clusters, or near-duplicates, 1e-4 of their length apart.",
        ),
    ] = "gauss",
    hard: Annotated[
        bool,
        typer.Option(
            "--hard",
            help="Instead of the shapes: data that defeats the bounds of the scans, against noise; no peers.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every sample into this file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw time over gallery size; needs matplotlib.")
    ] = None,
) -> None:
    """Time this package's search and those of its peers, interleaved, in one table.

    Peers are numpy, torch, faiss, usearch, numkong and scikit-learn, those that are installed.

    Exit codes: 0 success; 1 a result is wrong; 2 a mistake in the command.
    """
    from retrieval_bench.peer_benchmarks.run import KernelPlan, KernelResults, run, run_hard
    from retrieval_bench.system.files import write_whole

    try:
        if hard and (only or memory or plot or data != "gauss"):
            raise BenchError("--hard has its own shape and data: leave out --only, --memory, --data and --plot")
        with Display() as display:
            plan = KernelPlan(only, rounds, threads, quick, memory, data)  # type: ignore[arg-type]  # run judges data
            contest = run_hard(plan, display) if hard else run(plan, display, display.say)
            typer.echo("\n".join(contest.lines()))
            if json_file is not None:
                write_whole(json_file, (json.dumps(contest.as_data(), indent=1, allow_nan=False) + "\n").encode())
            if isinstance(contest, KernelResults) and plot is not None:
                contest.plot(plot, display, display.say)
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None
    raise typer.Exit(WRONG_RESULT if contest.wrong else OK)


if __name__ == "__main__":
    app(prog_name="python -m benchmark.kernel")
