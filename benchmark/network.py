"""`python -m benchmark.network`: a network on the CPU, against a plain loop and onnxruntime, in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.display import Display
from retrieval_bench.core import BenchError

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

USER_MISTAKE = 2


@app.command()
def network(
    name: Annotated[str, typer.Option("--network", help="A torchvision network.")] = "resnet50",
    images: Annotated[int, typer.Option(min=1, help="Images that are timed in each round.")] = 32,
    compared: Annotated[
        int, typer.Option(min=2, help="Images of products, a split, whose neighbours are compared.")
    ] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="For all; without it every usable core.")] = None,
    weights: Annotated[str, typer.Option(help="auto, pretrained, random or a directory.")] = "auto",
) -> None:
    """Images a second of a plain loop, this package and onnxruntime, interleaved, and what changes in the neighbours.

    Exit codes: 0 fine; 2 your mistake.
    """
    import retrieval_bench.datasets
    import retrieval_bench.extractors  # noqa: F401 - registers the networks
    from retrieval_bench.contest.networks import contest
    from retrieval_bench.core import Setup
    from retrieval_bench.datasets.splits import limit
    from retrieval_bench.registry import DATASETS
    from retrieval_bench.timing import usable_cores

    try:
        with Display() as display:
            dataset = limit(DATASETS["products"].build(None), compared)
            result = contest(
                name,
                dataset,
                images=images,
                rounds=rounds,
                threads=threads or usable_cores(),
                setup=Setup(weights=weights),
                progress=display,
            )
            typer.echo("\n".join(result.lines()))
    except BenchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(USER_MISTAKE) from None


if __name__ == "__main__":
    app(prog_name="python -m benchmark.network")
