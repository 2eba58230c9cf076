"""What is to be run, and the data made ready for it: loaded once, screened, and the same for every method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Setup, Split
from retrieval_bench.datasets.splits import limit as limited
from retrieval_bench.datasets.splits import some
from retrieval_bench.distributed.engine import LOCAL
from retrieval_bench.evaluation.metrics import DEFAULT_K
from retrieval_bench.evaluation.open_set import NO_LABEL
from retrieval_bench.evaluation.relevance import Categories, count_partly, count_relevant
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.decoding import NOTES, Decoding
from retrieval_bench.images.reading import DecodedBy, misnamed_notices
from retrieval_bench.images.screening import Look, SkippedImage, digests_of, refuse_too_many, screen
from retrieval_bench.methods.parse import Method
from retrieval_bench.registry import Spec
from retrieval_bench.system.cache import FeatureCache, recipe_key
from retrieval_bench.system.progress import Progress, silent

RELEVANCE = ("label", "category", "graded")
"""What makes a gallery image relevant: the query's label, its category, or the label with the category for grades."""

LEARN_FROM = ("train", "gallery")
"""The split that methods learn from."""

DECODE = ("full", "reduced")
"""Whether large photos are decoded whole, or small where no method of the run sees the difference."""

FROM_GALLERY = "[gallery]"
"""Behind the name of a method that learned from the gallery."""

MIN_DEPTH = 100
"""Ranks kept per query in rankings.npz, at least."""


@dataclass(frozen=True)
class Plan:
    """What is to be run. k None: DEFAULT_K, as far as the gallery carries it. classifiers: names of CLASSIFIERS.

    perturb: names of PERTURBATIONS, for the queries of a further pass; severities: how strong. relevance: one of
    RELEVANCE. learn_from: one of LEARN_FROM. decode: one of DECODE; "reduced" lets the run choose `decoding.wanted`.
    concurrency: how many queries at once are timed besides one after the other. thresholds: judge search by a
    threshold, too. engine: the address of who describes images and searches, see `distributed.engine`.
    """

    methods: tuple[Method, ...]
    dataset: Spec
    root: Path | None = None
    classifiers: tuple[str, ...] = ()
    k: tuple[int, ...] | None = None
    seed: int = 0
    weights: str = "auto"
    device: str = "cpu"
    threads: int = 1
    limit: int | None = None
    backend: str = "exact"
    max_bad: float = 0.01
    decoding: Decoding = field(default_factory=Decoding)
    decode: str = "full"
    perturb: tuple[str, ...] = ()
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    cache: FeatureCache = field(default_factory=lambda: FeatureCache(None))
    relevance: str = "label"
    learn_from: str = "train"
    concurrency: tuple[int, ...] = ()
    thresholds: bool = False
    engine: str = LOCAL

    @property
    def setup(self) -> Setup:
        """What the builders of methods are given."""
        return Setup(self.seed, self.weights, self.device, self.threads)


@dataclass(frozen=True, eq=False)
class Unanswerable:
    """The queries that nothing in the gallery answers. They are set aside: no metric of rankings asks them.

    query: u images; a label is NO_LABEL where the image has none. exclude: (u,) int64, as that of `RetrievalTask`.
    """

    query: Split
    exclude: np.ndarray | None


@dataclass(frozen=True, eq=False)
class RetrievalTask:
    """What every method is asked: which gallery images show what a query shows.

    k: cutoffs of the metrics. depth: ranks that are kept of each query. n_relevant: (q,) int64, gallery images that a
    query should find. exclude: (q,) int64, each query's own gallery row where the dataset is leave-one-out; else None.
    unanswerable: the queries that were set aside; None where there are none.
    categories: what is half relevant, where grades are asked for. learn_from: one of LEARN_FROM. decoder: what pixels
    depend on beside the bytes, see `Decoding.key`.
    """

    dataset: Dataset
    k: tuple[int, ...]
    depth: int
    n_relevant: np.ndarray
    exclude: np.ndarray | None
    unanswerable: Unanswerable | None
    categories: Categories | None
    learn_from: str
    decoder: str

    @cached_property
    def train(self) -> Split:
        """What methods learn from."""
        return learned_split(self.dataset, self.learn_from)


