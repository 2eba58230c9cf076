"""What is wrong with a dataset before any method is: copies across splits, labels that disagree, queries that nothing
can answer, labels with few images, images that are broken or tiny.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.compare.reload import main_values, methods_of
from retrieval_bench.core import BadImage, BenchError, Dataset, Images, Setup, Split
from retrieval_bench.data_audit.calibration import Copies, Originals, PlantedCopies, judged, unlike
from retrieval_bench.data_audit.duplicates import Describe, Gathered, Pairs, check_within, groups, pairs_within
from retrieval_bench.data_audit.looks import FLAT, contrast_of, thumbnail_of
from retrieval_bench.extractors.hashes.imagehash import dhash, phash
from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import how_of
from retrieval_bench.images.screening import looked_at
from retrieval_bench.records.schema import Record
from retrieval_bench.system.progress import Count

TINY = 32
"""Pixels of the shorter side, below which an image is called tiny."""

EXAMPLES = 10

SAMPLE = 400
PRECISION = 0.99
MILD = (("jpeg", 1), ("brightness", 1), ("blur", 1))
"""What is done to copies that must still count as duplicates of their originals."""


@dataclass(frozen=True, eq=False)
class Items:
    """Every image of a dataset once, also where it is in several splits under the same id (train may be the gallery).

    member: (n, 3) bool, which of train, gallery, query it is in. origins: (split, row) of its first occurrence.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    member: np.ndarray
    origins: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """What was found in one image: digests of bytes and pixels, size, contrast, thumbnail, hashes (8 bytes each)."""

    content: str
    pixels: str
    height: int
    width: int
    contrast: float
    thumbnail: np.ndarray
    phash: np.ndarray
    dhash: np.ndarray


def items_of(dataset: Dataset) -> Items:
    """Two images of one id in different splits are one where their bytes are equal too."""
    place: dict[tuple[str, str], int] = {}
    ids: list[str] = []
    labels: list[int] = []
    member: list[list[bool]] = []
    origins: list[tuple[str, int]] = []
    for number, (name, split) in enumerate(dataset.splits.items()):
        for row, item in enumerate(split.ids):
            key = item, split.images.digest(row)
            if key not in place:
                place[key] = len(ids)
                ids.append(item)
                labels.append(int(split.labels[row]))
                member.append([False, False, False])
                origins.append((name, row))
            member[place[key]][number] = True
    return Items(tuple(ids), np.array(labels, np.int64), np.array(member, bool), tuple(origins))


def look(images: Images, row: int) -> Seen:
    """Read and decode one image, once for all that is asked of it. Raises BadImage."""
    content = images.read(row)
    pixels = decode(content, how_of(images))
    setup = Setup()
    first, second = (np.asarray(build(setup).transform([pixels])[0], np.uint8) for build in (phash, dhash))
    height, width = pixels.shape[:2]
    return Seen(
        content=hashlib.sha256(content).hexdigest(),
        pixels=hashlib.sha256(f"{pixels.shape} ".encode() + pixels.tobytes()).hexdigest(),
        height=height,
        width=width,
        contrast=contrast_of(pixels),
        thumbnail=thumbnail_of(pixels),
        phash=first,
        dhash=second,
    )


def look_at_all(dataset: Dataset, items: Items, threads: int, progress: Count) -> list[Seen | BadImage]:
    """`look` at every item, in order; progress(done, total) in this thread."""
    places = [(dataset.splits[split].images, row) for split, row in items.origins]
    return list(looked_at(places, look, threads, progress))


def duplicates_of(seen: Sequence[Seen | BadImage], radius: int) -> dict[str, Pairs]:
    """Pairs of items with equal bytes, with equal pixels, and with hashes that differ in `radius` bits at most.

    Broken images are in no pair, flat ones in no pair of hashes.
    """
    whole = [row for row, one in enumerate(seen) if isinstance(one, Seen)]
    drawn = [row for row in whole if _of(seen, row).contrast >= FLAT]
    found = {}
    for kind in ("content", "pixels"):
        digests = [bytes.fromhex(getattr(_of(seen, row), kind)) for row in whole]
        codes = np.frombuffer(b"".join(digests), np.uint8).reshape(len(whole), -1)
        found["bytes" if kind == "content" else kind] = _at(pairs_within(codes, 0, "hamming"), whole)
    for kind in ("phash", "dhash"):
        codes = np.array([getattr(_of(seen, row), kind) for row in drawn], np.uint8).reshape(len(drawn), -1)
        found[kind] = _at(pairs_within(codes, radius, "hamming"), drawn) if len(drawn) else _none()
    return found


