"""The types that all parts of the package share: splits, datasets, features, rankings, judgements.

Nothing here knows about files, networks or tables; numpy is the only import beyond the standard library.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, Self, get_args, runtime_checkable

import numpy as np

Distance = Literal["cosine", "euclidean", "inner_product", "hamming"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)

SPLITS = ("train", "gallery", "query")

MODALITIES = ("image", "text")
"""What an item can be described by."""


SEVERITIES = (1, 2, 3, 4, 5)
"""How strong a perturbation is, from slight to severe."""


class Sides(NamedTuple):
    """What a query is, and what an item of the gallery is: "image", "text" or "image+text"."""

    query: str
    gallery: str

    def __str__(self) -> str:
        return self.query if self.query == self.gallery else f"{self.query}-to-{self.gallery}"

    @property
    def read(self) -> frozenset[str]:
        """All modalities that either side needs."""
        return frozenset(f"{self.query}+{self.gallery}".split("+"))


DISTRACTOR = "(distractor)"
"""The label (and category) of an image that shows nothing of interest. In the gallery it is relevant to no query; among
the queries nothing in the gallery answers it."""


class BenchError(Exception):
    """A mistake of the user, in one sentence: what is wrong, what is allowed, what to do.

    Commands print it without a traceback and end with exit code 2.
    """


class NotComparable(BenchError):
    """Two records must not be compared; the sentence says why. Commands end with exit code 3."""


class BadJudgement(BenchError, ValueError):
    """Arrays that are no judgement: of what `Judged` was given, the sentence says which, and what it must be."""


class BadImage(Exception):
    """One image that cannot be used.

    Args:
        reason: a short phrase, the same for all images with this fault, so that they can be counted.
        detail: one sentence about this image.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as text that can always be encoded: bytes that are not UTF-8 become \xNN."""
    if isinstance(path, str) and path.isascii():
        return path  # the very same text, of which a dataset of a million images holds one
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Setup:
    """What a run fixes for all methods. Builders of extractors take it as their first argument.

    Args:
        seed: seed of everything random, from 0.
        weights: "auto", "pretrained", "random", or a directory that holds state dicts.
        device: "cpu" or "cuda"; already resolved, never "auto".
        threads: Python threads that `fit` may use, at least 1. What is learned must not depend on it.
    """

    seed: int = 0
    weights: str = "auto"
    device: str = "cpu"
    threads: int = 1


class Images(Protocol):
    """n encoded images, decoded on access. `images.reading` has implementations for files and for bytes in memory."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, row: int) -> np.ndarray:
        """Decode one image.

        Args:
            row: which image, from 0.

        Returns:
            (h, w, 3) uint8 RGB, upright.

        Raises:
            BadImage: The image cannot be read or decoded.
        """

    def read(self, row: int) -> bytes:
        """Read one image without decoding it.

        Args:
            row: which image, from 0.

        Returns:
            The encoded bytes, as stored.

        Raises:
            BadImage: The bytes cannot be read.
        """

    def digest(self, row: int) -> str:
        """Identify the content of one image, for the feature cache and the fingerprint.

        Args:
            row: which image, from 0.

        Returns:
            sha256 of the content, as hex digits.
        """

    def take(self, rows: Sequence[int]) -> Images:
        """Select images.

        Args:
            rows: which images, from 0; repeats are allowed.

        Returns:
            These images, in this order.
        """


