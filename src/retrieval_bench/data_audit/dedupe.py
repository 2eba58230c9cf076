"""Near-duplicates of a whole collection: images in, groups out, with a measured threshold for each method."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval_bench.core import BadImage, BenchError, Dataset, Distance, Images, Split, printable
from retrieval_bench.data_audit.calibration import (
    DIFFERENT,
    Copies,
    Judgement,
    Originals,
    PlantedCopies,
    farthest_copy,
    judged,
    kinds_each,
    planted,
    unlike,
)
from retrieval_bench.data_audit.duplicates import Describe, Gathered, check_within
from retrieval_bench.data_audit.grouping import Group, Grouped, grouped, of_equal_pixels
from retrieval_bench.data_audit.looks import Looks, look_at_all
from retrieval_bench.datasets.tables import IN_A_LIST, at_line, called_line, read_table
from retrieval_bench.images.formats import SUFFIXES
from retrieval_bench.images.listing import PassedOver, image_files
from retrieval_bench.images.reading import ImageFiles, files_of
from retrieval_bench.system.cache import FeatureCache

THUMBNAIL = 144
MOST_POINTS = 200
"""Points kept of a threshold sweep."""

LABEL_COLUMNS = ("path", "label")
"""Of the table that says what each image of a folder shows."""

KEPT = "the one to keep: a file before a link, then most pixels, then most bytes, then the first name"


@dataclass(frozen=True, eq=False)
class Collection:
    """Images to compare. train: what methods learn from; of a plain folder all of it.

    labels: (n,) int64, -1 where none is known; None: nothing is labelled. root, paths: of a folder, its own path and
    each file's below it. linked: (n,) bool, reached by a symbolic link, so that the file is not this folder's own.
    file_bytes: (n,). looks: what one look at each tells. bad: (id, reason) of those left out. total: images before.
    notices: sentences about files that were passed over.
    """

    ids: tuple[str, ...]
    images: Images
    train: Split | None
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()
    root: Path | None = None
    paths: tuple[str, ...] = ()
    linked: np.ndarray | None = None
    file_bytes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    looks: Looks | None = None
    bad: tuple[tuple[str, str], ...] = ()
    total: int = 0
    notices: tuple[str, ...] = ()
    place: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> Looks:
        if self.looks is None:
            raise ValueError("nobody has looked at these images; call usable()")
        return self.looks

    def rank(self) -> np.ndarray:
        """(n,) int64: 0 for the one to keep of all, by `KEPT`."""
        n = len(self.ids)
        names = np.empty(n, np.int64)
        names[sorted(range(n), key=lambda row: self.ids[row])] = np.arange(n)
        linked = np.zeros(n, bool) if self.linked is None else self.linked
        areas = self.seen.sizes[:, 0] * self.seen.sizes[:, 1]
        ranks = np.empty(n, np.int64)
        ranks[np.lexsort((names, -self.file_bytes, -areas, linked))] = np.arange(n)
        return ranks

    def label_of(self, row: int) -> str | None:
        if self.labels is None or self.labels[row] < 0:
            return None
        return self.label_names[int(self.labels[row])]

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
    """All images of all splits with their labels, each id once."""
    origins: dict[str, tuple[Images, int]] = {}
    labels: dict[str, int] = {}
    for name, split in dataset.splits.items():
        for row, item in enumerate(split.ids):
            known = origins.get(item)
            if known is not None and known[0].digest(known[1]) != split.images.digest(row):
                item = f"{name}: {item}"
            origins.setdefault(item, (split.images, row))
            labels.setdefault(item, int(split.labels[row]))
    return Collection(
        tuple(origins),
        Gathered(list(origins.values())),
        dataset.train,
        np.array(list(labels.values()), np.int64),
        dataset.label_names,
        notices=dataset.notices,
    )


def of_folder(folder: Path, labels: str | None = None) -> Collection:
    """All images below a folder, in order of their paths, each file once however many names it has.

    labels: "folders" for the name of each image's own folder, else a CSV file with the columns path and label. Raises
    BenchError.
    """
    if not folder.is_dir():
        raise BenchError(
            f"{printable(folder)} is neither a dataset nor a folder; see `list datasets`, or name a folder of images"
        )
    passed_over = PassedOver()
    home = os.path.realpath(folder)
    listed: list[str] = []
    linked: list[bool] = []
    for file in image_files(folder, passed_over):
        below = file.relative_to(folder).as_posix()
        listed.append(below)
        linked.append(os.path.realpath(file) != os.path.normpath(os.path.join(home, below)))
    first: set[tuple[int, int]] = set()
    kept = []
    for row in sorted(range(len(listed)), key=lambda row: linked[row]):  # a file's own name before that of a link
        try:
            status = os.stat(os.path.join(folder, listed[row]))
        except OSError:  # reading it will say why
            kept.append(row)
            continue
        if (status.st_dev, status.st_ino) in first:
            passed_over.ignored["further names of a listed file (links)"] += 1
        else:
            first.add((status.st_dev, status.st_ino))
            kept.append(row)
    del first
    kept.sort()
    files = [listed[row] for row in kept]
    notices = tuple(passed_over.notices())
    if not files:
        raise BenchError("; ".join([f"{printable(folder)} has 0 images ({'/'.join(SUFFIXES)})", *notices]))
    ids = _unique([printable(file) for file in files])
    images = ImageFiles([os.path.join(folder, file) for file in files], within=folder)
    collection = Collection(
        ids, images, None, root=folder, paths=tuple(files), linked=np.array(linked)[kept], notices=notices
    )
    return collection if labels is None else _labelled(collection, folder, labels)


def _unique(names: list[str]) -> tuple[str, ...]:
    """Bytes that are not UTF-8 and their escaped form may print alike."""
    seen: set[str] = set()
    for row, name in enumerate(names):
        number = 1
        while names[row] in seen:
            number += 1
            names[row] = f"{name} ({number})"
        seen.add(names[row])
    return tuple(names)


def _labelled(collection: Collection, folder: Path, labels: str) -> Collection:
    if labels == "folders":
        known: list[str | None] = [printable(os.path.dirname(file)) or None for file in collection.paths]
    else:
        by_path = _label_file(Path(labels))
        known = [by_path.get(os.path.normpath(file)) for file in collection.paths]
        if not any(known):
            raise BenchError(f"--labels {labels}: no path in it is one of an image, relative to {printable(folder)}")
    label_names = sorted({name for name in known if name is not None})
    number = {name: place for place, name in enumerate(label_names)}
    found = np.array([-1 if name is None else number[name] for name in known], np.int64)
    lacking = int((found < 0).sum())
    said = (f"{lacking} images have no label",) if lacking else ()
    return replace(collection, labels=found, label_names=tuple(label_names), notices=(*collection.notices, *said))


def _label_file(file: Path) -> dict[str, str]:
    """Path below the folder -> label, of a table such as a manifest; rows that lack one of the two are passed over."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BenchError(
            f"--labels {printable(file)}: neither `folders` nor a table that can be read ({error.strerror})"
        ) from None
    table = read_table(file, LABEL_COLUMNS, LABEL_COLUMNS, content)
    if not table.rows or not set(LABEL_COLUMNS) <= set(table.columns):
        raise BenchError(
            f"--labels {printable(file)}: it needs the columns {' and '.join(LABEL_COLUMNS)}, separated by commas, "
            "semicolons or tabs, and a row for each image"
        )
    found: dict[str, str] = {}
    for line, cells in table.rows:
        path, label = (cells.get(column, "").replace(IN_A_LIST, ", ") for column in LABEL_COLUMNS)
        if path and label and found.setdefault(os.path.normpath(path), label) != label:
            raise at_line(file, line, f"{path!r} has another label in an earlier {called_line(file)}; give it one")
    return found


