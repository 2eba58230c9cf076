"""`python -m benchmark.approximate`: what approximate indexes cost and find, beside the exact engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import Command
from benchmark.display import Display
from benchmark.library_noise import keep_off_the_screen
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

USER_MISTAKE = 2


@app.command(cls=Command)
def approximate(
    rows: Annotated[int, typer.Option(min=1000, help="Vectors of the gallery.")] = 1_000_000,
    dim: Annotated[int, typer.Option(min=2, help="Columns of each.")] = 128,
    queries: Annotated[int, typer.Option(min=25, help="Queries of a batch, and of recall.")] = 1000,
    noise: Annotated[float, typer.Option(min=0.0, help="Deviation of a vector from its cluster's centre.")] = 0.5,
    indexes: Annotated[
        str | None,
        typer.Option(metavar="faiss:hnsw,usearch,...", help="Backends to measure. Default: one of every kind."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of 25 single queries.")] = 8,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of everybody. Default: all cores that this process may use.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the vectors that are drawn.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every sample into this file.")
    ] = None,
) -> None:
    """Build approximate indexes of clustered vectors, time them in turns with `exact`, and count what they miss.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from retrieval_bench.peer_benchmarks import approximate as contest
    from retrieval_bench.peer_benchmarks.report import disturbance
    from retrieval_bench.records.environment import environment
    from retrieval_bench.system.cores import usable_cores
    from retrieval_bench.system.files import write_whole
    from retrieval_bench.system.other_processes import OtherProcesses
    from retrieval_bench.system.passive_waiting import wait_passively
    from retrieval_bench.system.timing import steady_allocator

    wait_passively()
    allocator = steady_allocator()
    chosen = contest.INDEXES if indexes is None else [name.strip() for name in indexes.split(",") if name.strip()]
    try:
        most = threads or usable_cores()
        with Display() as display, OtherProcesses() as others:
            display("drawing vectors", 0, 0)
            data = contest.drawn(rows, dim, queries, noise, seed)
            results = contest.contest(chosen, data, threads=most, rounds=rounds, progress=display)
        here = environment(_versions(), None, allocator)
        text = [*contest.lines(results, rows, dim, most), *disturbance(others.share)]
        typer.echo("\n".join([*text, f"{here.processor}, {here.cores} cores"]))
        if json_file is not None:
            record = contest.as_data(
                results, schema=1, rows=rows, dim=dim, noise=noise, seed=seed, threads=most,
                others=others.share, environment=here.model_dump(mode="json"),
            )  # fmt: skip
            write_whole(json_file, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


def _versions() -> dict[str, str]:
    """Of the libraries that are measured, those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("numpy", "numba", "faiss-cpu", "usearch", "pynndescent", "scann"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    keep_off_the_screen()  # what ScaNN prints
    app(prog_name="python -m benchmark.approximate")
