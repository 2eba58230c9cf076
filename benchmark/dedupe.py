"""`dedupe`: which images of a dataset or folder are the same picture, and how well each method finds them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import app, command, say
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import DataRoot, checked_weights, parse_methods, usable_threads
from retrieval_bench.core import printable

if TYPE_CHECKING:
    import numpy as np

    from retrieval_bench.core import Distance, Split


@command(app, "dedupe")
def dedupe_command(
    source: Annotated[
        str, typer.Argument(metavar="DATASET|FOLDER", help="A dataset (see `list datasets`), or any folder of images.")
    ],
    data_root: DataRoot = None,
    methods: Annotated[
        str, typer.Option(metavar="phash,sift,...", help="Methods that images are compared by, comma-separated.")
    ] = "phash",
    within: Annotated[
        float | None, typer.Option(help="Use this distance as the threshold instead of measuring one.")
    ] = None,
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Choose the threshold that reaches this precision. Default: the threshold of the best F1.",
        ),
    ] = None,
    copies: Annotated[
        int, typer.Option(min=4, help="How many images get a planted copy; the threshold is measured on these.")
    ] = 400,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write duplicates.json and duplicates.html into this folder.")
    ] = None,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks, as in `run`.")
    ] = "auto",
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of samples, copies and what methods learn.")
    ] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Find near-duplicates. The threshold is measured on planted copies, whose originals are known."""
    from benchmark.display import Display
    from retrieval_bench.data_audit import dedupe
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.report.duplicates import page
    from retrieval_bench.system.files import write_whole

    chosen = parse_methods(methods)
    workers = usable_threads(threads)
    checked_weights(weights, any(method.deep for method in chosen))
    with interruptible(), Display() as display:
        shown = stoppable(display)
        if source.partition(":")[0] in DATASETS:
            collection = dedupe.of_dataset(parse(DATASETS, source).build(data_root))
        else:
            collection = dedupe.of_folder(Path(source))
        collection = dedupe.usable(collection, workers, lambda done, total: shown("looking at images", done, total))
        found = [
            dedupe.by_method(
                collection, describer(str(method), seed, workers, shown, weights), within, precision, copies, seed
            )
            for method in chosen
        ]
    facts = dedupe.facts(collection, source, found)
    if out is not None:
        write_whole(out / "duplicates.json", (json.dumps(facts, indent=1) + "\n").encode())
        write_whole(out / "duplicates.html", page(facts, collection.thumbnail).encode("utf-8", "replace"))
    say(json.dumps(facts, indent=1) if as_json else "\n".join(_lines(facts)))
    if out is not None:
        typer.echo(f"page: {printable(out / 'duplicates.html')}", err=True)


def describer(
    method: str, seed: int, threads: int, progress: Callable[..., None], weights: str = "auto"
) -> Callable[[Split, Mapping[str, Split]], tuple[str, Distance, dict[str, np.ndarray]]]:
    """(train, splits) -> name, distance and features, through the feature cache."""
    from retrieval_bench.experiment.features import described
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.methods.parse import parse_method
    from retrieval_bench.registry import DATASETS, Spec
    from retrieval_bench.system.cache import FeatureCache, cache_root

    chosen = parse_method(method)
    nothing = Spec(DATASETS["products"], {})  # a plan names a dataset; described() is given its splits instead
    plan = Plan((chosen,), nothing, seed=seed, threads=threads, weights=weights, cache=FeatureCache(cache_root()))

    def describe(train: Split, wanted: Mapping[str, Split]) -> tuple[str, Distance, dict[str, np.ndarray]]:
        pipeline, features = described(chosen, plan, train, wanted, progress)
        return pipeline.name, pipeline.distance, features

    return describe


def _lines(facts: dict[str, Any]) -> list[str]:
    from retrieval_bench.report.lines import aligned

    lines = [
        (
            f"{facts['source']}: {facts['images']:,} images, {facts['distinct']:,} distinct, "
            f"{len(facts['unusable'])} unusable"
        )
    ]
    table = [["method", "threshold", "precision", "recall", "F1", "false/million", "pairs", "groups", "images", "s"]]
    for method in facts["methods"]:
        judged = method["judged"]
        quality = ["n/a"] * 4
        if judged is not None:
            quality = [f"{judged['held_out'][name]:.3f}" for name in ("precision", "recall", "f1")]
            quality.append(f"{judged['false_per_million']:,.1f}")
        counts = [method["pairs"], len(method["groups"]), sum(len(group["members"]) for group in method["groups"])]
        table.append(
            [
                method["method"],
                f"{method['threshold']:.4g}",
                *quality,
                *(f"{count:,}" for count in counts),
                f"{method['search_s']:.2f}",
            ]
        )
    lines += aligned(table)
    if any(method["judged"] is not None for method in facts["methods"]):
        lines.append(
            "Thresholds were chosen on one half of the planted copies and measured on the other half, for a "
            "collection of this size in which one image in a hundred has a copy."
        )
        kinds = list(next(m["judged"] for m in facts["methods"] if m["judged"] is not None)["found"])
        recall = [["copies found", *kinds]]
        for method in facts["methods"]:
            if method["judged"] is not None:
                recall.append([method["method"], *(f"{method['judged']['found'].get(kind, 0):.2f}" for kind in kinds)])
        lines += ["", *aligned(recall)]
    for method in facts["methods"]:
        for group in method["groups"][:5]:
            ids = [item["id"] for item in group["members"]]
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            lines.append(f"  {method['method']}: {' = '.join(ids[:3])}{more}")
    return lines
