"""Find the images that cannot be used before anything is computed, and stop where they are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from retrieval_bench.core import BadImage, BenchError, Dataset, Images, Split
from retrieval_bench.images.decoded_cache import DecodedOnce
from retrieval_bench.images.decoding import NOTES
from retrieval_bench.system.threads import mapped

Look = tuple[int, int, int]
"""(height, width, notes): of a picture that can be used; bit i of the last says that `decoding.NOTES[i]` holds."""
_Facts = TypeVar("_Facts")


@dataclass(frozen=True)
class SkippedImage:
    """One image that is left out. `reason` is countable, `detail` one sentence about this image."""

    split: str
    id: str
    reason: str
    detail: str


def screen(
    dataset: Dataset,
    looks: MutableMapping[str, Look] | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Dataset, tuple[SkippedImage, ...]]:
    """Decode every image once; return the dataset without the bad ones, and these, in order of split and row.

    What decoding did to images beyond reading is counted in the notices of the dataset.

    looks: by digest, images known to be whole, so that a second run decodes nothing; what is found is added. It holds
        for one `Decoding.key` only.
    threads: how many images are decoded at a time.
    progress: called in this thread with (contents checked, contents in all); an image that is in several splits, or
        twice in one, is one content.
    Raises BenchError where what is left is no dataset.
    """
    looks = {} if looks is None else looks
    everything = [(split.images, row) for split in dataset.splits.values() for row in range(len(split))]
    digests = list(mapped(lambda image: image[0].digest(image[1]), everything, threads))
    pictured = np.concatenate([pictured_rows(split) for split in dataset.splits.values()])
    contents = {digest: image for digest, image, seen in zip(digests, everything, pictured, strict=True) if seen}
    pending = [digest for digest in contents if digest not in looks]
    known = len(contents) - len(pending)

    def show(done: int, total: int) -> None:
        if progress is not None:
            progress(known + done, known + total)

    bad: dict[str, BadImage] = {}
    found = looked_at([contents[digest] for digest in pending], _look, threads, show)
    for digest, look in zip(pending, found, strict=True):
        if isinstance(look, BadImage):
            bad[digest] = look
        else:
            looks[digest] = look
    whole = [digest for digest, seen in zip(digests, pictured, strict=True) if seen and digest not in bad]
    if notices := _noted([looks[digest][2] for digest in whole]):
        dataset = dataset.with_splits({}, notices)
    return _without(dataset, digests, bad) if bad else (dataset, ())


def pictured_rows(split: Split) -> np.ndarray:
    """(n,) bool: the items that have a picture."""
    return np.ones(len(split), bool) if split.pictured is None else split.pictured


def looked_at(
    images: Sequence[tuple[Images, int]],
    look: Callable[[Images, int], _Facts],
    threads: int,
    progress: Callable[[int, int], None],
) -> list[_Facts | BadImage]:
    """What `look` says of each image, or why it cannot be used.

    Args:
        images: where each image lies: a sequence of images and a row in it.
        look: (images, row) -> facts; it may raise BadImage.
        threads: how many images are looked at at a time.
        progress: called in this thread with (images done, images in all).

    Returns:
        The facts, or the BadImage, in the order of the images.
    """

    def one(place: tuple[Images, int]) -> _Facts | BadImage:
        try:
            return look(*place)
        except BadImage as bad:
            return bad

    found: list[_Facts | BadImage] = []
    for facts in mapped(one, images, threads):
        found.append(facts)
        progress(len(found), len(images))
    return found


def refuse_too_many(skipped: Sequence[SkippedImage], total: int, share: float) -> None:
    """Raise BenchError when more than `share` (0..1) of `total` images were skipped."""
    if len(skipped) > round(share * total, 6):  # 0.29 * 100 is a little less than 29
        raise BenchError(
            f"{len(skipped)} of {total} images cannot be used ({_summary(skipped)}), more than --max-bad {share:g} "
            f"allows; repair or remove them, or raise --max-bad; {_first(skipped)}"
        )


def _look(images: Images, row: int) -> Look:
    height, width = images[row].shape[:2]
    notes = images.notes(row) if isinstance(images, DecodedOnce) else ()
    return height, width, sum(1 << NOTES.index(note) for note in notes)


def _noted(bits: Sequence[int]) -> list[str]:
    """3 images in another colour space, converted to sRGB"""
    counts = [(sum(of_one >> place & 1 for of_one in bits), note) for place, note in enumerate(NOTES)]
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