def usable(
    collection: Collection, cache: FeatureCache, threads: int, progress: Callable[[int, int], None]
) -> Collection:
    """The collection without images that cannot be decoded, after one look at each. Raises BenchError if none is left.

    What was seen is kept in the cache, so that a second run need not decode.
    """
    looks, rows, bad = look_at_all(collection.images, cache, threads, progress)
    n = len(collection.ids)
    if not rows:
        raise BenchError(f"none of the {n} images can be used: {collection.ids[bad[0][0]]}: {bad[0][1].detail}")
    ids = tuple(collection.ids[row] for row in rows)
    images = collection.images.take(rows)
    lost = {collection.ids[row] for row, _ in bad}
    train = collection.train
    if train is None:
        train = _split(ids, images)
    else:
        train = train.take([row for row, item in enumerate(train.ids) if item not in lost])
    files = files_of(images)
    file_bytes = np.array([_size_of(images, files, row) for row in range(len(rows))], np.int64)
    return replace(
        collection,
        ids=ids,
        images=images,
        train=train,
        labels=None if collection.labels is None else collection.labels[rows],
        paths=tuple(collection.paths[row] for row in rows) if collection.paths else (),
        linked=None if collection.linked is None else collection.linked[rows],
        file_bytes=file_bytes,
        looks=looks,
        bad=tuple((collection.ids[row], one.reason) for row, one in bad),
        total=n,
        place={item: row for row, item in enumerate(ids)},
    )


