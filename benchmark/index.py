"""`index`: an index that lasts: built once, searched, added to, undone, verified and compacted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.app import GATE_FAILED, OK, app, command, say
from benchmark.index_shown import answer_lines, facts_of, found_items, in_words, info_lines
from benchmark.interrupt import interruptible, stoppable
from benchmark.options import (
    AllowHost,
    AllowOutside,
    DataRoot,
    Decode,
    Device,
    LearnFrom,
    MaxPixels,
    Plugins,
    PublishedFolder,
    checked_weights,
    decoding,
    parse_methods,
    usable_threads,
)
from retrieval_bench.core import DISTRACTOR, BenchError, Setup, printable
from retrieval_bench.registry import unknown

if TYPE_CHECKING:
    import numpy as np

    from retrieval_bench.indexing.index import Added, StoredIndex
    from retrieval_bench.indexing.snapshot import Snapshot

SHOWN = 3
"""Ids that are named of each reason."""

index = typer.Typer(help="Build an index that lasts, search it, add to it and undo that.", no_args_is_help=True)
app.add_typer(index, name="index")


class Kept(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the index.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks. Default: as when it was built."),
]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: all cores that this process may use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]
OnDevice = Annotated[Device, typer.Option(help="Where networks run. auto: as when it was built, if that is there.")]


@command(index, "build")
def build_command(
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            "--method",
            metavar="a,b[:key=value...]",
            help="Methods with their options, comma-separated, as in `run`: phash,sift+color. One index holds all.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the index; it must not be there yet.")],
    dataset: Annotated[
        str,
        typer.Option(
            metavar="NAME[:key=value...]",
            help="products (embedded), folder, manifest, grocery. Its gallery becomes the index, with its texts where "
            "a method reads them.",
        ),
    ] = "products",
    plugin: Plugins = None,
    data_root: DataRoot = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    dtype: Annotated[
        Kept,
        typer.Option(
            help="How numbers are kept: float16 takes half of float32, int8 a quarter, for methods that compare by "
            "cosine. Bits are always kept as bits."
        ),
    ] = Kept.float32,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:KIND[:key=value...]",
            help="A vector store that holds the vectors, as in `stores`: pgvector:hnsw:ef=200, lancedb:exact. In DIR, "
            "or on the server of dsn= or RETRIEVAL_BENCH_DSN. Default: files of the index.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of vocabularies, samples and random weights.")
    ] = 0,
    weights: Annotated[
        str, typer.Option(metavar="auto|pretrained|random|DIR", help="Weights of networks, as in `run`.")
    ] = "auto",
    device: Annotated[Device, typer.Option(help="Where networks run.")] = Device.auto,
    threads: Threads = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use at most N images of each split, as in `run`.")
    ] = None,
    max_pixels: MaxPixels = None,
    decode: Annotated[
        Decode, typer.Option(help="reduced: decode large JPEG photos small where no method sees it, as in `run`.")
    ] = Decode.full,
    learn_from: Annotated[
        LearnFrom, typer.Option("--learn-from", help="The split that methods learn from, as in `run`.")
    ] = LearnFrom.train,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute all features again and store none, as in `run`.")
    ] = False,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Read and write no cache at all, as in `run`.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an index that lies in DIR.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe the gallery of a dataset by several methods, and keep that in a folder that can be searched.

    Images that cannot be read are left out and counted. The folder is there when it is whole, and not before.
    """
    from benchmark.display import Display
    from retrieval_bench.experiment.device_choice import resolve_device
    from retrieval_bench.experiment.prepare import Plan
    from retrieval_bench.experiment.runner import unique
    from retrieval_bench.indexing.build import build
    from retrieval_bench.indexing.store_features import parse_store
    from retrieval_bench.registry import DATASETS, parse
    from retrieval_bench.system.cache import FeatureCache, cache_root, set_aside

    chosen = unique(parse_methods(methods, texts=True))
    kept_in = None if store is None else parse_store(store)
    plan = Plan(
        chosen,
        parse(DATASETS, dataset),
        data_root,
        seed=seed,
        weights=checked_weights(weights, any(method.deep for method in chosen)),
        device=resolve_device(device.value, chosen),
        threads=usable_threads(threads),
        limit=limit,
        decoding=decoding(max_pixels),
        decode=decode.value,
        learn_from=learn_from.value,
        cache=FeatureCache(None if no_cache or recompute else cache_root()),
    )
    with (
        set_aside() if no_cache else contextlib.nullcontext(),
        interruptible(),
        Display() as display,
        build(plan, out, dtype=dtype.value, store=kept_in, overwrite=overwrite, progress=stoppable(display)) as built,
    ):
        _say_info(built, as_json)


