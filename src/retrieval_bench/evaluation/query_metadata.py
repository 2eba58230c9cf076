"""What is known of the labels and of each query besides its images: kept beside the rankings, so that a record can be
told by name, category, class size and attribute long after the data is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from retrieval_bench.core import Dataset

MOST_VALUES = 12
"""An attribute with more values than this is kept if they are numbers, and left out if they are not."""

_ATTRIBUTE = "query_attributes/"


@dataclass(frozen=True, eq=False)
class Known:
    """Whatever of it is not known is None or empty: records of earlier versions hold none of it.

    label_names, category_names: in the order of the numbers that stand for them.
    categories: (q,) int64, the coarse class of each query. class_sizes: (q,) int64 train images of the query's label.
    attributes: name -> (q,) numbers (NaN where not known) of any count of values, or text of at most MOST_VALUES.
    """

    label_names: tuple[str, ...] = ()
    category_names: tuple[str, ...] = ()
    categories: np.ndarray | None = None
    class_sizes: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=lambda: MappingProxyType({}))


def known_of(dataset: Dataset, query_ids: np.ndarray) -> Known:
    """query_ids: (q,) those of the record, in its order; KeyError for one that the dataset does not have."""
    place = {item: row for row, item in enumerate(dataset.query.ids)}
    query = dataset.query.take([place[item] for item in query_ids.tolist()])
    sizes = np.bincount(dataset.train.labels, minlength=len(dataset.label_names))
    columns = {name: _telling(column) for name, column in query.attributes.items()}
    return Known(
        label_names=dataset.label_names,
        category_names=dataset.category_names,
        categories=query.categories,
        class_sizes=sizes[query.labels].astype(np.int64),
        attributes={name: column for name, column in columns.items() if column is not None},
    )


def known_in(arrays: Mapping[str, np.ndarray]) -> Known:
    """What the arrays of a record hold of it."""
    categories, sizes = arrays.get("query_categories"), arrays.get("query_class_sizes")
    return Known(
        label_names=tuple(arrays.get("label_names", np.empty(0, str)).tolist()),
        category_names=tuple(arrays.get("category_names", np.empty(0, str)).tolist()),
        categories=None if categories is None else categories.astype(np.int64),
        class_sizes=None if sizes is None else sizes.astype(np.int64),
        attributes={
            name.removeprefix(_ATTRIBUTE): column for name, column in arrays.items() if name.startswith(_ATTRIBUTE)
        },
    )


def arrays_of(known: Known) -> dict[str, np.ndarray]:
    """As `known_in` reads it."""
    arrays = {f"{_ATTRIBUTE}{name}": column for name, column in known.attributes.items()}
    if known.label_names:
        arrays["label_names"] = np.array(known.label_names)
    if known.categories is not None:
        arrays["category_names"] = np.array(known.category_names)
        arrays["query_categories"] = known.categories.astype(np.int32)
    if known.class_sizes is not None:
        arrays["query_class_sizes"] = known.class_sizes.astype(np.int32)
    return arrays


def _telling(column: np.ndarray) -> np.ndarray | None:
    """Numbers as float64 where they are not few, or are numbers already; few values as text; None for long texts and
    for what is the same everywhere."""
    if column.dtype.kind in "fiu":
        numbers = column.astype(np.float64)
        return numbers if len(np.unique(numbers)) > 1 else None
    text = column.astype(str)
    values = np.unique(text)
    if 1 < len(values) <= MOST_VALUES:
        return text
    return _numbers(text) if len(values) > MOST_VALUES else None


def _numbers(text: np.ndarray) -> np.ndarray | None:
    """A column of a list of files is text; where all of it reads as numbers, it is numbers. Nothing is NaN."""
    try:
        return np.array([float(word) if word.strip() else np.nan for word in text.tolist()])
    except ValueError:
        return None
