"""The images of a shop, some of them with a label, from a list, from a folder beside it, or from a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval_bench.core import DISTRACTOR, BadImage, BenchError, Dataset, Distance, Images, Split
from retrieval_bench.data_audit.duplicates import Gathered
from retrieval_bench.datasets.manifest import read_list
from retrieval_bench.experiment.features import described
from retrieval_bench.experiment.prepare import Plan, known_looks
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.named_files import images_of
from retrieval_bench.images.reading import DecodedBy
from retrieval_bench.images.screening import Look, SkippedImage, digests_of, look_of, looked_at, refuse_too_many
from retrieval_bench.labelling.features_without_labels import without_labels
from retrieval_bench.system.progress import Progress

FEWEST = 3
"""Images, below which there are no neighbours to speak of."""


@dataclass(frozen=True, eq=False)
class LabelPool:
    """Images and what is known of them.

    Args:
        name: of the data, for the log.
        ids: n names, no two the same.
        images: n images.
        known: (n,) int64, the label of each image, -1 where it has none.
        label_names: what the labels are called.
        category_of: name of a label -> its category; empty where there are none.
        more_labels: row -> further labels that an image has; they are kept, and none is proposed.
        columns: name -> n texts, what else the list says of each image.
        notices: what to know of the data.
    """

    name: str
    ids: tuple[str, ...]
    images: Images
    known: np.ndarray
    label_names: tuple[str, ...]
    category_of: Mapping[str, str]
    more_labels: Mapping[int, tuple[str, ...]]
    columns: Mapping[str, Sequence[str]]
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int]) -> LabelPool:
        """These images alone, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            images=self.images.take(rows),
            known=self.known[np.asarray(rows, np.int64)],
            more_labels={new: self.more_labels[old] for new, old in enumerate(rows) if old in self.more_labels},
            columns={name: [column[row] for row in rows] for name, column in self.columns.items()},
        )

    def fingerprint(self) -> str:
        """sha256 (hex) of the ids and contents, by which a log knows its images."""
        digest = hashlib.sha256()
        for row, item in enumerate(self.ids):
            digest.update(f"{item}\0{self.images.digest(row)}\n".encode(errors="surrogatepass"))
        return digest.hexdigest()


def pool_of(plan: Plan, folder: Path | None = None) -> LabelPool:
    """All images of a dataset, each once; of a list also those of a folder that it does not name.

    Args:
        plan: of the dataset and where it lies.
        folder: of further images, without a label; for dataset `manifest` alone.

    Raises:
        BenchError: The dataset cannot be read, or the folder holds no image.
    """
    spec = plan.dataset
    if spec.entry.name == "manifest":
        options = {key: str(value) for key, value in spec.options.items() if key in ("separator", "path", "label")}
        if plan.root is None:
            raise BenchError(
                "dataset manifest needs --data-root with a .csv or .jsonl file with columns path and label"
            )
        listed = read_list(plan.root, **options)
        pool = _of_splits(str(spec), {"": listed.split}, listed.label_names, listed.category_names, listed.notices)
        return pool if folder is None else _with_folder(pool, folder)
    if folder is not None:
        raise BenchError(
            f"--images: {spec.entry.name} names its images itself; further ones go beside dataset manifest"
        )
    dataset: Dataset = spec.build(plan.root).without_texts()
    return _of_splits(str(spec), dataset.splits, dataset.label_names, dataset.category_names, dataset.notices)


def _of_splits(
    name: str,
    splits: Mapping[str, Split],
    label_names: Sequence[str],
    category_names: Sequence[str],
    notices: Sequence[str],
) -> LabelPool:
    ids: dict[str, tuple[str, int]] = {}
    for part, split in splits.items():
        for row, item in enumerate(split.ids):
            if item in ids:
                other, there = ids[item]
                if splits[other].images.digest(there) == split.images.digest(row):
                    continue  # train may be the gallery
                if not part:
                    raise BenchError(f"id {item!r} is there twice, for two images; ids must be unique")
                item = f"{part}/{item}"
            ids[item] = part, row
    if len(ids) < FEWEST:
        raise BenchError(f"{name} holds {len(ids)} images; label needs at least {FEWEST}")
    origins = list(ids.values())
    lone = label_names.index(DISTRACTOR) if DISTRACTOR in label_names else -1
    labels = np.array([splits[part].labels[row] for part, row in origins], np.int64)
    category_of: dict[str, str] = {}
    more_labels: dict[int, tuple[str, ...]] = {}
    for new, (part, row) in enumerate(origins):
        split = splits[part]
        if labels[new] != lone and split.categories is not None:
            category_of[label_names[int(labels[new])]] = category_names[int(split.categories[row])]
        if split.other_labels is not None:
            others = [int(one) for one in split.other_labels[row] if one >= 0]
            if others:
                more_labels[new] = tuple(label_names[one] for one in others)
            if split.other_categories is not None:
                for one, category in zip(others, split.other_categories[row].tolist(), strict=False):
                    category_of[label_names[one]] = category_names[category]
    columns = {}
    if len(splits) == 1:
        (only,) = splits.values()
        columns = {key: [str(column[row]) for _, row in origins] for key, column in only.attributes.items()}
    only_images = [split.images for split in splits.values()]
    return LabelPool(
        name=name,
        ids=tuple(ids),
        images=only_images[0] if len(splits) == 1 else Gathered([(splits[part].images, row) for part, row in origins]),
        known=np.where(labels == lone, -1, labels),
        label_names=tuple(one for one in label_names if one != DISTRACTOR),
        category_of=category_of,
        more_labels=more_labels,
        columns=columns,
        notices=tuple(notices),
    )


