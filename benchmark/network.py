"""`python -m benchmark.network`: a network against a plain loop and onnxruntime, and from JPEG to features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from benchmark.app import Command
from benchmark.display import Display
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

USER_MISTAKE = 2


@app.command(cls=Command)
def network(
    name: Annotated[str, typer.Option("--network", help="A torchvision network.")] = "resnet50",
    images: Annotated[int, typer.Option(min=1, help="Images timed in each round.")] = 32,
    compared: Annotated[
        int, typer.Option(min=2, help="Images in each split of products whose neighbours are compared.")
    ] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of all competitors. Default: all usable cores.")
    ] = None,
    weights: Annotated[str, typer.Option(help="auto, pretrained, random or a directory.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu or cuda. auto: the GPU if there is one.")] = "auto",
    compute: Annotated[
        str, typer.Option(help="For the JPEG part: float32, fused or bfloat16. Default: the fastest available.")
    ] = "",
    files: Annotated[int, typer.Option(min=0, help="JPEG files in each round of the JPEG part; 0: skip it.")] = 64,
    dataset: Annotated[str, typer.Option(help="Dataset whose queries are the JPEG files.")] = "products",
    data_root: Annotated[Path | None, typer.Option(help="Path of that dataset.")] = None,
) -> None:
    """Time a plain loop, this package and onnxruntime, interleaved, and compare the neighbours that they give.

    Then time JPEG files to features, and beside it the same network on ready tensors. On a GPU only this part runs,
    with the share of the card's peak.

    Exit codes: 0 success; 2 a mistake in the command.
    """
    from retrieval_bench.core import Setup
    from retrieval_bench.datasets.splits import limit
    from retrieval_bench.extractors.deep.fused_inference import Compute
    from retrieval_bench.peer_benchmarks.networks import contest
    from retrieval_bench.peer_benchmarks.throughput import throughput
    from retrieval_bench.registry import DATASETS, fill, parse
    from retrieval_bench.system.cores import usable_cores
    from retrieval_bench.system.device import check_device, gpu_is_there, on_gpu

    fill()
    try:
        if device not in ("auto", "cpu", "cuda"):
            raise BenchError(f"--device {device}: choose auto, cpu or cuda")
        if compute not in ("", *get_args(Compute)[:3]):
            raise BenchError(f"--compute {compute}: choose {', '.join(get_args(Compute)[:3])}")
        if device == "auto":
            device = "cuda" if gpu_is_there() else "cpu"
        setup = Setup(weights=weights, device=check_device(device), threads=threads or usable_cores())
        with Display() as display:
            if not on_gpu(device):
                few = limit(DATASETS["products"].build(None), compared)
                result = contest(
                    name, few, images=images, rounds=rounds, threads=setup.threads, setup=setup, progress=display
                )
                typer.echo("\n".join(result.lines()))
            if files:
                queries = limit(parse(DATASETS, dataset).build(data_root), files).query
                whole = throughput(
                    name,
                    queries,
                    rounds=rounds,
                    threads=setup.threads,
                    setup=setup,
                    compute=compute,
                    progress=display,
                )
                typer.echo("\n".join(["", *whole.lines()]))
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.network")
