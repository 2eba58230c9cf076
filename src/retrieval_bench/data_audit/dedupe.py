"""Near-duplicates of a whole collection: images in, groups out, with a measured threshold for each method."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval_bench.core import BadImage, BenchError, Dataset, Distance, Images, Split, printable
from retrieval_bench.data_audit.duplicates import (
    Copies,
    Describe,
    Gathered,
    Judgement,
    groups,
    judged,
    pairs_within,
    planted,
)
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.reading import ImageFiles
from retrieval_bench.images.screening import looked_at

THUMBNAIL = 144
MOST_POINTS = 200
"""Points kept of a threshold sweep."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Images to compare. train: what methods learn from; of a plain folder all of it, since it has no labels to leak.

    sizes: (height, width, bytes) of each. bad: (id, reason) of those left out. total: images before these were.
    """

    ids: tuple[str, ...]
    images: Images
    train: Split | None
    sizes: tuple[tuple[int, int, int], ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    total: int = 0
    place: dict[str, int] = field(default_factory=dict)

    def thumbnail(self, item: str) -> bytes | None:
        """A small JPEG; None where the image has become unreadable meanwhile."""
        try:
            picture = Image.fromarray(self.images[self.place[item]])
        except BadImage:
            return None
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        return buffer.getvalue()


def of_dataset(dataset: Dataset) -> Collection:
    """All images of all splits, each id once."""
    origins: dict[str, tuple[Images, int]] = {}
    for name, split in dataset.splits.items():
        for row, item in enumerate(split.ids):
            known = origins.get(item)
            if known is not None and known[0].digest(known[1]) != split.images.digest(row):
                item = f"{name}: {item}"
            origins.setdefault(item, (split.images, row))
    return Collection(tuple(origins), Gathered(list(origins.values())), dataset.train)


def of_folder(folder: Path) -> Collection:
    """All files below it that are named like images, in order of their paths. Raises BenchError."""
    if not folder.is_dir():
        raise BenchError(
            f"{printable(folder)} is neither a dataset nor a folder; see `list datasets`, or name a folder of images"
        )
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    # By the parts of their names, as Windows has paths in another order: without regard to upper case.
    files = sorted(found, key=lambda file: file.relative_to(folder).parts)
    if len(files) < 2:
        raise BenchError(f"{printable(folder)} has {len(files)} images ({'/'.join(SUFFIXES)}); at least two are needed")
    return Collection(tuple(printable(file.relative_to(folder).as_posix()) for file in files), ImageFiles(files), None)


def usable(collection: Collection, threads: int, progress: Callable[[int, int], None]) -> Collection:
    """The collection without images that cannot be decoded. Raises BenchError where fewer than four are left."""

    def look(images: Images, row: int) -> tuple[int, int, int]:
        content = images.read(row)
        height, width = decode(content).shape[:2]
        return height, width, len(content)

    n = len(collection.ids)
    found = looked_at([(collection.images, row) for row in range(n)], look, threads, progress)
    sizes = {row: one for row, one in enumerate(found) if not isinstance(one, BadImage)}
    bad = tuple((collection.ids[row], one.reason) for row, one in enumerate(found) if isinstance(one, BadImage))
    rows = list(sizes)
    if len(rows) < 4:
        raise BenchError(f"only {len(rows)} of {n} images can be used; duplicates need at least four")
    ids = tuple(collection.ids[row] for row in rows)
    images = collection.images.take(rows)
    lost = {item for item, _ in bad}
    train = collection.train
    if train is None:
        train = Split(ids, np.zeros(len(ids), np.int64), images)
    else:
        train = train.take([row for row, item in enumerate(train.ids) if item not in lost])
    place = {item: row for row, item in enumerate(ids)}
    return Collection(ids, images, train, tuple(sizes.values()), bad, n, place)


@dataclass(frozen=True, eq=False)
class DuplicateGroups:
    """What one method found. pairs: how many. groups: rows, the one to keep first. search_s: range search alone."""

    method: str
    distance: Distance
    threshold: float
    judgement: Judgement | None
    pairs: int
    groups: tuple[np.ndarray, ...]
    search_s: float


def by_method(
    collection: Collection,
    describe: Describe,
    within: float | None,
    precision: float | None,
    copies: int,
    seed: int,
) -> DuplicateGroups:
    """Measure where to draw the line, unless `within` says so, then find all pairs and groups of the collection.

    copies: how many images of distinct content get a planted copy.
    """
    wanted = {"all": _split(collection.ids, collection.images)}
    changes: list[tuple[str, int]] = []
    if within is None:
        once = {collection.images.digest(row): row for row in reversed(range(len(collection.ids)))}
        rows = np.array(sorted(once.values()), np.int64)
        sample = np.sort(np.random.default_rng(seed).permutation(rows)[:copies])
        if len(sample) < 4:
            raise BenchError("fewer than four different images: too few to measure a threshold; give one with --within")
        changes = planted(len(sample))
        both = Copies(collection.images.take(sample.tolist()), changes, seed)
        wanted["copies"] = _split(tuple(map(str, range(len(both)))), both)
    assert collection.train is not None
    name, distance, features = describe(collection.train, wanted)
    judgement = None
    if within is None:
        judgement = judged(features["copies"], distance, changes, seed, precision, len(collection.ids))
        within = judgement.threshold
    started = time.perf_counter()
    pairs = pairs_within(features["all"], within, distance)
    together = groups(len(collection.ids), pairs)
    spent = time.perf_counter() - started
    return DuplicateGroups(
        name, distance, within, judgement, len(pairs), tuple(_best_first(part, collection) for part in together), spent
    )


def facts(collection: Collection, source: str, found: Sequence[DuplicateGroups]) -> dict[str, Any]:
    """All of it, ready for JSON."""
    return {
        "source": source,
        "images": collection.total,
        "distinct": len({collection.images.digest(row) for row in range(len(collection.ids))}),
        "unusable": [{"id": item, "reason": reason} for item, reason in collection.bad],
        "methods": [
            {
                "method": one.method,
                "distance": one.distance,
                "threshold": one.threshold,
                "judged": None if one.judgement is None else _judgement(one.judgement),
                "pairs": one.pairs,
                "search_s": one.search_s,
                "groups": [{"members": [_member(row, collection) for row in part.tolist()]} for part in one.groups],
            }
            for one in found
        ],
    }


def _judgement(judgement: Judgement) -> dict[str, Any]:
    points = np.unique(np.linspace(0, len(judgement.curve.thresholds) - 1, MOST_POINTS).round().astype(int))
    columns = {name: column[points].tolist() for name, column in asdict(judgement.curve).items()}
    return {
        "tuned": judgement.tuned,
        "held_out": judgement.held_out,
        "found": judgement.found,
        "false_per_million": judgement.false_per_million,
        "sweep": columns,
    }


def _best_first(rows: np.ndarray, collection: Collection) -> np.ndarray:
    """The one with the most pixels, then bytes, first: that is the one to keep."""

    def rank(row: int) -> tuple[int, int, int]:
        height, width, size = collection.sizes[row]
        return -height * width, -size, row

    return np.array(sorted(rows.tolist(), key=rank), np.int64)


def _member(row: int, collection: Collection) -> dict[str, Any]:
    height, width, size = collection.sizes[row]
    return {"id": collection.ids[row], "height": height, "width": width, "bytes": size}


def _split(ids: tuple[str, ...], images: Images) -> Split:
    return Split(ids, np.zeros(len(ids), np.int64), images)