@dataclass(frozen=True, eq=False)
class Split:
    """One of train, gallery and query: n images and what is known of them.

    Args:
        ids: n stable printable names, unique within the split, e.g. "test/Fruit/Lemon/Lemon_007.jpg".
        labels: (n,) int64, the class of each image; indexes `Dataset.label_names`.
        images: n images, decoded on access.
        categories: (n,) int64, the coarse class; indexes `Dataset.category_names`. None: the dataset has none.
        attributes: name -> (n,) array of what else is known of each image (view parameters, text, group).
        other_labels: (n, m) int64, what else an image shows besides `labels`, padded with -1. None: nothing. Methods
            learn from `labels` alone; relevant is what shares any label.
        other_categories: (n, m) int64, the category of each of these. None: there are none.
        texts: n texts, what each item is called or described as, in any language; "" where an item has none. None: the
            split has no texts.
        pictured: (n,) bool, False where an item has no picture, only a text. None: each has one.

    Raises:
        ValueError: A column has another length than `ids`, or an item has neither picture nor text.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    images: Images
    categories: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))
    other_labels: np.ndarray | None = None
    other_categories: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    pictured: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns = {"labels": self.labels, "categories": self.categories, "pictured": self.pictured, **self.attributes}
        for name, column in columns.items():
            if column is not None and np.shape(column) != (n,):
                raise ValueError(f"{name} has shape {np.shape(column)}, expected ({n},)")
        for name, table in (("other_labels", self.other_labels), ("other_categories", self.other_categories)):
            if table is not None and (np.ndim(table) != 2 or len(table) != n):
                raise ValueError(f"{name} has shape {np.shape(table)}, expected ({n}, m)")
        if len(self.images) != n:
            raise ValueError(f"{len(self.images)} images for {n} ids")
        if self.texts is not None and len(self.texts) != n:
            raise ValueError(f"{len(self.texts)} texts for {n} ids")
        if self.pictured is not None:
            told = self.texts or ("",) * n
            bare = [item for item, seen, text in zip(self.ids, self.pictured, told, strict=True) if not (seen or text)]
            if bare:
                raise ValueError(f"{bare[0]!r} has neither picture nor text")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label_sets(self) -> np.ndarray:
        """All that each image shows: `labels`, (n,), or with `other_labels` behind it (n, 1 + m), padded with -1."""
        return self.labels if self.other_labels is None else np.column_stack([self.labels, self.other_labels])

    @cached_property
    def content(self) -> str:
        """sha256 (hex) over everything that can be learned from: each image's digest and label, in order."""
        digest = hashlib.sha256()
        for row, label in enumerate(self.labels):
            digest.update(f"{self.images.digest(row)} {label}\n".encode())
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | np.ndarray) -> Split:
        """Select rows.

        Args:
            rows: which rows, from 0.

        Returns:
            A split of these rows, in this order.
        """
        rows = np.asarray(rows, np.int64)
        return Split(
            ids=tuple(self.ids[row] for row in rows),
            labels=self.labels[rows],
            images=self.images.take(rows.tolist()),
            categories=None if self.categories is None else self.categories[rows],
            attributes={name: column[rows] for name, column in self.attributes.items()},
            other_labels=None if self.other_labels is None else self.other_labels[rows],
            other_categories=None if self.other_categories is None else self.other_categories[rows],
            texts=None if self.texts is None else tuple(self.texts[row] for row in rows),
            pictured=None if self.pictured is None else self.pictured[rows],
        )

    @property
    def with_pictures(self) -> Split:
        """The items that have a picture; the split itself where each has one."""
        if self.pictured is None or self.pictured.all():
            return replace(self, pictured=None) if self.pictured is not None else self
        return replace(self.take(np.flatnonzero(self.pictured)), pictured=None)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits and the names of their labels; checked when it is created.

    Args:
        name: the name of the dataset, e.g. "products".
        train: what methods learn from; may be empty.
        gallery: what is searched in; at least one image.
        query: what is searched for; at least one image.
        label_names: names of the labels; a label is an index into them.
        category_names: names of the categories; a category is an index into them.
        leave_one_out: queries may also lie in the gallery; the search then excludes each query itself, by its id.
        notices: sentences for the record about what is odd but usable (an empty class, a label without queries).

    The label `DISTRACTOR`, where there is one, stands for no label; gallery images and queries may have it.

    Raises:
        BenchError: An id occurs twice in a split, gallery or query is empty, a query is also in train or (without
            `leave_one_out`) in the gallery, gallery and query have only one label, or an image of train has none.
        ValueError: A label or category has no name.
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
            for what, table, known in (
                ("labels", split.other_labels, self.label_names),
                ("categories", split.other_categories, self.category_names),
            ):
                if table is not None:
                    _check_indexes(f"{name}.other_{what}", table[table != -1], known)
            if name == "train" and len(lone := np.flatnonzero(self.is_distractor(split))):
                raise BenchError(
                    f"dataset {self.name}: {split.ids[lone[0]]!r} in train has no label; only gallery images may lack "
                    "one, as distractors, and queries that nothing answers"
                )
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
        used = np.unique(np.concatenate([self.gallery.label_sets.ravel(), self.query.label_sets.ravel()]))
        used = used[used >= 0]
        if len(used) < 2:
            only = self.label_names[int(used[0])]
            raise BenchError(
                f"dataset {self.name}: every gallery and query image is labelled {only!r}; "
                "a comparison needs at least two labels"
            )

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits by their names: train, gallery, query."""
        return {"train": self.train, "gallery": self.gallery, "query": self.query}

    @property
    def label_count(self) -> int:
        """How many labels have a name; that of distractors is none."""
        return len(self.label_names) - (DISTRACTOR in self.label_names)

    def is_distractor(self, split: Split) -> np.ndarray:
        """(n,) bool: which images of a split have no label."""
        if DISTRACTOR not in self.label_names:
            return np.zeros(len(split), bool)
        return split.labels == self.label_names.index(DISTRACTOR)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over ids, labels, categories and image contents of all three splits; equal: the same splits.

        Texts are part of it where the splits have them: who reads none leaves them out first (`without_texts`).
        """
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name}\n".encode())
            for row, item in enumerate(split.ids):
                label = self.label_names[int(split.labels[row])]
                if split.other_labels is not None:
                    more = sorted(self.label_names[other] for other in split.other_labels[row].tolist() if other >= 0)
                    label = "\x1f".join((label, *more))
                category = ""
                if split.categories is not None:
                    category = self.category_names[int(split.categories[row])]
                if split.other_categories is not None:
                    more = [self.category_names[other] for other in split.other_categories[row].tolist() if other >= 0]
                    category = "\x1f".join((category, *sorted(more)))
                told = () if split.texts is None else (split.texts[row],)
                digest.update(
                    "\0".join((item, label, category, split.images.digest(row), *told)).encode(errors="surrogatepass")
                )
                digest.update(b"\n")
        return digest.hexdigest()

    def without_texts(self) -> Dataset:
        """The same dataset for methods that look at images alone: no texts, and no attribute `text_...` of them.

        Items without a picture are left out, with a notice.
        """
        whole = self.with_pictures()
        splits = {}
        for name, split in whole.splits.items():
            kept = {key: column for key, column in split.attributes.items() if not key.startswith("text_")}
            splits[name] = replace(split, texts=None, attributes=kept)
        return whole.with_splits(splits)

    def with_pictures(self) -> Dataset:
        """The dataset without the items that have no picture, which a notice counts."""
        splits = {name: split.with_pictures for name, split in self.splits.items()}
        counts = [(len(self.splits[name]) - len(split), name) for name, split in splits.items()]
        left_out = ", ".join(f"{n} of {len(self.splits[name])} in {name}" for n, name in counts if n)
        notice = f"items without a picture are left out, as pictures alone are looked at: {left_out}"
        return self.with_splits(splits, [notice] if left_out else [])

    def with_splits(self, splits: Mapping[str, Split], notices: Sequence[str] = ()) -> Dataset:
        """Replace splits, for example to leave some images out. The new dataset is checked again.

        Args:
            splits: name (train, gallery, query) -> new split; splits that are not named stay.
            notices: sentences that are added to those of the dataset.

        Returns:
            A new dataset.

        Raises:
            BenchError: As for a new dataset.
        """
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
    """Turns images into vectors or bit codes; one that reads texts turns these into them by `transform_texts`.

    Contract of `transform`, and of `transform_texts`:

    - Row i depends only on image i, to the last bit, whatever images are beside it.
    - Several Python threads may call it at once. The runner does so, and keeps each library at one thread meanwhile.
    - Nothing is learned outside `fit`.
    - An image that cannot be described (blank, no keypoint) gives a row of zeros, never NaN.

    An extractor may have more attributes, which the runner reads:

    - transform_texts: (texts: Sequence[str]) -> features, of an extractor that is registered with the fact
      modalities=("text",) or ("image", "text"). They are of the same kind as those of `transform` where it reads both;
      an empty text gives a row of zeros. Of one that reads texts alone, `transform` is never called.
    - lexical: True of an extractor whose `transform_texts` gives (n, 1) objects, each a tuple of words, in place of
      vectors. It has a `searcher`, and the cache keeps nothing of it.
    - comparable: False where the distances of two queries are not on one scale, so that no threshold serves all.
    - learned: tuple of names of the attributes (numpy arrays) that `fit` sets. The cache saves and restores them.
      Absent or empty: the method learns nothing from train.
    - fit_images: `fit` reads at most this many training images. Absent: all. Progress is counted by it.
    - progress: (what, done, total) -> None. The runner sets it before `fit`, if the extractor has it: for learning that
      takes long after the images were read.
    - chunk: number of images that `transform` should be given at once. Absent: a few.
    - wanted: pixels of the shorter side, at most, to which every picture that has more is shrunk before anything else
      is done with it. Absent or None: it looks at every pixel. `run --decode reduced` reads it.
    - mark: for example "untrained". The method is then called "resnet50[untrained]" everywhere.
    - weights: {"source": ..., "sha256": ...} of the network's weights, for the record.
    - trained_on: what a weights file says of its training. A query that is among its images is refused.
    - serial: True if the work on one image is too small to be divided. BLAS and OpenCV then keep to one thread also
      while single queries are timed (two threads that waited for each other took 50 ms for what one does in 5 ms).
    - searcher: (gallery features) -> `Searcher`, for features that no backend can compare, such as several codes for
      one image. The runner then uses it instead of the backend.
    - describe_split: (split, name of the split) -> features, for vectors that lie in a file and are found by the
      images' ids. It is used instead of `transform`: no image is decoded, and of a query the search alone is timed.
    - meet: (dataset) -> sentences for the row, of an extractor with `describe_split`. Called before it is asked for
      anything; raises BenchError where an image is missing.
    - stated_ms: milliseconds of one query, as the user says. Shown as stated where the row is of this extractor alone.
    - ranks_only: True of an extractor whose `searcher` knows a ranking and nothing else, which may end before the
      gallery does. It has no features: nothing of it is re-ranked, and nothing of its search is timed.
    - elsewhere: True where another machine describes the images, which may cost something for each. No image is then
      described again to see whether it gets the same features.
    - transform_split: (split) -> features, for controls that may use labels (the oracle). It is used instead of
      `transform`, and is never cached and never timed.

    Attributes:
        distance: how features are compared: "cosine", "euclidean", "inner_product" or "hamming".
    """

    distance: Distance

    def fit(self, train: Split) -> Self:
        """Learn from `train` only. Called once, also if there is nothing to learn.

        Args:
            train: the training images and their labels; may be empty.

        Returns:
            The extractor itself.
        """

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Describe images.

        Args:
            images: n arrays (h, w, 3) uint8 RGB.

        Returns:
            (n, d) float32 for cosine, euclidean and inner_product, also float16 or int8 if that is what is stored of an
            image; (n, bytes) packed uint8 for hamming.
        """


def refuse_unfitted(extractor: object, called: str) -> None:
    """Check that `fit` was called, or that what it learns was set.

    Args:
        extractor: an Extractor that is to describe something.
        called: what the sentence begins with.

    Raises:
        BenchError: It lacks an array of those that it learns.
    """
    if any(not hasattr(extractor, name) for name in getattr(extractor, "learned", ())):
        raise BenchError(f"{called} learns from train, and has learned nothing yet; call fit first")


@dataclass(frozen=True, eq=False)
class Bundle:
    """Several features of the same n images, by name, for methods that search with more than one array.

    Args:
        arrays: name -> (n, ...) array. A slice or an array of rows selects the same rows of each.
    """

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: slice | np.ndarray) -> Bundle:
        return Bundle({name: array[rows] for name, array in self.arrays.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self.arrays.values())


Rows = np.ndarray | Bundle
"""Features that are searched for or searched in: one array, or a Bundle of arrays."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """The k nearest gallery rows of each query.

    Args:
        indices: (q, k) int64 gallery rows, nearest first; equal distances: lower row first; padded with -1.
        distances: (q, k) float32, not decreasing along a row; padded with inf. An exact search ranks by float64: two
            rows of one distance here may have had two there.
    """

    indices: np.ndarray
    distances: np.ndarray


class Searcher(Protocol):
    """A search over a gallery that it holds."""

    @property
    def bytes(self) -> int:
        """Bytes that the index itself takes."""

    def __call__(self, queries: Any, k: int, exclude: np.ndarray | None = None) -> Ranking:
        """Find the k nearest gallery rows of each query.

        Args:
            queries: q rows of the same kind as the gallery.
            k: how many rows to find for each query, at least 1.
            exclude: (q,) or (q, m) int64 gallery rows that query i must not find; -1 stands for none.

        Returns:
            The nearest rows and their distances.
        """


@dataclass(frozen=True, eq=False)
class Judged:
    """Everything that a metric may use; checked when it is created.

    Whole numbers of any kind, also as lists, are taken, and become int64.

    Args:
        expected: (q,) int64, the label of each query, from 0.
        retrieved: (q, k) int64, the labels found, nearest first; padded with -1.
        n_relevant: (q,) int64, the number of gallery items with the query's label, without the query itself if it is
            excluded; all > 0: a query with nothing to find is left out, and counted by whoever leaves it out.
        relevant_ranks: (q, max n_relevant) int64, the ranks (from 0) of all relevant items in the ranking of the whole
            gallery, ascending, padded with -1 at the end. None: the gallery is too large to be ranked whole.
        grades: (q, k) int64, 2 where the item is relevant, 1 where only its category is the query's, else 0. None: not
            known.
        n_partly: (q,) int64, the number of gallery items of grade 1. None where `grades` is.
        truncated: rankings may end before the gallery does; a relevant item without a rank was not found.

    Raises:
        BadJudgement: An array is missing, its shape, dtype or range is wrong, a query has nothing relevant or has more
            hits than relevant items, relevant_ranks is incomplete (unless truncated), unsorted, or contradicts what was
            retrieved, or grades contradict the hits.
    """

    expected: np.ndarray
    retrieved: np.ndarray
    n_relevant: np.ndarray
    relevant_ranks: np.ndarray | None = None
    grades: np.ndarray | None = None
    n_partly: np.ndarray | None = None
    truncated: bool = False

    def __post_init__(self) -> None:
        one, many = (), ("k",)
        shapes = {"expected": one, "retrieved": many, "n_relevant": one, "grades": many, "n_partly": one}
        for name, shape in {**shapes, "relevant_ranks": ("R",)}.items():
            given = getattr(self, name)
            if given is None and name not in ("relevant_ranks", "grades", "n_partly"):
                raise BadJudgement(f"{name} is None; give whole numbers, an entry for each query")
            if given is not None:
                object.__setattr__(self, name, _whole_numbers(name, given))
                _check_shape(name, getattr(self, name), self.expected.size, shape)
        _check_labels(self)
        if self.relevant_ranks is not None:
            _check_ranks(self, self.relevant_ranks)
        if (self.grades is None) != (self.n_partly is None):
            raise BadJudgement("grades and n_partly belong together; give both or none")
        if self.grades is not None:
            _check_grades(self, self.grades)

    def __len__(self) -> int:
        return len(self.expected)

    @property
    def hits(self) -> np.ndarray:
        """(q, k) bool: True if the item at this rank is relevant."""
        return self.retrieved == self.expected[:, None]

    def take(self, rows: Sequence[int] | np.ndarray) -> Judged:
        """Select queries, for example to resample them.

        Args:
            rows: which queries, from 0; repeats are allowed.

        Returns:
            The judgements of these queries, in this order.
        """
        rows = np.asarray(rows, np.int64)
        ranks = None if self.relevant_ranks is None else self.relevant_ranks[rows]
        grades, partly = (None if of is None else of[rows] for of in (self.grades, self.n_partly))
        found = self.expected[rows], self.retrieved[rows], self.n_relevant[rows]
        return Judged(*found, ranks, grades, partly, self.truncated)


_MOST = 2**53
"""The largest count and rank that are taken: sums of two of them do not wrap around, and float64 tells each apart."""


def as_array(name: str, given: Any, ragged: str) -> np.ndarray:
    """The argument as an array of whatever dtype NumPy gives it; BenchError where there is none.

    ragged: what is asked of rows that have different lengths.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise BenchError(f"{name} is a masked array, whose hidden values would be read; give it filled (.filled())")
    try:
        return np.asarray(given)
    except ValueError as error:  # NumPy's sentence speaks of its own parts
        raise BenchError(f"{name} has rows of different lengths; {ragged}") from error
    except (TypeError, RuntimeError, OverflowError) as error:  # an array of another library: bfloat16, on a GPU, ...
        why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BenchError(
            f"{name} is a {type(given).__name__} that NumPy cannot read ({why}); give an array of NumPy, in the memory "
            "of the CPU"
        ) from error