@dataclass(frozen=True, eq=False)
class Trial(RetrievalTask):
    """The task of a dataset made ready: broken images gone, queries without an answer gone, everything counted."""

    fingerprint: str
    skipped: tuple[SkippedImage, ...]
    left_out: int


def load(plan: Plan) -> Dataset:
    """The dataset as it is on disk, limited to `plan.limit` images a split; with texts where a method reads them."""
    dataset: Dataset = plan.dataset.build(plan.root)
    if not any("text" in method.sides.read for method in plan.methods):
        return _limited(dataset.without_texts(), plan)
    if dataset.gallery.texts is None or dataset.query.texts is None:
        reader = next(str(method) for method in plan.methods if "text" in method.sides.read)
        raise BenchError(
            f"method {reader!r} reads texts and dataset {dataset.name} has none; products and grocery have them, and a "
            "manifest in its columns title, text and description"
        )
    return _limited(dataset, plan)


def _limited(dataset: Dataset, plan: Plan) -> Dataset:
    return limited(dataset, plan.limit) if plan.limit is not None else dataset


def prepare(plan: Plan, progress: Progress = silent, store: PixelStore | None = None) -> Trial:
    """Load, and make ready.

    store: where decoded pixels wait; None: in a file of its own.
    """
    return ready(load(plan), plan, progress, store)


def ready(dataset: Dataset, plan: Plan, progress: Progress = silent, store: PixelStore | None = None) -> Trial:
    """Decode everything once to find what is broken, and set aside queries that nothing can answer.

    dataset: it may be another than that of the plan. store: where decoded pixels wait; None: in a file of its own.
    """
    dataset = decoded_once(dataset, plan.decoding, store)
    total = sum(len(split) for split in dataset.splits.values())
    skipped: tuple[SkippedImage, ...] = ()
    if plan.methods and all(method.by_id for method in plan.methods):
        dataset = dataset.with_splits(
            {}, ["no image was decoded, as no method looks at one: a broken one is not left out"]
        )
    else:
        dataset, skipped = _screened(dataset, plan, progress)
    refuse_too_many(skipped, total, plan.max_bad)
    fingerprint = dataset.fingerprint
    dataset = relevant_by(dataset, plan.relevance)
    dataset = dataset.with_splits({}, _text_notices(dataset))

    exclude = _own_rows(dataset) if dataset.leave_one_out else None
    n_relevant = count_relevant(dataset.query.label_sets, dataset.gallery.label_sets, exclude)
    n_relevant[dataset.is_distractor(dataset.query)] = 0  # distractors of the gallery are no answer
    answerable = np.flatnonzero(n_relevant)
    left_out = len(dataset.query) - len(answerable)
    if not len(answerable):
        raise BenchError(
            f"dataset {dataset.name}: no query has another image of its label in the gallery; nothing to find"
            if dataset.leave_one_out
            else f"dataset {dataset.name}: no query has an image of its label in the gallery; nothing to find"
        )
    notices = []
    unanswerable = None
    if left_out:
        notices.append(f"{left_out} of {len(dataset.query)} queries left out: nothing in the gallery has their label")
        unanswerable = _set_aside(dataset, np.flatnonzero(n_relevant == 0), exclude)
        dataset = dataset.with_splits({"query": dataset.query.take(answerable)})
        exclude = None if exclude is None else exclude[answerable]
    n_relevant = n_relevant[answerable]
    if plan.classifiers:
        notices += _classifier_notices(dataset, plan.learn_from)

    reachable = len(dataset.gallery) - (1 if dataset.leave_one_out else 0)
    k = plan.k or tuple(k for k in DEFAULT_K if k <= reachable)
    if max(k) > reachable:
        raise BenchError(f"--k {max(k)} is more than the {reachable} gallery images that a query can find; lower it")
    if plan.k is None and k != DEFAULT_K:
        notices.append(
            f"k is {', '.join(map(str, k))}: the gallery holds only {reachable} images that a query can find"
        )
    depth = min(len(dataset.gallery), max(*k, int(n_relevant.max()), MIN_DEPTH))
    dataset = dataset.with_splits({}, notices)
    categories = _categories(dataset, exclude) if plan.relevance == "graded" else None
    return Trial(
        dataset,
        k,
        depth,
        n_relevant,
        exclude,
        unanswerable,
        categories,
        plan.learn_from,
        plan.decoding.key,
        fingerprint,
        skipped,
        left_out,
    )


