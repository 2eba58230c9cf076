"""`data`: prepare datasets and look at them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import app, command, say
from benchmark.forms import refuse_picture
from benchmark.options import AllowHost, AllowOutside, DataRoot, MaxPixels, Plugins, decoding

if TYPE_CHECKING:
    from retrieval_bench.core import Dataset

data = typer.Typer(help="Prepare datasets and look at them.", no_args_is_help=True)
app.add_typer(data, name="data")


@command(data, "prepare")
def prepare_command(
    name: Annotated[str, typer.Argument(metavar="NAME[:key=value...]", help="A dataset; see `list datasets`.")],
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    max_pixels: MaxPixels = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Also write a contact sheet: one picture with a sample of the images."),
    ] = None,
) -> None:
    """Load (or render) a dataset, decode every image once, and print what it contains."""
    from benchmark.display import Display
    from retrieval_bench.core import DISTRACTOR
    from retrieval_bench.datasets.sheet import contact_sheet
    from retrieval_bench.images.reading import decoded_by
    from retrieval_bench.images.screening import screen
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.cores import usable_cores

    spec = parse(DATASETS, name)
    if sheet is not None:  # before minutes are spent
        refuse_picture(sheet, "sheet.png", option="--sheet")
    with Display() as display:
        dataset: Dataset = decoded_by(spec.build(data_root), decoding(max_pixels))
        dataset, skipped = screen(
            dataset, threads=usable_cores(), progress=lambda done, total: display("checking images", done, total)
        )
        say(f"{spec}: {dataset.label_count} labels, {len(set(dataset.category_names) - {DISTRACTOR})} categories")
        for part, split in dataset.splits.items():
            known = f"; known of each: {', '.join(split.attributes)}" if split.attributes else ""
            bare = 0 if split.pictured is None else int((~split.pictured).sum())
            without = f"; and {bare:,} items without a picture" if bare else ""
            say(f"  {part:8} {len(split) - bare:7,} images{without}{known}")
        say(f"  fingerprint {dataset.without_texts().fingerprint}")
        for notice in dataset.notices:
            say(f"  note: {notice}")
        for reason, count in Counter(bad.reason for bad in skipped).most_common():
            say(f"  unusable: {count} {reason}, e.g. {next(bad.id for bad in skipped if bad.reason == reason)}")
        if sheet is not None:
            contact_sheet(dataset.with_pictures(), sheet)
            say(f"  contact sheet: {sheet}")
