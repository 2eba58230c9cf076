"""`python -m benchmark.distributed`: exact search by workers of Ray, beside one process of as many threads."""

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

USER_MISTAKE = 2


@app.command(cls=Command)
def distributed(
    rows: Annotated[int, typer.Option(min=1000, help="Vectors of the gallery.")] = 1_000_000,
    dim: Annotated[int, typer.Option(min=2, help="Columns of each.")] = 128,
    queries: Annotated[int, typer.Option(min=1, help="Queries of a batch.")] = 1000,
    k: Annotated[int, typer.Option("--k", min=1, help="How many rows a query asks for.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Workers of one thread each; threads of the one process.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Batches of each that are timed.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="Of the vectors that are drawn.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every sample into this file.")
    ] = None,
) -> None:
    """Search one gallery by one process and by workers of Ray in turns, and compare every byte.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from importlib.metadata import version

    from retrieval_bench.peer_benchmarks import shards
    from retrieval_bench.records.environment import environment
    from retrieval_bench.system.files import write_whole
    from retrieval_bench.system.passive_waiting import wait_passively
    from retrieval_bench.system.timing import steady_allocator

    wait_passively()
    allocator = steady_allocator()
    try:
        with Display() as display:
            times = shards.measure_shards(
                *(rows, dim, queries, k), workers=workers, rounds=rounds, seed=seed, progress=display
            )
        here = environment({name: version(name) for name in ("numpy", "numba", "ray")}, None, allocator)
        text = shards.lines(times, rows, dim, queries, k, workers)
        typer.echo("\n".join([*text, f"{here.processor}, {here.cores} cores"]))
        if json_file is not None:
            record = shards.as_data(
                times, schema=1, rows=rows, dim=dim, queries=queries, k=k, workers=workers, seed=seed,
                environment=here.model_dump(mode="json"),
            )  # fmt: skip
            write_whole(json_file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.distributed")