def _text_notices(dataset: Dataset) -> list[str]:
    """What to know of the texts, where methods read them: who lacks one, and which queries give the answer away."""
    gallery, query = dataset.gallery, dataset.query
    if gallery.texts is None or query.texts is None:
        return []
    notices = []
    lacking = {name: sum(not text.strip() for text in split.texts or ()) for name, split in dataset.splits.items()}
    if any(lacking.values()):
        counts = ", ".join(f"{n} of {len(dataset.splits[name])} in {name}" for name, n in lacking.items() if n)
        notices.append(f"without a text: {counts}; where texts are joined with pictures, their pictures decide alone")
    bare = {
        name: 0 if split.pictured is None else int((~split.pictured).sum()) for name, split in dataset.splits.items()
    }
    if any(bare.values()):
        counts = ", ".join(f"{n} of {len(dataset.splits[name])} in {name}" for name, n in bare.items() if n)
        notices.append(
            f"without a picture: {counts}; where texts are joined with pictures, their texts decide alone, and a "
            "method that looks at pictures alone sees nothing of them"
        )
    told: dict[str, set[int]] = {}
    for text, label in zip(gallery.texts, gallery.labels.tolist(), strict=True):
        told.setdefault(text, set()).add(label)
    same = [
        item
        for item, text, label in zip(query.ids, query.texts, query.labels.tolist(), strict=True)
        if text.strip() and label in told.get(text, ())
    ]
    if same:
        notices.append(
            f"{len(same)} of {len(query)} queries have, word for word, the text of a gallery item of their label, so "
            f"that comparing texts with texts asks nothing of them: {some(same)}"
        )
    return notices


def _classifier_notices(dataset: Dataset, learn_from: str) -> list[str]:
    """What classifiers cannot know, so that their accuracy is not read beside that of a search without it."""
    known, query = learned_split(dataset, learn_from), dataset.query
    if not len(known):
        return []
    notices = []
    strange = ~np.isin(query.labels, known.labels)
    if strange.any():
        names = some(dataset.label_names[label] for label in set(query.labels[strange].tolist()))
        notices.append(
            f"no classifier can be right about {int(strange.sum())} of {len(query)} queries: {learn_from} has no image "
            f"of {names}"
        )
    if any(one.other_labels is not None and (one.other_labels >= 0).any() for one in (known, query)):
        notices.append(
            "classifiers learn the first label of each image, and are right about a query where they say its first"
        )
    return notices


def _set_aside(dataset: Dataset, rows: np.ndarray, exclude: np.ndarray | None) -> Unanswerable:
    query = dataset.query.take(rows)
    lone = dataset.is_distractor(query)
    if lone.any():
        query = replace(query, labels=np.where(lone, NO_LABEL, query.labels))
    return Unanswerable(query, None if exclude is None else exclude[rows])


