"""What is served: folders of indexes, a record, a dataset with methods, or nothing, which is the embedded products.

Where no index is named, one is built in the cache folder, once for each combination of images, methods and code, with
the features that runs have left in the cache. It lasts as long as the cache does.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import retrieval_bench
from retrieval_bench.core import BenchError, Setup, printable
from retrieval_bench.experiment.features import FEATURE_FILES, FEATURE_ROOMS
from retrieval_bench.experiment.prepare import Plan, load
from retrieval_bench.experiment.repeat import plan_of
from retrieval_bench.experiment.runner import DEFAULT_METHODS
from retrieval_bench.indexing.build import build
from retrieval_bench.indexing.description import DESCRIPTION_FILE, read_description
from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.files import load as load_record
from retrieval_bench.serving.answering.open_indexes import OpenIndex
from retrieval_bench.system.cache import FeatureCache, cache_root, code_version, library_versions, recipe_key
from retrieval_bench.system.progress import Progress, silent

log = logging.getLogger("retrieval_bench")

_HOME = Path(retrieval_bench.__file__).parent
_MARK = re.compile(r"\[(?!image\]|text\])\w+\]")
"""What a run adds to a name, such as [untrained]; what is compared ([text], [text-to-image]) is no such mark."""
_LOCKED = "another process is changing this index"


@dataclass(frozen=True, eq=False)
class OpenedIndexes:
    """indexes: what is served. record: the folder or file of the record that was named; None: none was."""

    indexes: tuple[OpenIndex, ...]
    record: Path | None = None


@dataclass(frozen=True)
class HowToOpen:
    """How indexes are opened.

    Args:
        weights: folder of networks' weights, or one of their words; None: as when the index was built.
        device: where networks run; None: as when the index was built.
        threads: that may be used.
        read_only: nothing can be added or removed.
        read_dataset: where the data of a record lies now, if it was moved.
    """

    weights: str | None = None
    device: str | None = None
    threads: int = 1
    read_only: bool = False
    read_dataset: Path | None = None


def open_indexes(places: Sequence[Path], how: HowToOpen) -> OpenedIndexes:
    """Open folders of indexes.

    Args:
        places: the folders, at least one.
        how: how.

    Returns:
        The indexes. One that another process changes is opened for reading, and a warning says so.

    Raises:
        BenchError: One is no index, or is damaged.
    """
    opened: list[OpenIndex] = []
    try:
        for number, place in enumerate(places):
            name = _unused(place.absolute().name or "index", [index.name for index in opened])
            stored, writable = _open(place, how)
            opened.append(OpenIndex(number, name, stored, writable))
    except BaseException:
        for index in opened:
            index.stored.close()
        raise
    return OpenedIndexes(tuple(opened))


def open_record(place: Path, how: HowToOpen, progress: Progress = silent) -> OpenedIndexes:
    """Open the index of a record's dataset and methods, after building it if that was not done before.

    Raises BenchError where the data is not there any more, or no method of the record describes new pictures.
    """
    record = load_record(place)
    plan = plan_of(record, how.read_dataset)
    finished = {_MARK.sub("", row.method) for row in record.rows if row.status == "ok"}
    methods = [method for method in plan.methods if str(method) in finished]
    plan = replace(plan, cache=FeatureCache(cache_root()), threads=how.threads)
    return replace(open_dataset(replace(plan, methods=tuple(methods)), how, progress), record=place)


def open_dataset(plan: Plan, how: HowToOpen, progress: Progress = silent) -> OpenedIndexes:
    """Open the index of a dataset and methods in the cache folder, after building it if that was not done before.

    Args:
        plan: dataset, methods, seed, weights, device and what else an index depends on. Methods that describe no new
            picture (controls, vectors from files) are left out with a warning.
        how: how it is opened.
        progress: called often.

    Returns:
        The index.

    Raises:
        BenchError: No method is left, the dataset cannot be read, or the cache folder cannot be written.
    """
    methods = tuple(method for method in plan.methods if _describes(method))
    if left_out := [str(method) for method in plan.methods if method not in methods]:
        log.warning("%s: left out, as no new picture can be described by it", ", ".join(left_out))
    if not methods:
        raise BenchError("no method is left that describes new pictures; name some with --methods, e.g. phash,color")
    plan = replace(plan, methods=methods)
    folder = cached_index(plan)
    if not (folder / DESCRIPTION_FILE).is_file():
        try:
            build(plan, folder, progress=progress).close()
        except BenchError:
            if not (folder / DESCRIPTION_FILE).is_file():  # else another process was quicker
                raise
    try:
        stored, writable = _open(folder, replace(how, weights=plan.weights, device=plan.device))
    except BenchError as error:
        raise BenchError(f"{error} (remove the folder {printable(folder)} and serve again)") from None
    return OpenedIndexes((OpenIndex(0, plan.dataset.entry.name, stored, writable),))


def cached_index(plan: Plan) -> Path:
    """Where the index of a plan lies in the cache: by everything that its rows depend on."""
    dataset = load(plan).with_pictures()
    rooms = [file for room in FEATURE_ROOMS for file in (_HOME / room).rglob("*.py")]
    files = [*rooms, *(_HOME / name for name in FEATURE_FILES), *(_HOME / "indexing").rglob("*.py")]
    key = recipe_key(
        {
            "kind": "index",
            "dataset": str(plan.dataset),
            "images": dataset.fingerprint,
            "limit": plan.limit,
            "methods": [str(method) for method in plan.methods],
            "seed": plan.seed,
            "weights": plan.weights,
            "device": plan.device,
            "learn_from": plan.learn_from,
            "relevance": plan.relevance,
            "decoder": plan.decoding.key,
            "decode": plan.decode,
            "code": code_version(*files),
            "libraries": library_versions(),
        }
    )
    return cache_root() / "indexes" / key[:32]


def default_methods() -> tuple[Method, ...]:
    """The default line-up of a run, without its controls."""
    return tuple(method for method in map(parse_method, DEFAULT_METHODS) if _describes(method))


def is_index(place: Path) -> bool:
    """Whether a folder is to be opened as an index, not as a record."""
    return (place / DESCRIPTION_FILE).exists()


def _describes(method: Method) -> bool:
    """Whether a method looks at pictures or texts; what else may be wrong with it, `build` says."""
    return not method.by_id and all(spec.entry.family != "control" for spec in method.members)


def _open(folder: Path, how: HowToOpen) -> tuple[StoredIndex, bool]:
    """The index, and whether it is open for writing."""
    description = read_description(folder)
    setup = Setup(
        description.seed,
        description.weights if how.weights is None else how.weights,
        description.device if how.device is None else how.device,
        how.threads,
    )
    if how.read_only:
        return StoredIndex.open(folder, setup, check_recipe=False), False
    try:
        return StoredIndex.open(folder, setup, writable=True, check_recipe=False), True
    except BenchError as error:
        if _LOCKED not in str(error):
            raise
        log.warning("%s; it is served for reading only", error)
        return StoredIndex.open(folder, setup, check_recipe=False), False


def _unused(name: str, used: Sequence[str]) -> str:
    """The name, with a number behind it where there is one of this name already."""
    names: Callable[[int], str] = lambda number: name if number == 1 else f"{name}-{number}"  # noqa: E731
    return next(one for number in range(1, len(used) + 2) if (one := names(number)) not in used)
