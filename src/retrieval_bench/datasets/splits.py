"""Which image goes where: pure functions that divide, describe and cut down splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from retrieval_bench.core import SPLITS, BenchError, Dataset, Split
from retrieval_bench.datasets.split_names import our_splits

Shares = tuple[int, int, int]
"""Percent for train, gallery and query; they sum to 100."""

MOST_KINDS = 12
"""Attributes with more values than this are not kept in proportion by a limit."""

LOOKED_AT = 64
"""Images of a label among which a limit looks for the rarest kind."""

LEAVE_ONE_OUT = "leave-one-out"
"""In place of shares: every image is a query, and searched for among all others."""


def parse_shares(text: str) -> Shares | None:
    """Read "70/15/15". Gallery and query need a share of at least 1; train may be 0. None for leave-one-out."""
    if text.strip().casefold() == LEAVE_ONE_OUT:
        return None
    parts = text.split("/")
    if len(parts) == 3 and all(part.strip().isdecimal() for part in parts):
        train, gallery, query = (int(part) for part in parts)
        if train + gallery + query == 100 and gallery and query:
            return train, gallery, query
    raise BenchError(
        f"split={text!r} is not train/gallery/query in whole percent that sum to 100, with gallery and query above 0; "
        f"write for example split=70/15/15, split=0/50/50 or split={LEAVE_ONE_OUT}"
    )


def content_split(digest: str, shares: Shares) -> str:
    """The split of one image, from nothing but the sha256 (hex) of its content.

    The digest's first 64 bits, read as a fraction of 1, fall into one of three intervals as wide as the shares.
    """
    position = int(digest[:16], 16) * 100
    train, gallery, _ = shares
    if position < train << 64:
        return "train"
    return "gallery" if position < (train + gallery) << 64 else "query"


def content_splits(units: Sequence[str], labels: Sequence[Hashable], shares: Shares) -> list[str]:
    """The split of every image, from nothing but contents; a label that can gets a gallery and a query image.

    Each image goes where `content_split` says. A label that then lacks gallery or query images is given one: of its
    images in train the one whose position lies nearest to the query's interval, then of those that the other of the
    two can spare. So images of a label with both never move. Where images are added to a label, or taken from it, at
    most two of its others move: those that were given, and those that are given in their place.

    Args:
        units: sha256 (hex) of each image's content, or of what else stays together; equal ones share a split. What
            several labels share is never given.
        labels: the label of each image.
        shares: percent for train, gallery and query.

    Returns:
        train, gallery or query, for each image.
    """
    owners: dict[str, set[Hashable]] = {}
    held: dict[Hashable, set[str]] = {}
    for unit, label in zip(units, labels, strict=True):
        owners.setdefault(unit, set()).add(label)
        held.setdefault(label, set()).add(unit)
    assigned = {unit: content_split(unit, shares) for unit in owners}
    for own in held.values():
        movable = sorted((unit for unit in own if len(owners[unit]) == 1), reverse=True)  # the query's end first
        places = {unit: assigned[unit] for unit in own}
        for wanted, spare in (("query", "gallery"), ("gallery", "query")):
            if wanted in places.values():
                continue
            given = [unit for unit in movable if places[unit] == "train"][:1]
            if not given and list(places.values()).count(spare) > 1:
                given = [unit for unit in movable if places[unit] == spare][:: 1 if wanted == "query" else -1][:1]
            places.update(dict.fromkeys(given, wanted))
        if {"gallery", "query"} <= set(places.values()):  # one alone would help nobody
            assigned.update(places)
    return [assigned[unit] for unit in units]


def divide(whole: Split, names: Sequence[str]) -> dict[str, Split]:
    """Three splits out of one: row i goes to the split called names[i], rows keep their order.

    A name may also be "both" (gallery and query), two names with a plus, or "none".
    """
    targets = {name: our_splits(name) for name in set(names)}
    return {split: whole.take([row for row, name in enumerate(names) if split in targets[name]]) for split in SPLITS}


def some(names: Iterable[str], shown: int = 3) -> str:
    """'a', 'b', 'c' and 9 more"""
    names = sorted(names)
    text = ", ".join(repr(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"


def numbers(names: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """(n,) int64: where each name stands in `known`."""
    index = {name: number for number, name in enumerate(known)}
    return np.array([index[name] for name in names], np.int64)


def observations(dataset: Dataset) -> tuple[str, ...]:
    """What is odd but usable about these splits, as notices for the record. Reads every file once, for its digest."""
    notices = []
    if not len(dataset.train):
        notices.append(
            "there is no train image: methods that learn (vocabularies, whitening) run with --learn-from gallery alone"
        )
    names = dataset.label_names
    lone = dataset.is_distractor(dataset.gallery)
    if lone.any():
        notices.append(f"{int(lone.sum())} gallery images have no label: distractors, which are relevant to no query")
    stray = dataset.is_distractor(dataset.query)
    if stray.any():
        notices.append(f"{int(stray.sum())} queries have no label: nothing in the gallery answers them")
    several = [
        f"{int((split.other_labels >= 0).any(axis=1).sum())} {name}"
        for name, split in dataset.splits.items()
        if split.other_labels is not None and (split.other_labels >= 0).any()
    ]
    if several:
        notices.append(
            f"images with several labels: {', '.join(several)}; relevant is what shares one, and methods learn from "
            "the first"
        )
    labelled = dataset.gallery.take(np.flatnonzero(~lone)), dataset.query.take(np.flatnonzero(~stray))
    held, asked = (_shown(split) for split in labelled)
    if asked - held:
        unanswered = some(names[label] for label in asked - held)
        notices.append(f"{len(asked - held)} labels have queries but no gallery image: {unanswered}")
    if held - asked:
        unasked = some(names[label] for label in held - asked)
        notices.append(f"{len(held - asked)} labels have gallery images but no query: {unasked}")
    in_train, in_gallery = (
        Counter(split.images.digest(row) for row in range(len(split))) for split in (dataset.train, dataset.gallery)
    )
    own = set(dataset.gallery.ids)  # with leave-one-out, a query is itself in the gallery once
    known = [
        item
        for row, item in enumerate(dataset.query.ids)
        if in_train[digest := dataset.query.images.digest(row)] or in_gallery[digest] > (item in own)
    ]
    if known:
        notices.append(
            f"{len(known)} query images are byte for byte in train or gallery"
            f"{', as another image' if dataset.leave_one_out else ''}, which flatters every method: {some(known)}"
        )
    return tuple(notices)


def _shown(split: Split) -> set[int]:
    """All labels that occur."""
    return set(np.unique(split.label_sets).tolist()) - {-1}


def limit(dataset: Dataset, n: int) -> Dataset:
    """At most n images per split, evenly over the labels and with the same labels in every split.

    Labels take turns; labels that the gallery can answer go first, in label order, so that every query that had
    something to find still has; of several labels of an image, the first counts. With leave-one-out a turn is two
    images, since a query alone with itself finds nothing. Which of its images a label gives, contents decide and no
    name: in the order of their sha256, but first those whose attributes were taken least, measured by how often they
    occur. So a fourth of the images has a fourth of each camera, also where their names go by camera.
    """
    turn = 2 if dataset.leave_one_out else 1
    if n < 2 * turn:
        raise BenchError(f"--limit {n} leaves fewer than two labels; it must be at least {2 * turn}")
    lone = dataset.is_distractor(dataset.gallery)
    count = np.bincount(dataset.gallery.labels[~lone], minlength=len(dataset.label_names))
    answerable = (count >= turn) & np.isin(np.arange(len(count)), dataset.query.labels)
    order = [*np.flatnonzero(answerable).tolist(), *np.flatnonzero(~answerable).tolist()]
    splits = {name: _cut(split, order, n, turn) for name, split in dataset.splits.items()}
    if all(len(splits[name]) == len(split) for name, split in dataset.splits.items()):
        return dataset
    # An image may lie in two splits, with leave-one-out in both gallery and query.
    before, after = (len(set().union(*(split.ids for split in s.values()))) for s in (dataset.splits, splits))
    return dataset.with_splits(splits, [f"limited to {n} images per split: {after} of {before} images are used"])


def _cut(split: Split, order: Sequence[int], n: int, turn: int) -> Split:
    if len(split) <= n:
        return split
    waiting: dict[int, list[int]] = {label: [] for label in order}
    for row in sorted(range(len(split)), key=lambda row: (split.images.digest(row), split.ids[row])):
        waiting[int(split.labels[row])].append(row)
    kinds = _Kinds(split)
    chosen: list[int] = []
    while len(chosen) < n:
        for label in order:
            for _ in range(min(turn, n - len(chosen), len(waiting[label]))):
                row = waiting[label].pop(kinds.rarest(waiting[label]))
                kinds.take(row)
                chosen.append(row)
    return split.take(sorted(chosen))


class _Kinds:
    """How much of each value of each attribute has been taken; of attributes with few values alone."""

    def __init__(self, split: Split) -> None:
        self._columns: list[np.ndarray] = []  # (n,) the number of each row's value
        self._totals: list[np.ndarray] = []
        self._taken: list[np.ndarray] = []
        for name, column in split.attributes.items():
            if name.startswith("text"):
                continue  # what is said of a picture has no say in which pictures are used
            values, places, counts = np.unique(column.astype(str), return_inverse=True, return_counts=True)
            if 1 < len(values) <= MOST_KINDS:
                self._columns.append(places)
                self._totals.append(counts)
                self._taken.append(np.zeros(len(values), np.int64))

    def rarest(self, rows: Sequence[int]) -> int:
        """The place, among the first of these rows, of the one whose values were taken least; the first of equals."""
        if not self._columns:
            return 0
        some = np.asarray(rows[:LOOKED_AT], np.int64)
        each = zip(self._columns, self._totals, self._taken, strict=True)
        return int(np.argmin(sum((taken / totals)[column[some]] for column, totals, taken in each)))

    def take(self, row: int) -> None:
        for column, taken in zip(self._columns, self._taken, strict=True):
            taken[column[row]] += 1