def _with_folder(pool: LabelPool, folder: Path) -> LabelPool:
    """The pool, and every image of the folder that it does not have by its content."""
    split, notices = images_of([folder])
    have = {pool.images.digest(row) for row in range(len(pool))}
    rows = [row for row in range(len(split)) if split.images.digest(row) not in have]
    taken = set(pool.ids)
    ids = [split.ids[row] if split.ids[row] not in taken else f"{folder.name}/{split.ids[row]}" for row in rows]
    if twice := sorted(taken.intersection(ids)):
        raise BenchError(f"--images: id {twice[0]!r} is there twice, for two images; rename the file")
    origins = [(pool.images, row) for row in range(len(pool))] + [(split.images, row) for row in rows]
    return replace(
        pool,
        ids=(*pool.ids, *ids),
        images=Gathered(origins),
        known=np.append(pool.known, np.full(len(rows), -1)),
        columns={name: [*column, *[""] * len(rows)] for name, column in pool.columns.items()},
        notices=(*pool.notices, *notices),
    )


def usable(pool: LabelPool, plan: Plan, max_bad: float, progress: Progress) -> tuple[LabelPool, list[SkippedImage]]:
    """The pool without the images that cannot be decoded, each decoded once; and these.

    Raises BenchError where more than `max_bad` of all cannot.
    """
    images = DecodedOnce(DecodedBy(pool.images, plan.decoding), PixelStore())
    digests = digests_of(images, plan.threads)
    looks, keep = known_looks(digests, plan)
    unknown = [row for row, digest in enumerate(digests) if digest not in looks]
    found = looked_at(
        [(images, row) for row in unknown],
        look_of,
        plan.threads,
        lambda done, total: progress("checking images", done, total),
    )
    skipped: dict[int, SkippedImage] = {}
    fresh: dict[str, Look] = {}
    for row, look in zip(unknown, found, strict=True):
        if isinstance(look, BadImage):
            skipped[row] = SkippedImage("", pool.ids[row], look.reason, look.detail)
        else:
            fresh[digests[row]] = look
    keep(fresh)
    refuse_too_many(list(skipped.values()), len(pool), max_bad)
    whole = replace(pool, images=images)
    if skipped:
        whole = whole.take([row for row in range(len(pool)) if row not in skipped])
    if len(whole) < FEWEST:
        raise BenchError(f"{pool.name} holds {len(whole)} images that can be read; label needs at least {FEWEST}")
    return whole, list(skipped.values())


def features_of(pool: LabelPool, plan: Plan, progress: Progress) -> tuple[str, Distance, np.ndarray]:
    """(the method's name, its distance, (n, ...) features), learned from all images and from no label.

    A method that learned from labels would know those that are held out, and its confidence would be worth nothing.
    """
    method = without_labels(plan.methods[0])
    split = Split(pool.ids, np.zeros(len(pool), np.int64), pool.images)
    pipeline, features = described(method, plan, split, {"items": split}, progress)
    return pipeline.name, pipeline.distance, features["items"]


def with_few_known(pool: LabelPool, known: int, seed: int, without: Sequence[int] = ()) -> LabelPool:
    """The pool with at most `known` labels of each product, drawn from a seed, and none of those in `without`."""
    random = np.random.default_rng(seed)
    kept = np.full(len(pool), -1, np.int64)
    for label in np.unique(pool.known[pool.known >= 0]).tolist():
        rows = random.permutation(np.flatnonzero(pool.known == label))[:known]
        if label not in without:
            kept[rows] = label
    return replace(pool, known=kept)
