"""`serve`: search by a picture or by words over HTTP, every method side by side."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.app import app, command, say
from benchmark.options import (
    AllowOutside,
    DataRoot,
    Device,
    Plugins,
    checked_weights,
    parse_methods,
    root,
    usable_threads,
)
from retrieval_bench.core import BenchError, printable

if TYPE_CHECKING:
    from retrieval_bench.serving.answering.opening import OpenedIndexes

NEEDS = "serve needs more packages: pip install 'retrieval-bench[serve]'"


@command(app, "serve")
def serve_command(
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INDEX... | RECORD]",
            parser=root,
            help="Folders of indexes (archives of them and URLs, too, for reading only), or one record, "
            "whose dataset and methods are then served. Default: the dataset.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME[:key=value...]", help="Serve a dataset. Default: products (embedded)."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="a,b,...", help="Methods for the dataset. Default: those of `run`, without controls."),
    ] = None,
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use at most N images of each split of the dataset.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0: any free port.")] = 8000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="0.0.0.0: other machines may ask, too; they need the token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            envvar="RETRIEVAL_BENCH_TOKEN",
            help="What clients must show. Default: none on this machine alone, else one made up and printed.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A further name by which the service may be called; again for more."
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be added or removed.")] = False,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep pictures that are sent, without what is beside their pixels, in --feedback."),
    ] = False,
    feedback: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for what users say of results, as a manifest for `run`.")
    ] = Path("feedback"),
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:key=value...]",
            help="An approximate backend, e.g. faiss:hnsw:ef=16: each column says what that finds for the query.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="auto|pretrained|random|DIR", help="As for `run`. Default: as the index was built."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")] = None,
    max_upload: Annotated[
        float, typer.Option("--max-upload", min=0.001, metavar="MIB", help="Refuse searches that send more than this.")
    ] = 20.0,
    max_pixels: Annotated[
        int, typer.Option("--max-pixels", min=1, metavar="N", help="Refuse pictures of more pixels than this.")
    ] = 50_000_000,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=1000, metavar="N", help="Refuse more requests than this at once.")
    ] = 64,
    rate: Annotated[
        float,
        typer.Option(min=0.0, metavar="N", help="Searches and changes a second of one client, on average; 0: any."),
    ] = 50.0,
) -> None:
    """Serve a search by pictures, by words, or by both: a page, and an API (/docs).

    Over indexes, a record, or a dataset with methods. Words are searched for by methods that read texts.
    """
    try:
        from retrieval_bench.serving import running
        from retrieval_bench.serving.application import create_app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("retrieval_bench"):
            raise
        raise BenchError(NEEDS) from None
    from retrieval_bench.registry import BACKENDS, parse
    from retrieval_bench.serving.answering.approximate_search import ApproximateColumns
    from retrieval_bench.serving.answering.service import Capacity, SearchService
    from retrieval_bench.serving.requests.guards import Guarded, is_loopback, own_names
    from retrieval_bench.serving.requests.settings import ServingSettings
    from retrieval_bench.serving.requests.uploads import UploadLimits
    from retrieval_bench.system.timing import steady_allocator

    shown_token = _token(token, is_loopback(host))
    if places and (dataset is not None or methods is not None or limit is not None):
        raise BenchError(
            "an index or a record says its dataset and methods; leave --dataset, --methods and --limit out"
        )
    compared = None if backend is None else parse(BACKENDS, backend)
    if compared is not None and compared.entry.facts.get("exact"):
        raise BenchError(f"--backend {compared}: it is exact, as the search of every column; name one as faiss:hnsw")
    steady_allocator()
    cores = usable_threads(threads)
    listener = running.listening(host, port)  # before anything is built, so that a port in use costs no minutes
    try:
        opened = _opened(
            places or [], dataset, methods, data_root, limit, weights, device.value, cores, read_only=read_only
        )
        on_gpu = any(index.stored.setup.device != "cpu" for index in opened.indexes)
        capacity = Capacity(
            workers=cores,
            requests=at_once,
            waiting=at_once * max(4, sum(len(index.stored.methods) for index in opened.indexes)),
            linger_s=0.005 if on_gpu else 0.0,
            max_pixels=max_pixels,
        )
        service = SearchService(opened.indexes, capacity, None if compared is None else ApproximateColumns(compared))
        try:
            settings = ServingSettings(
                guarded=Guarded((*own_names(host), *(allow_host or ())), shown_token, rate, max(200, round(4 * rate))),
                upload=UploadLimits(bytes=round(max_upload * 2**20)),
                keep=keep,
                feedback=feedback,
                record=opened.record or _own_record(opened, bool(places)),
                record_root=data_root,
            )
            address = running.address_of(listener) + (f"?token={shown_token}" if shown_token else "")
            running.run(create_app(service, settings), listener, lambda: say(f"ready: {address}"))
        finally:
            service.close()
    finally:
        listener.close()


def _own_record(opened: OpenedIndexes, named: bool) -> Path | None:
    """What `run` left of the dataset that is served, where it would leave it; None where that is of other data."""
    from retrieval_bench.records.files import load

    place, index = Path("results") / opened.indexes[0].name, opened.indexes[0].stored
    if named or not (place / "run.json").is_file():
        return None
    try:
        return place if load(place).dataset.spec == index.dataset_spec else None
    except BenchError:  # a record that cannot be read is no reason not to search
        return None


def _token(given: str | None, loopback: bool) -> str:
    """What clients must show; "" for nothing."""
    if given is None:
        return "" if loopback else secrets.token_urlsafe(18)
    if not 8 <= len(given) <= 200 or not all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in given):
        raise BenchError("--token: must have 8 to 200 letters, digits, - and _")
    return given


def _opened(
    places: list[Path],
    dataset: str | None,
    methods: str | None,
    data_root: Path | None,
    limit: int | None,
    weights: str | None,
    device: str,
    threads: int,
    *,
    read_only: bool,
) -> OpenedIndexes:
    from benchmark.display import Display
    from retrieval_bench.experiment.device_choice import resolve_device
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.experiment.runner import unique
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.remote.copies import copied
    from retrieval_bench.remote.trees import lies_elsewhere
    from retrieval_bench.serving.answering.opening import (
        HowToOpen,
        default_methods,
        is_index,
        open_dataset,
        open_indexes,
        open_record,
    )
    from retrieval_bench.system.cache import FeatureCache, cache_root

    chosen_weights = None if weights is None else checked_weights(weights)
    read_only = read_only or any(lies_elsewhere(place) for place in places)
    places = [copied(place) for place in places]
    how = HowToOpen(chosen_weights, None if device == "auto" else device, threads, read_only, data_root)
    with Display() as display:
        if places:
            indexes = [is_index(place) for place in places]
            if all(indexes):
                return open_indexes(places, how)
            if len(places) > 1 or not (places[0].is_file() or os.path.lexists(places[0] / "run.json")):
                odd = places[indexes.index(False)]
                raise BenchError(
                    f"{printable(odd)}: is no index; name folders that `index build` made, or one record (run.json)"
                )
            return open_record(places[0], how, display)
        chosen = default_methods() if methods is None else unique(parse_methods(methods, texts=True))
        plan = Plan(
            methods=chosen,
            dataset=parse(DATASETS, dataset or "products"),
            root=data_root,
            weights=chosen_weights or "auto",
            device=resolve_device(device, chosen),
            threads=threads,
            limit=limit,
            cache=FeatureCache(cache_root()),
        )
        return open_dataset(plan, how, display)
