"""`python -m benchmark.extraction` (`make extraction`): files to features, against what people write and use."""

from __future__ import annotations

import json
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
def extraction(
    methods: Annotated[
        str | None, typer.Option(metavar="phash,hog,...", help="Methods to time. Default: one of every family.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Files in each round.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="The most threads, or workers, of everybody. Default: all usable cores.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Dataset whose images are the files; others than JPEG are encoded.")
    ] = "products",
    data_root: Annotated[Path | None, typer.Option(help="Path of that dataset.")] = None,
    processes: Annotated[
        bool,
        typer.Option("--processes", help="Also time as many processes of one thread, as --engine processes has them."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write every sample into this file.")
    ] = None,
) -> None:
    """Time files to features: this package on one thread, two, four, ... and its peers, interleaved, in one table.

    Peers are a loop over imagehash, imagededup, OpenCV's colour histogram and SIFT, scikit-image's HOG and torch's
    DataLoader, those that are installed.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from retrieval_bench.datasets.splits import limit
    from retrieval_bench.peer_benchmarks import extraction as contest
    from retrieval_bench.peer_benchmarks.report import disturbance
    from retrieval_bench.registry import DATASETS, fill, parse
    from retrieval_bench.system.cores import usable_cores
    from retrieval_bench.system.files import write_whole
    from retrieval_bench.system.other_processes import OtherProcesses
    from retrieval_bench.system.passive_waiting import wait_passively
    from retrieval_bench.system.timing import steady_allocator

    wait_passively()
    steady_allocator()  # as a run has it; peers have it, too
    fill()
    try:
        most = threads or usable_cores()
        if most > usable_cores():
            raise BenchError(f"--threads {most}: this process may use {usable_cores()} cores; give at most as many")
        counts = sorted({1, most, *(2**power for power in range(1, 8) if 2**power < most)})
        chosen = contest.METHODS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
        with tempfile.TemporaryDirectory(prefix="retrieval_bench-extraction-") as folder, Display() as display:
            queries = limit(parse(DATASETS, dataset).build(data_root), images).query
            files = contest.as_files(queries, Path(folder))
            with OtherProcesses() as others:
                results = contest.contest(
                    chosen, files, rounds=rounds, threads=counts, processes=processes, progress=display
                )
        typer.echo("\n".join([*contest.lines(results, counts), *disturbance(others.share)]))
        if json_file is not None:
            write_whole(json_file, (json.dumps(contest.as_data(results), indent=1) + "\n").encode())
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.extraction")
