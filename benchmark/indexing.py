"""`python -m benchmark.indexing`: what an index costs beside describing the pictures, and what adding to it costs."""

from __future__ import annotations

import tempfile
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
def indexing(
    images: Annotated[
        int, typer.Option(min=0, help="Small JPEG files that are drawn, described and indexed. 0: none.")
    ] = 100_000,
    methods: Annotated[str, typer.Option(metavar="a,b", help="Methods of that index.")] = "phash,color",
    items: Annotated[
        int, typer.Option(min=0, help="Vectors of the index that 1,000 are added to. 0: none.")
    ] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is done.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where files are drawn, and stay. Default: a temporary folder.")
    ] = None,
) -> None:
    """Time `index build` against describing the same pictures, and adding 1,000 items to a large index.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from retrieval_bench.peer_benchmarks import indexing as contest
    from retrieval_bench.peer_benchmarks.report import disturbance
    from retrieval_bench.registry import fill
    from retrieval_bench.system.cores import usable_cores
    from retrieval_bench.system.other_processes import OtherProcesses
    from retrieval_bench.system.passive_waiting import wait_passively
    from retrieval_bench.system.timing import steady_allocator

    wait_passively()
    steady_allocator()
    fill()
    try:
        with tempfile.TemporaryDirectory(prefix="retrieval_bench-indexing-") as temporary, Display() as display:
            home = folder or Path(temporary)
            built = added = None
            chosen = [name.strip() for name in methods.split(",") if name.strip()]
            with OtherProcesses() as others:
                if items:
                    added = contest.append_times(home / "large", items, rounds, display)
                if images:
                    dataset = contest.drawn(home / "pictures", images, display)
                    built = contest.build_times(
                        dataset, home / "index", chosen, threads or usable_cores(), rounds, display
                    )
        typer.echo("\n".join([*contest.lines(built, added), *disturbance(others.share)]))
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.indexing")