def _whole_numbers(name: str, given: Any) -> np.ndarray:
    """As int64: sums of smaller whole numbers would wrap around."""
    try:
        array = as_array(name, given, "pad them with -1")
    except BenchError as error:
        raise BadJudgement(str(error)) from error
    if array.dtype.kind not in "iu":
        raise BadJudgement(f"{name} is {array.dtype}, expected whole numbers")
    most = np.iinfo(np.int64).max if name in ("expected", "retrieved") else _MOST
    if array.size and array.max() > most:
        raise BadJudgement(f"{name} holds {array.max()}; the largest number that it may hold is {most}")
    return array.astype(np.int64, copy=False)


def _check_shape(name: str, array: np.ndarray, q: int, shape: tuple[str, ...]) -> None:
    """shape: of what there is for each of q queries."""
    if array.ndim != 1 + len(shape) or len(array) != q:
        expected = ", ".join((str(q), *shape)) if shape else f"{q},"
        raise BadJudgement(f"{name} has shape {array.shape}, expected ({expected})")


def _check_labels(judged: Judged) -> None:
    """No label may be taken for padding, and no query may find more than there is."""
    expected, n_relevant = judged.expected, judged.n_relevant
    if (query := _first(expected < 0)) is not None:
        raise BadJudgement(f"query {query} has label {expected[query]}; labels count from 0")
    if (query := _first((judged.retrieved < -1).any(axis=1))) is not None:
        raise BadJudgement(f"query {query}: retrieved holds {judged.retrieved[query].min()}; only -1 pads")
    if (query := _first(n_relevant < 1)) is not None:
        raise BadJudgement(f"query {query} has nothing relevant in the gallery; leave it out first")
    found = judged.hits.sum(axis=1)
    if (query := _first(found > n_relevant)) is not None:
        raise BadJudgement(f"query {query} found {found[query]} relevant items, but n_relevant is {n_relevant[query]}")


