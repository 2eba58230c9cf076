"""What an index costs beside the work that nobody is spared: building it, and adding to a large one."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from retrieval_bench import __version__
from retrieval_bench.core import Dataset, Split
from retrieval_bench.experiment.extraction import extract
from retrieval_bench.experiment.features import fit_part, recipe_of
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.images.reading import DecodedBy, ImageFiles
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.description import DESCRIPTION_FILE, ArrayFacts, Description, MethodFacts, content_of
from retrieval_bench.indexing.feature_files import Appending, FeatureFiles
from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.indexing.items import ITEMS_FILE, Item, ItemTable, item_check
from retrieval_bench.indexing.methods import joining_code
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.peer_benchmarks.report import digits, ruled
from retrieval_bench.registry import Entry, Spec
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import Stopwatch, pinned

METHODS = ("phash", "color")
SIDE = 64
"""Pixels along each side of the pictures."""
TRAIN, QUERIES, LABELS = 200, 50, 10
BUILD_TARGET = 1.15
"""Times as long as describing alone, at most."""
APPEND_TARGET = 2.0
"""Seconds for `APPENDED` items to an index of a million, at most."""
APPENDED, DIM = 1000, 128


@dataclass(frozen=True)
class BuildTimes:
    """Seconds of each round. alone: describing the same pictures and keeping nothing. build: the whole index.

    processor: seconds of all processors of both, which what others do beside this changes less.
    """

    images: int
    alone: tuple[float, ...]
    build: tuple[float, ...]
    processor: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class AppendTimes:
    """Seconds. add: of each round, until the items are acknowledged. seen: from then until a search finds one of them.

    open: until an index of so many items is ready. fresh: the first search after that, which packs all rows.
    """

    items: int
    add: tuple[float, ...]
    seen: tuple[float, ...]
    open: float
    fresh: float


def drawn(folder: Path, images: int, progress: Progress = silent) -> Dataset:
    """Small JPEG files, each another one: smooth colours with some noise; `images` of them are the gallery."""
    folder.mkdir(parents=True, exist_ok=True)
    total = images + TRAIN + QUERIES
    files = [folder / f"{number // 1000:04}" / f"{number:07}.jpg" for number in range(total)]
    for number, file in enumerate(files):
        if number % 1000 == 0:
            file.parent.mkdir(exist_ok=True)
            progress("drawing pictures", number, total)
        if not file.exists():
            rng = np.random.default_rng(number)
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
            file.write_bytes(buffer.getvalue())

    def split(first: int, n: int) -> Split:
        some = files[first : first + n]
        labels = np.arange(n, dtype=np.int64) % LABELS
        return Split(tuple(file.stem for file in some), labels, ImageFiles(some, within=folder))

    names = tuple(f"label {number}" for number in range(LABELS))
    return Dataset("drawn", split(images, TRAIN), split(0, images), split(images + TRAIN, QUERIES), names)


def build_times(
    dataset: Dataset, folder: Path, methods: Sequence[str], threads: int, rounds: int, progress: Progress = silent
) -> BuildTimes:
    """Describe the gallery by all methods, and build an index of it, in turns; nothing comes from a cache."""
    cache = FeatureCache(None)
    source = Spec(Entry(dataset.name, lambda root: dataset, "drawn"), {})
    plan = Plan(tuple(parse_method(method) for method in methods), source, threads=threads, cache=cache)
    alone, whole, processor = [], [], []
    for number in range(rounds):
        progress("rounds", number, rounds)
        started = time.process_time()
        with Stopwatch() as describing:
            _describe(plan, dataset)
        between = time.process_time()
        with Stopwatch() as building:
            build(plan, folder, overwrite=True).close()
        alone.append(describing.seconds)
        whole.append(building.seconds)
        processor.append((between - started, time.process_time() - between))
        shutil.rmtree(folder)
    return BuildTimes(len(dataset.gallery), tuple(alone), tuple(whole), tuple(processor))


def _describe(plan: Plan, dataset: Dataset) -> None:
    """What every index needs: learn, and describe the gallery and the queries by each method, one after the other."""
    fresh = DecodedBy(dataset.gallery.images, plan.decoding)
    gallery = Split(dataset.gallery.ids, dataset.gallery.labels, fresh.take(range(len(fresh))))
    with pinned(1):
        for method in plan.methods:
            pipeline = Pipeline(method, plan.setup, plan.backend)
            for part in pipeline.parts:
                recipe = recipe_of(part, plan.setup, plan.decoding.key)
                fit_part(part, recipe, dataset.train, plan.cache, part.name, silent)
                for split in (gallery, dataset.query):
                    extract(
                        part.extractor,
                        split,
                        threads=plan.threads,
                        cache=plan.cache,
                        key="",
                        progress=lambda done, total: None,
                    )


def append_times(folder: Path, items: int, rounds: int, progress: Progress = silent) -> AppendTimes:
    """Add `APPENDED` vectors at a time to an index of `items` vectors of `DIM` numbers, and search for one of them."""
    method = _synthetic(folder, items, progress)
    rng = np.random.default_rng(1)
    add, seen = [], []
    with Stopwatch() as opening:
        index = StoredIndex.open(folder, writable=True, check_recipe=False)
    with index:
        queries = rng.standard_normal((1, DIM)).astype(np.float32)
        with Stopwatch() as first:
            index.snapshot().search(method, queries, 10)
        for number in range(rounds):
            progress("adding", number, rounds)
            vectors = rng.standard_normal((APPENDED, DIM)).astype(np.float32)
            new = [NewItem(f"new/{number}/{row}", label="new", digest="0" * 64) for row in range(APPENDED)]
            with Stopwatch() as adding:
                added = index.add_features(new, [[vectors]])
            add.append(adding.seconds)
            with Stopwatch() as searching:
                found = index.snapshot().search(method, vectors[-1:], 1)
            seen.append(searching.seconds)
            if found.indices[0, 0] != added.numbers[-1]:
                raise ValueError("what was added is not found")
    shutil.rmtree(folder)
    return AppendTimes(items, tuple(add), tuple(seen), opening.seconds, first.seconds)


def _synthetic(folder: Path, items: int, progress: Progress) -> str:
    """An index of random vectors; the text of its only method."""
    array = ArrayFacts(name="hsv", described="float32", kept="float32", width=DIM)
    method = MethodFacts(
        text="hsv",
        name="hsv",
        family="color",
        distance="cosine",
        incomparable="",
        whole=False,
        learned_from=None,
        recipes=({},),
        joining=joining_code(),
        arrays=(array,),
    )
    description = Description(
        format=1,
        created="",
        version=__version__,
        dataset="drawn",
        dataset_name="drawn",
        data_root=None,
        limit=None,
        learn_from="train",
        seed=0,
        weights="auto",
        device="cpu",
        max_pixels=1,
        wanted=0,
        dtype="float32",
        methods=(method,),
        files={},
        skipped={},
        notices=(),
    )
    folder.mkdir(parents=True)
    (folder / DESCRIPTION_FILE).write_bytes(content_of(description))
    appending = Appending(FeatureFiles(folder, description, 0), 0)
    table = ItemTable.create(folder / ITEMS_FILE)
    rng = np.random.default_rng(0)

    def rows() -> object:
        for start in range(0, items, 10_000):
            progress("drawing vectors", start, items)
            vectors = rng.standard_normal((min(10_000, items - start), DIM)).astype(np.float32)
            appending.append([vectors])
            for row, vector in enumerate(vectors, start):
                digest = hashlib.sha256(str(row).encode()).hexdigest()
                item = Item(
                    0, f"item/{row:08}", f"label {row % 1000}", attributes={"row": str(row % 10)}, digest=digest
                )
                yield item, item_check(item, [vector])

    table.add(rows(), "build", "drawn")  # type: ignore[arg-type]
    table.finish()
    table.close()
    appending.sync()
    appending.close()
    return method.text


def lines(built: BuildTimes | None, added: AppendTimes | None) -> list[str]:
    """What was measured, with what is to be reached."""
    table = [["what", "median", "fastest", "slowest", "to be reached"]]
    if built is not None:
        what = f"{built.images:,} images"
        times = [whole / alone for whole, alone in zip(built.build, built.alone, strict=True)]
        table += [_row(f"{what}: describing alone, s", built.alone), _row(f"{what}: index build, s", built.build)]
        table.append(_row(f"{what}: build / describing", times, f"<= {BUILD_TARGET}"))
        times = [whole / alone for alone, whole in built.processor]
        table.append(_row(f"{what}: the same of processor time", times))
    if added is not None:
        what = f"{added.items:,} x {DIM}"
        table += [
            _row(f"{what}: {APPENDED:,} added, s", added.add, f"< {APPEND_TARGET:.0f}"),
            _row(f"{what}: then found, s", added.seen),
            _row(f"{what}: opened, s", (added.open,)),
            _row(f"{what}: first search, s", (added.fresh,)),
        ]
    return ruled(table)


def _row(what: str, values: Sequence[float], wanted: str = "") -> list[str]:
    return [what, digits(median(values)), digits(min(values)), digits(max(values)), wanted]
