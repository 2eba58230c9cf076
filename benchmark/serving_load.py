"""`python -m benchmark.serving_load`: what the service adds to a method, and what becomes of it under load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import Command
from benchmark.display import Display
from benchmark.options import parse_methods
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

TARGET_MISSED, USER_MISTAKE = 1, 2


@app.command(cls=Command)
def serving_load(
    methods: Annotated[str, typer.Option(metavar="a,b,...", help="Methods of the service.")] = "phash,color,sift",
    dataset: Annotated[str, typer.Option(help="Dataset whose gallery is searched, by its queries.")] = "products",
    data_root: Annotated[Path | None, typer.Option(help="Path of that dataset.")] = None,
    queries: Annotated[int, typer.Option(min=5, help="Queries that are asked one after the other.")] = 100,
    clients: Annotated[int, typer.Option(min=1, max=500, help="Clients at once.")] = 50,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long these search.")] = 60.0,
    items: Annotated[int, typer.Option(min=0, help="Items that are added and removed while 20 clients search.")] = 1000,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the service. Default: all cores.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures into this file.")
    ] = None,
) -> None:
    """Load a service that runs in a process of its own: overhead, throughput, many clients, changes under searches.

    Exit codes: 0 success; 1 an answer was wrong or an error; 2 a mistake in the command.
    """
    from retrieval_bench.peer_benchmarks import serving as under_load
    from retrieval_bench.peer_benchmarks.report import ruled
    from retrieval_bench.registry import fill
    from retrieval_bench.system.files import write_whole
    from retrieval_bench.system.passive_waiting import wait_passively
    from retrieval_bench.system.timing import steady_allocator

    wait_passively()
    steady_allocator()
    fill()
    try:
        parse_methods(methods)
        with Display() as display:
            figures = under_load.measure(
                dataset, methods, data_root, queries, clients, seconds, items, threads, progress=display
            )
        typer.echo("\n".join([*ruled(under_load.table(figures)), *under_load.sentences(figures)]))
        if json_file is not None:
            write_whole(json_file, (json.dumps(under_load.as_data(figures), indent=1) + "\n").encode())
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None
    if under_load.is_wrong(figures):
        raise typer.Exit(TARGET_MISSED)


if __name__ == "__main__":
    app(prog_name="python -m benchmark.serving_load")