def _check_ranks(judged: Judged, ranks: np.ndarray) -> None:
    """Complete, ascending, padded behind, and where the hits are."""
    k = judged.retrieved.shape[1]
    real = ranks >= 0
    ranked = real.sum(axis=1)
    wrong = ranked > judged.n_relevant if judged.truncated else ranked != judged.n_relevant
    if (query := _first(wrong)) is not None:
        raise BadJudgement(
            f"query {query}: relevant_ranks does not hold a rank for every relevant item, but {real[query].sum()} for "
            f"{judged.n_relevant[query]}"
        )
    filled = np.arange(ranks.shape[1]) < ranked[:, None]
    if (query := _first((np.where(filled, -1, ranks) != -1).any(axis=1))) is not None:
        raise BadJudgement(f"query {query}: relevant_ranks must hold the ranks first and then -1 alone")
    if (query := _first((filled[:, 1:] & (ranks[:, 1:] <= ranks[:, :-1])).any(axis=1))) is not None:
        raise BadJudgement(f"query {query}: relevant_ranks must ascend, no rank twice")
    first = ranks[:, :k]  # ascending from 0: what ranks below k stands in the first k columns
    places = np.zeros((len(ranks), k + 1), bool)
    np.put_along_axis(places, np.where(filled[:, :k] & (first < k), first, k), True, axis=1)
    if (query := _first((places[:, :k] != judged.hits).any(axis=1))) is not None:
        raise BadJudgement(
            f"query {query}: relevant_ranks and retrieved disagree about which ranks below {k} are relevant"
        )


def _check_grades(judged: Judged, grades: np.ndarray) -> None:
    """2 where it is relevant and nowhere else, and no more of grade 1 than there are."""
    if grades.shape != judged.retrieved.shape:
        raise BadJudgement(f"grades has shape {grades.shape}, retrieved {judged.retrieved.shape}")
    if (query := _first((~np.isin(grades, (0, 1, 2)) | ((grades == 2) != judged.hits)).any(axis=1))) is not None:
        raise BadJudgement(f"query {query}: grades must be 2 where the item is relevant, and 1 or 0 elsewhere")
    if (query := _first((grades == 1).sum(axis=1) > judged.n_partly)) is not None:
        raise BadJudgement(f"query {query} found more items of grade 1 than n_partly says")


def _first(wrong: Any) -> int | None:
    """The first query for which this is true; wrong: (q,) bool."""
    return int(wrong.argmax()) if wrong.any() else None