def by_method(
    describe: Describe, dataset: Dataset, items: Items, seen: Sequence[Seen | BadImage], within: float | None, seed: int
) -> tuple[str, float, Pairs]:
    """(the method's name, the distance taken, pairs of items whose features are no further apart).

    within None: measured on slightly changed copies of up to 400 items of which none resembles another, for a precision
    of 0.99 among these. Pairs of one label are not counted as false, nor is one picture under two labels.
    """
    rows = [row for row, one in enumerate(seen) if isinstance(one, Seen)]
    broken = {items.ids[row] for row, one in enumerate(seen) if isinstance(one, BadImage)}
    train = dataset.train
    train = train.take([row for row, item in enumerate(train.ids) if item not in broken])
    whole = Gathered([(dataset.splits[items.origins[row][0]].images, items.origins[row][1]) for row in rows])
    wanted = {"items": Split(tuple(map(str, rows)), items.labels[rows], whole)}
    mild: list[tuple[str, int]] = []
    if within is None:
        once = {_of(seen, row).pixels: place for place, row in reversed(list(enumerate(rows)))}
        different = np.array(sorted(once.values()), np.int64)
        thumbnails = np.array([_of(seen, row).thumbnail for row in rows])
        sample = unlike(thumbnails, np.random.default_rng(seed).permutation(different), SAMPLE)
        if len(sample) < 4:
            raise BenchError("fewer than four different images: too few to measure a distance; give one with --within")
        mild = [MILD[number % len(MILD)] for number in range(len(sample))]
        copies = Copies(whole.take(sample.tolist()), mild, seed)
        wanted["copies"] = Split(tuple(map(str, range(len(copies)))), np.zeros(len(copies), np.int64), copies)
    name, distance, features = describe(train, wanted)
    if within is None:
        originals = Originals(features["items"][sample], thumbnails[sample], items.labels[rows][sample])
        found = judged(PlantedCopies(features["copies"], sample, mild), originals, distance, seed, PRECISION)
        if found is None:
            raise BenchError("all images have one label: no distance can be measured; give one with --within")
        within = max(0.0, found.threshold)
    else:
        check_within(within, distance)
    return name, within, _at(pairs_within(features["items"], within, distance), rows)


def duplicate_facts(kind: str, pairs: Pairs, items: Items, dataset: Dataset) -> dict[str, Any]:
    """Counts and the worst examples of one kind of duplicate, ready for JSON.

    pairs_by_split: "train-query" and so on; a pair is counted for every two splits that it connects.
    conflicts: pairs whose labels differ. leaked_queries: queries with a duplicate in train, in gallery, in either.
    """
    names = tuple(dataset.splits)
    leaked = leaked_queries(pairs, items)
    differ = items.labels[pairs.first] != items.labels[pairs.second]
    by_split = {}
    for a, one in enumerate(names):
        for b in range(a, len(names)):
            there, back = items.member[pairs.first], items.member[pairs.second]
            joined = (there[:, a] & back[:, b]) | (there[:, b] & back[:, a])
            by_split[f"{one}-{names[b]}"] = int(np.count_nonzero(joined))
    crossing = (items.member[pairs.first] != items.member[pairs.second]).any(axis=1)
    worst = np.lexsort((pairs.distances, ~crossing, ~differ))[:EXAMPLES]
    together = groups(len(items.ids), pairs)
    return {
        "kind": kind,
        "pairs": len(pairs),
        "images": sum(map(len, together)),
        "groups": len(together),
        "largest_group": max(map(len, together), default=0),
        "pairs_by_split": by_split,
        "conflicts": int(differ.sum()),
        "leaked_queries": {name: int(rows.sum()) for name, rows in leaked.items()},
        "examples": [
            {
                "distance": float(pairs.distances[pair]),
                "conflict": bool(differ[pair]),
                **{
                    side: _described(int(rows[pair]), items, dataset)
                    for side, rows in (("first", pairs.first), ("second", pairs.second))
                },
            }
            for pair in worst.tolist()
        ],
    }


def leaked_queries(pairs: Pairs, items: Items) -> dict[str, np.ndarray]:
    """(n,) bool for "train", "gallery" and "either": items that are queries and have a duplicate there."""
    found = {}
    query = items.member[:, 2]
    for name, columns in (("train", [0]), ("gallery", [1]), ("either", [0, 1])):
        there = np.asarray(items.member[:, columns].any(axis=1))
        rows = np.concatenate([pairs.first[there[pairs.second]], pairs.second[there[pairs.first]]])
        leaked = np.zeros(len(items.ids), bool)
        leaked[rows] = True
        found[name] = leaked & query
    return found