def _size_of(images: Images, files: ImageFiles | None, row: int) -> int:
    try:
        return len(images.read(row)) if files is None else os.stat(files.place(row)).st_size
    except (BadImage, OSError):  # gone meanwhile
        return 0


@dataclass(frozen=True, eq=False)
class DuplicateGroups:
    """What one method found. threshold None: all images are flat, so that only equal pixels count.

    pairs: of images within the threshold, or of equal pixels; in_groups: how many of these lie in a group. flat: images
    that were not compared by the method. search_s: seconds of search and grouping alone.
    """

    method: str
    distance: Distance | None
    threshold: float | None
    judgement: Judgement | None
    pairs: int
    in_groups: int
    groups: tuple[Group, ...]
    flat: int
    search_s: float


def by_method(
    collection: Collection,
    method: str,
    describe: Describe,
    within: float | None,
    precision: float | None,
    copies: int,
    seed: int,
) -> DuplicateGroups:
    """Measure where to draw the line, unless `within` says so, then find all groups of the collection.

    Flat images are not compared by the method: no hash and no keypoint sees them. They, and what the method cannot
    tell, are grouped where their pixels are equal. Where too few pictures differ for false pairs, the threshold is the
    distance of the farthest JPEG copy.

    method: its name, for where it is never asked. copies: about how many copies are planted, of pictures of which none
    resembles another.
    """
    looks, rank = collection.seen, collection.rank()
    same = looks.same_pixels()
    drawn = np.flatnonzero(~looks.flat)
    whole = collection.images.take(drawn.tolist())
    wanted = {"all": _split(tuple(collection.ids[row] for row in drawn.tolist()), whole)}
    changes: list[tuple[str, int]] = []
    owners = order = np.zeros(0, np.int64)
    if within is None:
        once = np.unique(same[drawn], return_index=True)[1]  # known copies are no pictures of their own
        order = np.sort(once)[np.random.default_rng(seed).permutation(len(once))]
        thumbnails = looks.thumbnails[drawn]
        sample = unlike(thumbnails, order, copies)
        if len(sample):
            each = kinds_each(len(sample), copies)
            owners = np.repeat(sample, each)
            changes = planted(len(owners))
            both = Copies(whole.take(owners.tolist()), changes, seed)
            wanted["copies"] = _split(tuple(map(str, range(len(both)))), both)
    assert collection.train is not None
    name, features = method, dict[str, np.ndarray]()
    distance: Distance | None = None
    if len(drawn) and (within is not None or changes):  # else there is nothing that the method could be asked about
        name, distance, features = describe(collection.train, wanted)
        if within is not None:
            check_within(within, distance)
    judgement = None
    if changes and distance is not None:
        others = np.sort(order[:DIFFERENT])
        labels = None if collection.labels is None else _told_apart(collection.labels[drawn][others])
        judgement = judged(
            PlantedCopies(features["copies"], owners, changes),
            Originals(features["all"][others], thumbnails[others], labels),
            distance,
            seed,
            precision,
            len(collection.ids),
        )
        within = farthest_copy(features["copies"], distance, changes) if judgement is None else judgement.threshold
    started = time.perf_counter()
    found = Grouped((), 0)
    if within is not None and distance is not None:
        found = grouped(features["all"], within, distance, rank[drawn])
    groups = [replace(group, rows=drawn[group.rows]) for group in found.groups]
    left = np.setdiff1d(np.arange(len(rank)), np.concatenate([drawn[:0], *(group.rows for group in groups)]))
    equal = [replace(group, rows=left[group.rows]) for group in of_equal_pixels(same[left], rank[left])]
    in_groups = sum(len(group.rows) * (len(group.rows) - 1) // 2 for group in (*groups, *equal))
    pairs = found.pairs + sum(len(group.rows) * (len(group.rows) - 1) // 2 for group in equal)
    spent = time.perf_counter() - started
    everything = sorted((*groups, *equal), key=lambda group: int(rank[group.rows[0]]))
    return DuplicateGroups(
        name, distance, within, judgement, pairs, in_groups, tuple(everything), int(looks.flat.sum()), spent
    )


def _told_apart(labels: np.ndarray) -> np.ndarray:
    """Labels in which each image without one has its own."""
    return np.where(labels >= 0, labels, -1 - np.arange(len(labels)))


def facts(
    collection: Collection, source: str, within: float | None, found: Sequence[DuplicateGroups]
) -> dict[str, Any]:
    """All of it, ready for JSON. within: the threshold that was given, None where it was measured."""
    return {
        "source": source,
        "images": collection.total,
        "distinct": len({collection.images.digest(row) for row in range(len(collection.ids))}),
        "flat": int(collection.seen.flat.sum()),
        "labelled": collection.labels is not None,
        "unusable": [{"id": item, "reason": reason} for item, reason in collection.bad],
        "notices": list(collection.notices),
        "keep": KEPT,
        "within": within,
        "methods": [
            {
                "method": one.method,
                "distance": one.distance,
                "threshold": one.threshold,
                "judged": None if one.judgement is None else _judgement(one.judgement),
                "pairs": one.pairs,
                "pairs_in_groups": one.in_groups,
                "flat": one.flat,
                "search_s": one.search_s,
                "groups": [_group(group, collection) for group in one.groups],
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
        "pairs": judgement.pairs,
        "looked_at": judgement.looked_at,
        "alike_by_nature": judgement.alike,
        "alike_found": judgement.alike_found,
        "precision_at_least": judgement.precision_at_least,
        "sweep": columns,
    }


def _group(group: Group, collection: Collection) -> dict[str, Any]:
    told: dict[str, Any] = {"diameter": group.diameter, "by": "equal pixels" if group.equal else "distance"}
    if collection.labels is not None:
        told["labels"] = len(set(collection.labels[group.rows].tolist()) - {-1})
    return {**told, "members": [_member(row, collection) for row in group.rows.tolist()]}


def _member(row: int, collection: Collection) -> dict[str, Any]:
    height, width = collection.seen.sizes[row].tolist()
    told: dict[str, Any] = {"id": collection.ids[row], "height": height, "width": width}
    told["bytes"] = int(collection.file_bytes[row])
    if collection.labels is not None:
        told["label"] = collection.label_of(row)
    return told


def _split(ids: tuple[str, ...], images: Images) -> Split:
    return Split(ids, np.zeros(len(ids), np.int64), images)
