"""Where a method is good and where it is not: its scores by category, by class size, by what is known of each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import Dataset, Split
from retrieval_bench.results import Record
from retrieval_bench.revisit import main_metrics, rows_of, values_of
from retrieval_bench.uncertainty import intervals_of, statistics

SIZES = ((0, 0, "none"), (1, 1, "1"), (2, 5, "2-5"), (6, 20, "6-20"), (21, None, "more than 20"))
"""Train images of a query's label: from, to, name."""

BINS = 4
MOST_VALUES = 12
"""An attribute with more values than this is cut into bins if it is a number, and left out if it is not."""


@dataclass(frozen=True, eq=False)
class Slicing:
    """One way to divide the queries. slices: name -> rows of the queries, in order, none empty."""

    by: str
    about: str
    slices: Mapping[str, np.ndarray]


def slicings(train: Split, query: Split, category_names: Sequence[str], n_labels: int) -> list[Slicing]:
    """Every way to divide these queries that gives at least two slices."""
    found = []
    if query.categories is not None:
        names = [category_names[number] for number in query.categories.tolist()]
        found.append(Slicing("category", "the query's category", _by_value(np.array(names))))
    found.append(Slicing("class size", "train images of the query's label", _by_size(train, query, n_labels)))
    for name, column in query.attributes.items():
        divided = _divided(column)
        if divided is not None:
            slices, how = divided
            found.append(Slicing(name, f"the query's attribute {name}, {how}", slices))
    return [slicing for slicing in found if len(slicing.slices) > 1]


def sliced(
    record: Record, arrays: Mapping[str, np.ndarray], dataset: Dataset, methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Scores in every slice, ready for JSON: by, about, and slices with name, queries, products, and by method and
    metric the mean with its interval (`low` and `high` are None where all queries show one product).

    arrays: of `results.load_rankings`; dataset: of `revisit.dataset_of`.
    """
    query = dataset.query.take(rows_of(dataset.query.ids, arrays["query_ids"]))
    values = {method: values_of(record, arrays, method) for method in methods}
    ways = slicings(dataset.train, query, dataset.category_names, len(dataset.label_names))
    return [
        {
            "by": way.by,
            "about": way.about,
            "slices": [_measured(name, rows, query.labels, values, record) for name, rows in way.slices.items()],
        }
        for way in ways
    ]


def _measured(
    name: str, rows: np.ndarray, labels: np.ndarray, values: Mapping[str, Mapping[str, np.ndarray]], record: Record
) -> dict[str, Any]:
    products = labels[rows]
    how = statistics(products, record.settings.seed)
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for method, columns in values.items():
        inside = {metric: columns[metric][rows] for metric in main_metrics(record)}
        reach = intervals_of(inside, products, how)
        scores[method] = {
            metric: {
                "mean": float(column.mean()),
                "low": reach[metric].low if metric in reach else None,
                "high": reach[metric].high if metric in reach else None,
            }
            for metric, column in inside.items()
        }
    return {"name": name, "queries": len(rows), "products": how.clusters, "scores": scores}


def _by_value(column: np.ndarray) -> dict[str, np.ndarray]:
    return {str(value): np.flatnonzero(column == value) for value in np.unique(column)}


def _by_size(train: Split, query: Split, n_labels: int) -> dict[str, np.ndarray]:
    sizes = np.bincount(train.labels, minlength=n_labels)[query.labels]
    divided = {
        name: np.flatnonzero((sizes >= low) & (sizes <= (sizes.max() if high is None else high)))
        for low, high, name in SIZES
    }
    return {name: rows for name, rows in divided.items() if len(rows)}


def _divided(column: np.ndarray) -> tuple[dict[str, np.ndarray], str] | None:
    """Few values: by value. Many numbers: in bins of about equally many queries. Else None."""
    number = column.dtype.kind in "fiu"
    known = column[np.isfinite(column)] if column.dtype.kind == "f" else column
    values = np.unique(known.astype(str) if column.dtype.kind == "O" else known)
    if len(values) <= MOST_VALUES:
        slices = _by_value(column.astype(str) if column.dtype.kind == "O" else column)
        slices.pop("nan", None)
        how = "by value"
    elif number:
        slices, how = _binned(column, known), f"in {BINS} bins of about equally many queries"
    else:
        return None
    unknown = np.flatnonzero(~np.isfinite(column)) if column.dtype.kind == "f" else np.empty(0, np.int64)
    if len(unknown):
        slices["unknown"] = unknown
    return slices, how


def _binned(column: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Bins hold their lower edge and not the upper one; the last holds both."""
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    place = np.searchsorted(edges[1:-1], column, side="right")
    inside = np.isfinite(column.astype(np.float64))
    found = {}
    for number in range(len(edges) - 1):
        rows = np.flatnonzero((place == number) & inside)
        if len(rows):
            found[f"{edges[number]:.4g} to {edges[number + 1]:.4g}"] = rows
    return found
