"""Find the images that cannot be used before anything is computed, and stop where they are too many."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar, overload

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Dataset, Images, Split
from retrieval_bench.images.decoded_cache import DecodedOnce
from retrieval_bench.images.decoding import NOTES
from retrieval_bench.system.threads import mapped

Look = tuple[int, int, int]
"""(height, width, notes): of a picture that can be used; bit i of the last says that `decoding.NOTES[i]` holds."""
_Facts = TypeVar("_Facts")

_HASHED_AT_ONCE = 64
_KEPT_AT_ONCE = 8192


@dataclass(frozen=True)
class SkippedImage:
    """One image that is left out. `reason` is countable, `detail` one sentence about this image."""

    split: str
    id: str
    reason: str
    detail: str


def digests_of(images: Images, threads: int) -> list[str]:
    """What identifies each image; each thread hashes many at once."""
    starts = range(0, len(images), _HASHED_AT_ONCE)

    def some(start: int) -> list[str]:
        return [images.digest(row) for row in range(start, min(start + _HASHED_AT_ONCE, len(images)))]

    return [digest for found in mapped(some, starts, threads) for digest in found]


def screen(
    dataset: Dataset,
    looks: MutableMapping[str, Look] | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    keep: Callable[[Mapping[str, Look]], None] | None = None,
) -> tuple[Dataset, tuple[SkippedImage, ...]]:
    """Decode every image once; return the dataset without the bad ones, and these, in order of split and row.

    What decoding did to images beyond reading is counted in the notices of the dataset.

    looks: by digest, images known to be whole, so that a second run decodes nothing; what is found is added. It holds
        for one `Decoding.key` only.
    threads: how many images are decoded at a time.
    progress: called in this thread with (contents checked, contents in all); an image that is in several splits, or
        twice in one, is one content.
    keep: called in this thread with some looks that were found, now and then, so that what is interrupted goes on.
    Raises BenchError where what is left is no dataset.
    """
    looks = {} if looks is None else looks
    splits = tuple(dataset.splits.values())
    digests = [digest for split in splits for digest in digests_of(split.images, threads)]
    pictured = np.concatenate([pictured_rows(split) for split in splits])
    contents = {digest for digest, seen in zip(digests, pictured, strict=True) if seen}
    unknown = {digest for digest in contents if digest not in looks}
    known, total = len(contents) - len(unknown), len(contents)
    del contents

    pending: list[int] = []
    for place, digest in enumerate(digests):
        if pictured[place] and digest in unknown:
            unknown.remove(digest)
            pending.append(place)
    images = _Places(splits, pending)

    def show(done: int, _: int) -> None:
        if progress is not None:
            progress(known + done, total)

    bad: dict[str, BadImage] = {}
    alike: dict[Look, Look] = {}  # most pictures of a collection have one size, whose look is held once
    found: dict[str, Look] = {}
    try:
        for place, look in zip(pending, looked_at(images, look_of, threads, show), strict=True):
            if isinstance(look, BadImage):
                bad[digests[place]] = look
                continue
            looks[digests[place]] = found[digests[place]] = alike.setdefault(look, look)
            if keep is not None and len(found) >= _KEPT_AT_ONCE:
                keep(found)
                found = {}
    finally:
        if keep is not None and found:
            keep(found)
    notes = Counter(
        looks[digest][2] for digest, seen in zip(digests, pictured, strict=True) if seen and digest not in bad
    )
    if notices := _noted(notes):
        dataset = dataset.with_splits({}, notices)
    return _without(dataset, digests, bad) if bad else (dataset, ())


class _Places(Sequence[tuple[Images, int]]):
    """Where images lie: of each the images of its split, and its row there.

    splits: one behind the other. places: of each image, its row in all of them.
    """

    def __init__(self, splits: Sequence[Split], places: Sequence[int]) -> None:
        self._splits, self._places = splits, places
        self._ends = list(accumulate(len(split) for split in splits))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> tuple[Images, int]: ...
    @overload
    def __getitem__(self, index: slice) -> _Places: ...
    def __getitem__(self, index: int | slice) -> tuple[Images, int] | _Places:
        if isinstance(index, slice):
            return _Places(self._splits, self._places[index])
        place = self._places[index]
        at = bisect_right(self._ends, place)
        return self._splits[at].images, place - self._ends[at] + len(self._splits[at])


def pictured_rows(split: Split) -> np.ndarray:
    """(n,) bool: the items that have a picture."""
    return np.ones(len(split), bool) if split.pictured is None else split.pictured


def looked_at(
    images: Sequence[tuple[Images, int]],
    look: Callable[[Images, int], _Facts],
    threads: int,
    progress: Callable[[int, int], None],
) -> Iterator[_Facts | BadImage]:
    """What `look` says of each image, or why it cannot be used, one after the other.

    Args:
        images: where each image lies: a sequence of images and a row in it.
        look: (images, row) -> facts; it may raise BadImage.
        threads: how many images are looked at at a time.
        progress: called in this thread with (images done, images in all).

    Yields:
        The facts, or the BadImage, in the order of the images.
    """

    def one(place: tuple[Images, int]) -> _Facts | BadImage:
        try:
            return look(*place)
        except BadImage as bad:
            return bad

    for done, facts in enumerate(mapped(one, images, threads), start=1):
        progress(done, len(images))
        yield facts


def refuse_too_many(skipped: Sequence[SkippedImage], total: int, share: float) -> None:
    """Raise BenchError when more than `share` (0..1) of `total` images were skipped."""
    if len(skipped) > round(share * total, 6):  # 0.29 * 100 is a little less than 29
        raise BenchError(
            f"{len(skipped)} of {total} images cannot be used ({_summary(skipped)}), more than --max-bad {share:g} "
            f"allows; repair or remove them, or raise --max-bad; {_first(skipped)}"
        )


def look_of(images: Images, row: int) -> Look:
    """Decode one image, and say what was seen. Raises BadImage."""
    height, width = images[row].shape[:2]
    notes = images.notes(row) if isinstance(images, DecodedOnce) else ()
    return height, width, sum(1 << NOTES.index(note) for note in notes)


def _noted(notes: Mapping[int, int]) -> list[str]:
    """3 images in another colour space, converted to sRGB. notes: bits of `Look` -> how many images have them."""
    counts = [(sum(n for bits, n in notes.items() if bits >> place & 1), note) for place, note in enumerate(NOTES)]
    return [f"{count:,} {'image' if count == 1 else 'images'} {note}" for count, note in counts if count]


def _without(
    dataset: Dataset, digests: list[str], bad: dict[str, BadImage]
) -> tuple[Dataset, tuple[SkippedImage, ...]]:
    remaining = iter(digests)
    skipped: list[SkippedImage] = []
    kept = {}
    for name, split in dataset.splits.items():
        rows = []
        for row, item in enumerate(split.ids):
            found = bad.get(next(remaining))
            if found is None:
                rows.append(row)
            else:
                skipped.append(SkippedImage(name, item, found.reason, found.detail))
        kept[name] = split.take(rows)
    notices = []
    lost = np.setdiff1d(dataset.gallery.labels, kept["gallery"].labels)
    for label in np.intersect1d(lost, kept["query"].labels):
        name = dataset.label_names[int(label)]
        notices.append(f"label {name!r} has no usable gallery image, so its queries have nothing to find")
    try:
        return dataset.with_splits(kept, notices), tuple(skipped)
    except BenchError as error:
        raise BenchError(
            f"{error}; {len(skipped)} images were left out as bad ({_summary(skipped)}); {_first(skipped)}"
        ) from None


def _summary(skipped: Sequence[SkippedImage]) -> str:
    """3 damaged, 1 empty file"""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(bad.reason for bad in skipped).most_common())


def _first(skipped: Sequence[SkippedImage], shown: int = 3) -> str:
    listed = ", ".join(f"{bad.id} ({bad.reason})" for bad in skipped[:shown])
    return f"the first: {listed}"
