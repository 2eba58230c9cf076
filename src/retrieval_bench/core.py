"""The types that every part of the house speaks: splits, datasets, features, rankings, judgements.

Nothing here knows about files, networks or tables; numpy is the only import beyond the standard library.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

import numpy as np

Distance = Literal["cosine", "euclidean", "inner_product", "hamming"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)

SPLITS = ("train", "gallery", "query")


class BenchError(Exception):
    """The user's mistake, in one sentence: the thing, what is allowed, what to do. Shown without traceback; exit 2."""


class NotComparable(BenchError):
    """Two records that must not be compared, and why. Exit 3."""


class BadImage(Exception):
    """One image that cannot be used. `reason` is a short countable phrase, `detail` one sentence about this file."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that any encoder takes: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Setup:
    """What a run fixes for every method; extractor builders take it as their first argument.

    weights: "auto", "pretrained", "random" or a directory that holds state dicts.
    device: "cpu" or "cuda" (already resolved, never "auto").
    threads: Python threads that `fit` may use; what is learned must not depend on it.
    """

    seed: int = 0
    weights: str = "auto"
    device: str = "cpu"
    threads: int = 1


class Images(Protocol):
    """n encoded images, decoded on access. Implementations live in `images.py`."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> np.ndarray:
        """The upright image as (h, w, 3) uint8 RGB; raises BadImage."""

    def read(self, row: int) -> bytes:
        """The encoded bytes as stored; raises BadImage where they cannot be read."""

    def digest(self, row: int) -> str:
        """sha256 (hex) of the content: what the feature cache and the fingerprint go by."""

    def take(self, rows: Sequence[int]) -> Images:
        """The same images, only these rows, in this order."""


