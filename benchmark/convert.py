"""`convert`: a record's rankings as TREC files, or the scores of each query as a table."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.app import app, command, say
from benchmark.forms import refuse_place
from retrieval_bench.core import BenchError, printable


class Target(StrEnum):
    trec = "trec"
    csv = "csv"
    parquet = "parquet"


@command(app, "convert")
def convert_command(
    record: Annotated[Path, typer.Argument(help="A run.json, or the folder that holds it.")],
    to: Annotated[
        Target,
        typer.Option("--to", help="trec: rankings for trec_eval and its like. csv, parquet: scores of each query."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Output folder (trec) or file (csv, parquet). Default: trec, per_query.csv or per_query.parquet.",
        ),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="a,b", help="Only these methods of the record. Default: all.")
    ] = None,
) -> None:
    """Write a record's rankings as TREC run and qrels files, or the scores of each query as CSV or Parquet."""
    from retrieval_bench.compare.reload import from_arrays, methods_of
    from retrieval_bench.records import conversion
    from retrieval_bench.records.files import load, load_rankings
    from retrieval_bench.records.switch import RANKINGS_FILE
    from retrieval_bench.system.files import write_whole

    conversion.need_packages(to.value)
    whole = load(record)
    names = methods_of(whole, tuple(name.strip() for name in methods.split(",")) if methods is not None else ())
    arrays = load_rankings(record, whole)
    values = from_arrays(arrays, whole)
    if values is None or not names:
        raise BenchError(f"{RANKINGS_FILE}: the record holds no ranking of any method; run again")
    if to is not Target.trec:
        place = Path(f"per_query.{to.value}") if out is None else out
        refuse_place(place, f"per_query.{to.value}", [record])
        other = place.suffix[1:].lower()
        if other != to.value and other in Target.__members__:
            raise BenchError(f"--out {printable(place)}: --to {to.value} writes no {other}; say --to {other}")
        columns = conversion.score_columns(arrays, {name: values.by_method[name] for name in names})
        write_whole(place, conversion.table_bytes(columns, to.value))
        say(f"{printable(place)}: {len(columns['method'])} rows, one for each of {len(names)} methods and each query")
        return
    place = Path("trec") if out is None else out
    files = conversion.trec_files(arrays, names)
    _refuse_others(place, files)
    for name, content in files.items():
        write_whole(place / name, content)
    gallery = len(arrays["gallery_ids"])
    depth = min(arrays[f"{name}/indices"].shape[1] for name in names)
    say(f"{printable(place)}: {conversion.QRELS_FILE}, and a run file for each of {len(names)} methods")
    if depth < gallery:
        say(
            f"A run holds the first {depth} of {gallery} images. Average precision and reciprocal rank of other "
            "programs look no further than that."
        )


def _refuse_others(folder: Path, files: dict[str, bytes]) -> None:
    """The judgements of one record beside the runs of another would give wrong numbers, and nobody would notice."""
    from retrieval_bench.records.conversion import QRELS_FILE

    if folder.exists() and not folder.is_dir():
        raise BenchError(f"--out {printable(folder)}: is a file; name a folder")
    judged = folder / QRELS_FILE
    if judged.is_file() and judged.read_bytes() == files[QRELS_FILE]:
        return
    others = sorted({file.name for file in folder.glob("*.trec")} - files.keys())
    if others:
        raise BenchError(
            f"--out {printable(folder)}: holds {others[0]} of a record with other queries or labels, which "
            f"{QRELS_FILE} would not fit; name another folder"
        )
