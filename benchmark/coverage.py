"""`python -m benchmark.coverage`: how often the intervals hold the truth, by simulation, as one table."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.app import Command
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command(cls=Command)
def coverage(
    worlds: Annotated[int, typer.Option(min=1, help="Simulated samples in each cell of the table.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    differences: Annotated[
        bool, typer.Option("--differences", help="Intervals of the difference of two methods, not of one mean.")
    ] = False,
    unequal: Annotated[
        bool, typer.Option("--unequal", help="Labels of very unequal numbers of queries, without a bootstrap.")
    ] = False,
) -> None:
    """Print how often 95 % intervals hold the true mean of simulated samples, for scores next to 0, 0.5 and 1.

    The table is Markdown. In brackets stands the same of a bootstrap over labels, then the mean length.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from retrieval_bench.evaluation.coverage import coverages, table, unequal_coverages

    if unequal and differences:
        raise BenchError("--unequal and --differences: the table is of the one or of the other")
    found = unequal_coverages(worlds, seed) if unequal else coverages(worlds, seed, differences=differences)
    for line in table(found):
        typer.echo(line)


if __name__ == "__main__":
    app(prog_name="python -m benchmark.coverage")