def balance(dataset: Dataset) -> dict[str, Any]:
    """How many images each label has in each split, and which queries nothing can answer.

    lone_queries: nothing in the gallery has their label (their own row not counted where the dataset is leave-one-out).
    """
    n = len(dataset.label_names)
    counts = {name: np.bincount(split.labels, minlength=n) for name, split in dataset.splits.items()}
    facts: dict[str, Any] = {}
    for name, count in counts.items():
        present = count[count > 0]
        facts[name] = {
            "images": int(count.sum()),
            "labels": len(present),
            "labels_without": n - len(present),
            "least": int(present.min()) if len(present) else 0,
            "median": float(np.median(present)) if len(present) else 0.0,
            "most": int(present.max(initial=0)),
            "rarest": [dataset.label_names[label] for label in _ends(count, first=True)],
            "commonest": [dataset.label_names[label] for label in _ends(count, first=False)],
        }
    answers = counts["gallery"][dataset.query.labels]
    if dataset.leave_one_out:
        answers = answers - np.isin(dataset.query.ids, dataset.gallery.ids)
    lone = np.flatnonzero((answers < 1) | dataset.is_distractor(dataset.query))
    facts["lone_queries"] = {"count": len(lone), "examples": [dataset.query.ids[row] for row in lone[:EXAMPLES]]}
    return facts


def odd_images(seen: Sequence[Seen | BadImage], items: Items) -> dict[str, Any]:
    """Broken ones by reason, tiny and flat ones, with examples; and the range of sizes."""
    broken = {row: one for row, one in enumerate(seen) if isinstance(one, BadImage)}
    whole = {row: one for row, one in enumerate(seen) if isinstance(one, Seen)}
    tiny = [row for row, one in whole.items() if min(one.height, one.width) < TINY]
    flat = [row for row, one in whole.items() if one.contrast < FLAT]
    sides = np.array([min(one.height, one.width) for one in whole.values()] or [0])
    return {
        "broken": {
            "count": len(broken),
            "reasons": dict(Counter(bad.reason for bad in broken.values()).most_common()),
            "examples": [f"{items.ids[row]}: {bad.detail}" for row, bad in list(broken.items())[:EXAMPLES]],
        },
        "tiny": {"count": len(tiny), "below": TINY, "examples": [items.ids[row] for row in tiny[:EXAMPLES]]},
        "flat": {"count": len(flat), "below": FLAT, "examples": [items.ids[row] for row in flat[:EXAMPLES]]},
        "shorter_side": {"least": int(sides.min()), "median": float(np.median(sides)), "most": int(sides.max())},
    }


def without_leaked(
    record: Record, arrays: Mapping[str, np.ndarray], leaked: np.ndarray, items: Items
) -> dict[str, Any]:
    """Every method's scores over all queries, over those that did not leak, and the difference.

    leaked: (n,) bool over items. `scores` is empty where no query leaked or all did.
    """
    ids = {items.ids[row] for row in np.flatnonzero(leaked).tolist()}
    left = np.array([item not in ids for item in arrays["query_ids"].tolist()], bool)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    if 0 < left.sum() < len(left):
        for method in methods_of(record):
            values = main_values(record, arrays, method)
            scores[method] = {
                name: {"all": float(v.mean()), "without": float(v[left].mean()), "leaked": float(v[~left].mean())}
                for name, v in values.items()
            }
    return {"queries": len(left), "leaked": int((~left).sum()), "scores": scores}


def _described(row: int, items: Items, dataset: Dataset) -> dict[str, Any]:
    splits = [name for name, there in zip(dataset.splits, items.member[row].tolist(), strict=True) if there]
    return {"id": items.ids[row], "splits": splits, "label": dataset.label_names[int(items.labels[row])]}


def _ends(count: np.ndarray, *, first: bool, shown: int = 3) -> list[int]:
    present = np.flatnonzero(count)
    order = present[np.argsort(count[present], kind="stable")]
    return [int(label) for label in (order[:shown] if first else order[::-1][:shown])]


def _of(seen: Sequence[Seen | BadImage], row: int) -> Seen:
    one = seen[row]
    assert isinstance(one, Seen)
    return one


def _at(pairs: Pairs, rows: Sequence[int]) -> Pairs:
    """The same pairs, numbered as these rows are, which ascend."""
    where = np.asarray(rows, np.int64)
    return Pairs(where[pairs.first], where[pairs.second], pairs.distances)


def _none() -> Pairs:
    return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
