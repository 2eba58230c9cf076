"""Which image goes where: pure functions that divide, describe and cut down splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from retrieval_bench.core import SPLITS, BenchError, Dataset, Split

Shares = tuple[int, int, int]
"""Percent for train, gallery and query; they sum to 100."""


def parse_shares(text: str) -> Shares:
    """Read "70/15/15". Gallery and query need a share of at least 1; train may be 0."""
    parts = text.split("/")
    if len(parts) == 3 and all(part.strip().isdecimal() for part in parts):
        train, gallery, query = (int(part) for part in parts)
        if train + gallery + query == 100 and gallery and query:
            return train, gallery, query
    raise BenchError(
        f"split={text!r} is not train/gallery/query in whole percent that sum to 100, with gallery and query above 0; "
        "write for example split=70/15/15 or split=0/50/50"
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


def divide(whole: Split, names: Sequence[str]) -> dict[str, Split]:
    """Three splits out of one: row i goes to the split called names[i], rows keep their order."""
    assigned = np.array(names, dtype=object)
    return {name: whole.take(np.flatnonzero(assigned == name)) for name in SPLITS}


def some(names: Iterable[str], shown: int = 3) -> str:
    """'a', 'b', 'c' and 9 more"""
    names = sorted(names)
    text = ", ".join(repr(name) for name in names[:shown])
    return text if len(names) <= shown else f"{text} and {len(names) - shown} more"


def observations(dataset: Dataset) -> tuple[str, ...]:
    """What is odd but usable about these splits, as notices for the record. Reads every file once, for its digest."""
    notices = []
    if not len(dataset.train):
        notices.append("there is no train image: methods that learn from train (vocabularies, whitening) cannot run")
    names = dataset.label_names
    held, asked = (set(split.labels.tolist()) for split in (dataset.gallery, dataset.query))
    if asked - held:
        unanswered = some(names[label] for label in asked - held)
        notices.append(f"{len(asked - held)} labels have queries but no gallery image: {unanswered}")
    if held - asked:
        unasked = some(names[label] for label in held - asked)
        notices.append(f"{len(held - asked)} labels have gallery images but no query: {unasked}")
    if not dataset.leave_one_out:
        seen = {split.images.digest(row) for split in (dataset.train, dataset.gallery) for row in range(len(split))}
        known = [item for row, item in enumerate(dataset.query.ids) if dataset.query.images.digest(row) in seen]
        if known:
            notices.append(
                f"{len(known)} query images are byte for byte in train or gallery, "
                f"which flatters every method: {some(known)}"
            )
    return tuple(notices)


def limit(dataset: Dataset, n: int) -> Dataset:
    """At most n images per split, evenly over the labels and with the same labels in every split.

    Labels take turns, each turn giving the label's next images by id; labels that the gallery can answer go first, in
    label order, so that every query that had something to find still has. With leave-one-out a turn is two images,
    since a query alone with itself finds nothing.
    """
    turn = 2 if dataset.leave_one_out else 1
    if n < 2 * turn:
        raise BenchError(f"--limit {n} leaves fewer than two labels; it must be at least {2 * turn}")
    count = np.bincount(dataset.gallery.labels, minlength=len(dataset.label_names))
    answerable = (count >= turn) & np.isin(np.arange(len(count)), dataset.query.labels)
    order = [*np.flatnonzero(answerable).tolist(), *np.flatnonzero(~answerable).tolist()]
    splits = {name: _cut(split, order, n, turn) for name, split in dataset.splits.items()}
    before, after = (sum(len(split) for split in s.values()) for s in (dataset.splits, splits))
    if before == after:
        return dataset
    return dataset.with_splits(splits, [f"limited to {n} images per split: {after} of {before} images are used"])


def _cut(split: Split, order: Sequence[int], n: int, turn: int) -> Split:
    if len(split) <= n:
        return split
    waiting: dict[int, list[int]] = {label: [] for label in order}
    for row in sorted(range(len(split)), key=lambda row: split.ids[row], reverse=True):
        waiting[int(split.labels[row])].append(row)
    chosen: list[int] = []
    while len(chosen) < n:
        for label in order:
            room = min(turn, n - len(chosen), len(waiting[label]))
            chosen += [waiting[label].pop() for _ in range(room)]
    return split.take(sorted(chosen))