def relevant_by(dataset: Dataset, relevance: str) -> Dataset:
    """The dataset with labels that say what is relevant: with "category", the categories take the place of the labels.

    Raises BenchError where a category is asked for and the dataset has none.
    """
    if relevance == "label":
        return dataset
    if any(split.categories is None for split in dataset.splits.values() if len(split)):
        raise BenchError(
            f"--relevance {relevance}: dataset {dataset.name} has no categories; a manifest has them in its column "
            "category, a folder with folder:label=leaf"
        )
    if relevance == "graded":
        return dataset
    splits = {
        name: split
        if split.categories is None
        else replace(split, labels=split.categories, other_labels=split.other_categories)
        for name, split in dataset.splits.items()
    }
    notices = (*dataset.notices, "relevant is what has the query's category: categories take the place of labels")
    return replace(dataset, label_names=dataset.category_names, notices=notices, **splits)  # type: ignore[arg-type]


def learned_split(dataset: Dataset, learn_from: str) -> Split:
    """What methods learn from: train, or the gallery images that have a label."""
    if learn_from == "train":
        return dataset.train
    lone = dataset.is_distractor(dataset.gallery)
    return dataset.gallery.take(np.flatnonzero(~lone)) if lone.any() else dataset.gallery


def _categories(dataset: Dataset, exclude: np.ndarray | None) -> Categories:
    query, gallery = (_category_sets(split) for split in (dataset.query, dataset.gallery))
    labels = dataset.query.label_sets, dataset.gallery.label_sets
    return Categories(query, gallery, count_partly(*labels, query, gallery, exclude))


def _category_sets(split: Split) -> np.ndarray:
    """(n, c): every category of each image, padded with -1."""
    if split.categories is None:
        raise ValueError("the split has no categories")
    others = [] if split.other_categories is None else [split.other_categories]
    return np.column_stack([split.categories, *others])


def decoded_once(dataset: Dataset, how: Decoding, store: PixelStore | None = None) -> Dataset:
    """The same dataset; its splits share one store of pixels, which also serves images that are in several of them."""
    store = PixelStore() if store is None else store
    return dataset.with_splits(
        {
            name: replace(split, images=DecodedOnce(DecodedBy(split.images, how), store))
            for name, split in dataset.splits.items()
        }
    )


def _screened(dataset: Dataset, plan: Plan, progress: Progress) -> tuple[Dataset, tuple[SkippedImage, ...]]:
    """Screen through the cache: an image that was once decoded whole is not decoded again."""
    for split in dataset.splits.values():
        digests_of(split.images, plan.threads)  # all threads read the files; from here on the images know
    digests = (split.images.digest(row) for split in dataset.splits.values() for row in range(len(split)))
    looks, keep = known_looks(digests, plan)
    result = screen(dataset, looks, plan.threads, lambda done, total: progress("checking images", done, total), keep)
    screened, skipped = result
    return screened.with_splits({}, misnamed_notices(dataset)), skipped


def known_looks(digests: Iterable[str], plan: Plan) -> tuple[dict[str, Look], Callable[[Mapping[str, Look]], None]]:
    """What the cache knows of images that were decoded once, by digest; and how to let it know more."""
    # What is decoded small is refused by the size that it has in the file, which is not known later.
    how = plan.decoding
    decoder = f"{how.key}/of-{how.max_pixels}" if how.wanted else how.key
    key = recipe_key({"kind": "screened, frames counted", "decoder": decoder})
    looks: dict[str, Look] = {}
    alike: dict[Look, Look] = {}

    def take(digest: str, stored: np.ndarray) -> None:
        height, width, notes = (int(value) for value in stored) if stored.size == 3 else (0, 0, 0)
        if 0 < height * width <= how.max_pixels and 0 <= notes < 1 << len(NOTES):  # else it is looked at again
            look = height, width, notes
            looks[digest] = alike.setdefault(look, look)

    def keep(found: Mapping[str, Look]) -> None:
        plan.cache.put(key, {digest: np.array(look, np.int32) for digest, look in found.items()})

    plan.cache.each(key, digests, take)
    return looks, keep


def _own_rows(dataset: Dataset) -> np.ndarray:
    row_of = {item: row for row, item in enumerate(dataset.gallery.ids)}
    return np.array([row_of.get(item, -1) for item in dataset.query.ids], np.int64)