@command(index, "add")
def add_command(
    folder: Folder,
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE|FOLDER...", help="Images, and folders of images.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A list of images with path, label and optional id, category, title, text, description and more; CSV "
            "or the like.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(metavar="L", help="What the images show. Default: not known.")] = None,
    category: Annotated[str | None, typer.Option(metavar="C", help="The category of the label.")] = None,
    plugin: Plugins = None,
    allow_outside: AllowOutside = False,
    allow_host: AllowHost = None,
    weights: Weights = None,
    device: OnDevice = Device.auto,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Add images: all that can be read, in one operation, which `index undo` takes back.

    The id of an image is its path in the folder that is named, its own name, or what the list says.
    """
    from benchmark.display import Display

    if bool(sources) == (manifest is not None):
        raise BenchError("name images or folders to add, or a list of images with --manifest FILE")
    if manifest is not None and (label is not None or category is not None):
        raise BenchError("--manifest says itself what each image shows; leave --label and --category out")
    with interruptible(), Display() as display, _opened(folder, weights, device, threads, writable=True) as opened:
        added, notices = _added(opened, sources or [], manifest, label, category, stoppable(display))
        notices += [f"{count:,} {'image' if count == 1 else 'images'} {note}" for note, count in added.notes.items()]
        notices += _without_texts(opened, added)
        if as_json:
            facts = {
                "operation": added.operation,
                "added": len(added.numbers),
                "items": len(opened.snapshot()),
                "refused": {reason: list(ids) for reason, ids in added.refused.items()},
                "notices": notices,
            }
            say(json.dumps(facts, indent=1))
            return
        for line in [*notices, *_refused_lines(added)]:
            say(line)
        done = "nothing was added" if added.operation is None else f"operation {added.operation}: {_n(added)} added"
        say(f"{done}; {printable(folder)} has {_count(opened)}")


@command(index, "remove")
def remove_command(
    folder: Folder, ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the items.")]
) -> None:
    """Remove items: no method finds them any more. `index undo` brings them back, until `index compact`."""
    with _opened(folder, writable=True) as opened:
        operation = opened.remove(ids)
        say(f"operation {operation}: {len(set(ids)):,} removed; {printable(folder)} has {_count(opened)}")


@command(index, "undo")
def undo_command(
    folder: Folder,
    operation: Annotated[int, typer.Argument(metavar="N", help="Number of the operation; `index log` lists them.")],
) -> None:
    """Undo an operation: what it added is removed, and what it removed is there again. An undo can be undone, too."""
    with _opened(folder, writable=True) as opened:
        number = opened.undo(operation)
        say(f"operation {number}: operation {operation} is undone; {printable(folder)} has {_count(opened)}")


@command(index, "query")
def query_command(
    folder: PublishedFolder,
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE...]", help="Files of the images to search for.")
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Words to search for by methods that read texts, alone or with each image."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many items are shown of each method.")] = 10,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "--method", metavar="a,b", help="Only these methods of the index. Default: all."),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="Find only such items: label=cup, category=kitchen, id=part-of-it, or any attribute; label!=cup and "
            "category!=... leave them out. Of several for one key, any will do. There are always k where k exist.",
        ),
    ] = None,
    plugin: Plugins = None,
    weights: Weights = None,
    device: OnDevice = Device.auto,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the items that are nearest to images, to words, or to both, by each method.

    It is what `run` would find for them, to the last bit.
    """
    from retrieval_bench.images.reading import DecodedBy, ImageFiles
    from retrieval_bench.system.timing import Stopwatch, pinned

    named = images or []
    if not named and not (text or "").strip():
        raise BenchError("nothing is searched for; name images, or words with --text")
    with _opened(folder, weights, device, threads) as opened:
        snapshot = opened.snapshot()
        chosen = [method.text for method in opened.methods]
        if methods is not None:
            chosen = [opened.method(name.strip()).text for name in methods.split(",") if name.strip()]
            if not chosen:
                raise BenchError("--methods names no method; leave it out for all of the index")
        _refuse_what_lacks_something(opened, chosen, picture=bool(named), text=text or "")
        among = _among(snapshot, filters or [])
        files = DecodedBy(ImageFiles(named), opened.decoding)
        pictures: list[np.ndarray | None] = [_picture(files, row, path) for row, path in enumerate(named)] or [None]
        texts = [text or ""] * len(pictures)
        shown: list[str | None] = [printable(image) for image in named] or [None]
        answers: list[dict[str, Any]] = []
        for name in chosen:
            method = opened.method(name)
            with pinned(1):  # as a run describes queries, to the last bit
                warm = method.describe(pictures[:1], texts[:1])  # what is loaded at first counts for none
                snapshot.search(name, warm, 1)
                with Stopwatch() as describing:
                    rows = method.describe(pictures, texts)
            with pinned(opened.setup.threads), Stopwatch() as searching:
                found = snapshot.search(name, rows, min(k, max(len(snapshot), 1)), among=among)
            for row, image in enumerate(shown):
                answers.append(
                    {
                        "image": image,
                        "text": text,
                        "text_read": bool(texts[0].strip()) and "text" in method.sides.query,
                        "method": method.name,
                        "describe_ms": round(describing.seconds * 1000 / len(pictures), 3),
                        "search_ms": round(searching.seconds * 1000 / len(pictures), 3),
                        "found": found_items(snapshot, found.indices[row], found.distances[row]),
                    }
                )
        if as_json:
            say(json.dumps({"index": printable(folder), "version": snapshot.version, "answers": answers}, indent=1))
            return
        answers.sort(key=lambda answer: shown.index(answer["image"]))
        say("\n".join(answer_lines(answers)))


@command(index, "info")
def info_command(folder: PublishedFolder, as_json: AsJson = False) -> None:
    """Show what an index holds: methods and their recipes, items, bytes, operations."""
    with _opened(folder) as opened:
        _say_info(opened, as_json)


@command(index, "log")
def log_command(
    folder: PublishedFolder,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="How many operations are shown, the last ones.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the operations on an index, the last one at the end."""
    from dataclasses import asdict

    from retrieval_bench.report.lines import aligned

    with _opened(folder) as opened:
        operations = opened.operations(last)
    if as_json:
        say(json.dumps([asdict(one) for one in operations], indent=1))
        return
    table = [["operation", "at", "what", "items", "note"]]
    for one in operations:
        note = one.note if one.undone_by is None else f"{one.note} (undone by {one.undone_by})".strip()
        table.append([str(one.number), one.at, one.what, f"{one.count:,}", printable(note)])
    say("\n".join(aligned(table)))


@command(index, "verify")
def verify_command(folder: PublishedFolder, as_json: AsJson = False) -> int:
    """Compute every checksum again, and name each file in which a byte has changed. Exit code 1 where one has."""
    from dataclasses import asdict

    from benchmark.display import Display

    with interruptible(), Display() as display, _opened(folder) as opened:
        found = opened.verify(stoppable(display))
    if as_json:
        say(json.dumps(asdict(found), indent=1))
    else:
        for problem in found.problems:
            say(problem)
        said = (
            f"{len(found.problems):,} of what was looked at is not as it was written"
            if found.problems
            else "as it was written"
        )
        say(f"{printable(folder)}: {in_words(found.items)}, {found.bytes:,} bytes of features: {said}")
    return GATE_FAILED if found.problems else OK


@command(index, "compact")
def compact_command(folder: Folder) -> None:
    """Drop what was removed; it cannot be brought back after that."""
    from benchmark.display import Display

    with interruptible(), Display() as display, _opened(folder, writable=True) as opened:
        before = opened.snapshot().state.rows
        opened.compact(stoppable(display))
        after = opened.snapshot().state.rows
        say(f"{in_words(before - after, 'removed ')} dropped; {printable(folder)} has {in_words(after)}")


def _opened(
    folder: Path,
    weights: str | None = None,
    device: Device = Device.auto,
    threads: int | None = None,
    *,
    writable: bool = False,
) -> StoredIndex:
    """The index; its methods are built, and compared with what they were, when they are used."""
    from dataclasses import replace

    from retrieval_bench.indexing.description import read_description
    from retrieval_bench.indexing.index import StoredIndex
    from retrieval_bench.indexing.methods import setup_of
    from retrieval_bench.remote.copies import copied

    folder = folder if writable else copied(folder)
    setup: Setup = setup_of(read_description(folder), None, usable_threads(threads))
    if weights is not None:
        setup = replace(setup, weights=checked_weights(weights))
    if device is not Device.auto:
        from retrieval_bench.system.device import check_device

        setup = replace(setup, device="cpu" if device is Device.cpu else check_device(device.value))
    return StoredIndex.open(folder, setup, writable=writable, check_recipe=False)


def _added(
    opened: StoredIndex,
    sources: Sequence[Path],
    manifest: Path | None,
    label: str | None,
    category: str | None,
    progress: Any,
) -> tuple[Added, list[str]]:
    from retrieval_bench.datasets.manifest import read_list
    from retrieval_bench.images.named_files import images_of

    if manifest is not None:
        listed = read_list(manifest)
        return opened.add_split(listed.split, listed.label_names, listed.category_names, progress), [*listed.notices]
    split, notices = images_of(sources)
    labels, categories = ([DISTRACTOR if name is None else name] for name in (label, category))
    return opened.add_split(split, labels, categories, progress), notices


def _without_texts(opened: StoredIndex, added: Added) -> list[str]:
    """A sentence where items were added without the text that methods compare."""
    reading = [method.text for method in opened.methods if "text" in method.sides.gallery]
    if not reading:
        return []
    lacking = sum(not item.text.strip() for item in opened.snapshot().items(added.numbers))
    if not lacking:
        return []
    names = " and ".join([*([", ".join(reading[:-1])] if reading[1:] else []), reading[-1]])
    verbs = "has" if lacking == 1 else "have", "read" if reading[1:] else "reads"
    return [f"{lacking:,} of {_n(added)} {verbs[0]} no text, which {names} {verbs[1]}; a list of images may have one"]


def _count(opened: StoredIndex) -> str:
    return in_words(len(opened.snapshot()))


def _n(added: Added) -> str:
    return f"{len(added.numbers):,}"


def _refused_lines(added: Added) -> list[str]:
    from retrieval_bench.report.markup import visible

    return [
        visible(f"not added: {len(ids):,} {reason}: {', '.join(ids[:SHOWN])}{', ...' if len(ids) > SHOWN else ''}")
        for reason, ids in added.refused.items()
    ]


def _refuse_what_lacks_something(opened: StoredIndex, chosen: Sequence[str], *, picture: bool, text: str) -> None:
    """BenchError where a method cannot be asked what is searched for."""
    for name in chosen:
        if why := opened.method(name).lacking(picture=picture, text=bool(text.strip())):
            give = "name an image" if "picture" in why else "give one with --text"
            raise BenchError(f"{why}; {give}, or choose among the methods with --methods")


def _picture(files: Any, row: int, path: Path) -> np.ndarray:
    from retrieval_bench.core import BadImage

    try:
        picture: np.ndarray = files[row]
        return picture
    except BadImage as bad:
        raise BenchError(f"{printable(path)}: {bad.reason} ({bad.detail}); name another image") from None


def _among(snapshot: Snapshot, filters: Sequence[str]) -> np.ndarray | None:
    """Numbers of the items that all filters let through; None where there is no filter."""
    if not filters:
        return None
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or not key.strip("! ") or not value:
            raise BenchError(f"--filter {text!r}: write KEY=VALUE, such as label=cup, or label!=cup")
        wanted.setdefault(key.strip(), []).append(value)
    known = {name: wanted.pop(name, []) for name in ("label", "category", "label!", "category!", "id")}
    for name in wanted:
        if name.endswith("!"):
            raise BenchError(f"--filter {name}=: only label and category can be left out; write label!=cup")
    if len(known["id"]) > 1:
        raise BenchError("--filter id=: give one part of the id")
    found = snapshot.where(
        labels=known["label"],
        categories=known["category"],
        not_labels=known["label!"],
        not_categories=known["category!"],
        text_in_id="".join(known["id"]),
        attributes=wanted,
    )
    if not len(found) and wanted:
        attributes = snapshot.attribute_names()
        for name in wanted:
            if name not in attributes:
                raise BenchError(f"--filter: {unknown('attribute', name, {*attributes, 'label', 'category', 'id'})}")
    return found


def _say_info(opened: StoredIndex, as_json: bool) -> None:
    facts = facts_of(opened)
    say(json.dumps(facts, indent=1) if as_json else "\n".join(info_lines(opened.description, facts)))