@dataclass(frozen=True, eq=False)
class Split:
    """One of train, gallery, query.

    ids: stable printable names, unique within the split, e.g. "test/Fruit/Lemon/Lemon_007.jpg".
    labels: (n,) int64, the product; indexes `Dataset.label_names`.
    images: n images, decoded on access.
    categories: (n,) int64, the coarse class, indexing `Dataset.category_names`; None where the dataset has none.
    attributes: name -> (n,) array of what else is known of each image (view parameters, text, group).
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    images: Images
    categories: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns = {"labels": self.labels, "categories": self.categories, **self.attributes}
        for name, column in columns.items():
            if column is not None and np.shape(column) != (n,):
                raise ValueError(f"{name} has shape {np.shape(column)}, expected ({n},)")
        if len(self.images) != n:
            raise ValueError(f"{len(self.images)} images for {n} ids")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def content(self) -> str:
        """sha256 over what can be learned from: every image's digest and label, in order."""
        digest = hashlib.sha256()
        for row, label in enumerate(self.labels):
            digest.update(f"{self.images.digest(row)} {label}\n".encode())
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | np.ndarray) -> Split:
        """The same split, only these rows, in this order."""
        rows = np.asarray(rows, np.int64)
        return Split(
            ids=tuple(self.ids[row] for row in rows),
            labels=self.labels[rows],
            images=self.images.take(rows.tolist()),
            categories=None if self.categories is None else self.categories[rows],
            attributes={name: column[rows] for name, column in self.attributes.items()},
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and their names, checked once.

    leave_one_out: queries may also lie in the gallery; each is then masked by id inside the search.
    notices: sentences for the record about what was odd but usable (an empty class, a label without queries).
    """

    name: str
    train: Split
    gallery: Split
    query: Split
    label_names: tuple[str, ...]
    category_names: tuple[str, ...] = ()
    leave_one_out: bool = False
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, split in self.splits.items():
            _check_indexes(f"{name}.labels", split.labels, self.label_names)
            if split.categories is not None:
                _check_indexes(f"{name}.categories", split.categories, self.category_names)
            twice = _first_repeat(split.ids)
            if twice is not None:
                raise BenchError(f"dataset {self.name}: id {twice!r} occurs twice in {name}; ids must be unique")
        for name in ("gallery", "query"):
            if not self.splits[name]:
                raise BenchError(f"dataset {self.name}: the {name} split holds no image; it needs at least one")
        for name in ("train",) if self.leave_one_out else ("train", "gallery"):
            shared = set(self.query.ids) & set(self.splits[name].ids)
            if shared:
                raise BenchError(
                    f"dataset {self.name}: {min(shared)!r} is in query and in {name}; a query must be unseen"
                    + ("" if name == "train" else " (or the dataset must declare leave_one_out)")
                )
        used = np.unique(np.concatenate([self.gallery.labels, self.query.labels]))
        if len(used) < 2:
            only = self.label_names[int(used[0])]
            raise BenchError(
                f"dataset {self.name}: every gallery and query image is labelled {only!r}; "
                "a comparison needs at least two labels"
            )

    @property
    def splits(self) -> dict[str, Split]:
        return {"train": self.train, "gallery": self.gallery, "query": self.query}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over ids, labels, categories and content of all three splits: what "same splits" means."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name}\n".encode())
            for row, item in enumerate(split.ids):
                label = self.label_names[int(split.labels[row])]
                category = ""
                if split.categories is not None:
                    category = self.category_names[int(split.categories[row])]
                digest.update("\0".join((item, label, category, split.images.digest(row))).encode())
                digest.update(b"\n")
        return digest.hexdigest()

    def with_splits(self, splits: Mapping[str, Split], notices: Sequence[str] = ()) -> Dataset:
        """The same dataset with other splits (some images left out, say), checked anew."""
        return replace(
            self,
            train=splits.get("train", self.train),
            gallery=splits.get("gallery", self.gallery),
            query=splits.get("query", self.query),
            notices=(*self.notices, *notices),
        )


def _check_indexes(what: str, column: np.ndarray, names: Sequence[str]) -> None:
    if len(column) and not 0 <= column.min() <= column.max() < len(names):
        raise ValueError(f"{what} runs from {column.min()} to {column.max()} for {len(names)} names")


def _first_repeat(ids: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for item in ids:
        if item in seen:
            return item
        seen.add(item)
    return None


@runtime_checkable
class Extractor(Protocol):
    """Turns images into vectors or bit codes.

    Contract: row i of `transform` depends on image i alone, to the last bit, whatever stands beside it and however many
    Python threads call `transform` at once; the runner parallelises so and keeps each library at one thread of its own
    meanwhile. Nothing is learned outside `fit`. An image that cannot be described (blank, no keypoint) gives a zero
    row, never NaN.

    Optional attributes that the runner reads:
    learned: tuple of attribute names (numpy arrays) that `fit` sets; the cache saves and restores them.
        Absent or empty: the method learns nothing from train.
    fit_images: how many training images `fit` reads at most; without it, all of them. Progress is counted by it.
    progress: (what, done, total) -> None, which the runner sets before `fit` where an extractor has it: for learning
        that goes on long after the images were read.
    chunk: how many images `transform` likes to be given at once; without it, a few.
    mark: e.g. "untrained"; the method is then called "resnet50[untrained]" everywhere.
    weights: {"source": ..., "sha256": ...} of the network's weights, for the record.
    trained_on: what a weights file says of its training; a query that is among its images is refused.
    serial: True where the work on one image is too small to be divided: while single queries are timed, too, BLAS and
        OpenCV then keep to one thread (two that wait for each other took 50 ms over what one does in 5).
    searcher: (gallery features) -> Searcher, for features that no backend compares, such as several codes an image; the
        runner then uses it in place of the backend.
    transform_split: (split) -> features, for controls that may look at labels (the oracle); used in place of
        `transform`, never cached and never timed.
    """

    distance: Distance

    def fit(self, train: Split) -> Self:
        """Learn from `train` alone. Called once, also where there is nothing to learn (then it only returns self)."""

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, d) float32 for cosine, euclidean, inner_product; (n, bytes) packed uint8 for hamming.

        Also float16 or int8 instead of float32, where that is what is kept of an image.
        """


@dataclass(frozen=True, eq=False)
class Bundle:
    """Several features of the same n images, by name: what a method searches with that takes more than one array.

    arrays: name -> (n, ...) array. A slice or an array of rows selects the same rows of each.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | np.ndarray) -> Bundle:
        return Bundle({name: array[rows] for name, array in self.arrays.items()})

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


Rows = np.ndarray | Bundle
"""What is searched for and in: one array, or a Bundle of them."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k nearest gallery rows of each query.

    indices: (q, k) int64 gallery rows, nearest first; equal distances: lower row first; -1 pads.
    distances: (q, k) float32, not decreasing along a row; inf pads.
    """

    indices: np.ndarray
    distances: np.ndarray


class Searcher(Protocol):
    """A backend that holds a gallery."""

    @property
    def bytes(self) -> int:
        """What the index itself occupies."""

    def __call__(self, queries: Any, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """exclude: (q,) or (q, m) int64 gallery rows that query i must not find; -1 stands for none."""


@dataclass(frozen=True, eq=False)
class Judged:
    """All that a metric may see.

    expected: (q,) int64 label of each query.
    retrieved: (q, k) int64 labels found, nearest first; -1 where padded.
    n_relevant: (q,) int64 gallery items with the query's label (its own row not counted when left out); all > 0.
    relevant_ranks: (q, max n_relevant) int64, the 0-based ranks of all relevant items in the ranking of the whole
        gallery, ascending, padded with -1 behind; None where the gallery is too large to rank whole.
    """

    expected: np.ndarray
    retrieved: np.ndarray
    n_relevant: np.ndarray
    relevant_ranks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.expected)

    @property
    def hits(self) -> np.ndarray:
        """(q, k) bool: is the item at this rank relevant."""
        return self.retrieved == self.expected[:, None]

    def take(self, rows: Sequence[int] | np.ndarray) -> Judged:
        """Only these queries (repeats allowed): resampling gives an interval for any metric."""
        rows = np.asarray(rows, np.int64)
        ranks = None if self.relevant_ranks is None else self.relevant_ranks[rows]
        return Judged(self.expected[rows], self.retrieved[rows], self.n_relevant[rows], ranks)
