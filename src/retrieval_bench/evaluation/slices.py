"""Where a method is good and where it is not: its scores by category, by class size, by what is known of each query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval_bench.evaluation.query_metadata import MOST_VALUES, Known
from retrieval_bench.evaluation.uncertainty import intervals_of, statistics

SIZES = ((0, 0, "none"), (1, 1, "1"), (2, 5, "2-5"), (6, 20, "6-20"), (21, None, "more than 20"))
"""Train images of a query's label: from, to, name."""

BINS = 4


@dataclass(frozen=True, eq=False)
class Slicing:
    """One way to divide the queries. slices: name -> rows of the queries, in order, none empty."""

    by: str
    about: str
    slices: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Score:
    """A mean over the queries of a slice; low and high are None where all of them have one label."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Slice:
    """scores: method -> metric -> score. products: how many different labels its queries have."""

    name: str
    queries: int
    products: int
    scores: dict[str, dict[str, Score]]


@dataclass(frozen=True)
class Sliced:
    """One way to divide the queries, with the scores of every part."""

    by: str
    about: str
    slices: tuple[Slice, ...]


def slicings(known: Known, n_relevant: np.ndarray) -> list[Slicing]:
    """Every way to divide these queries that gives at least two slices. n_relevant: (q,) what each should find."""
    found = []
    if known.categories is not None:
        names = np.array(known.category_names)[known.categories]
        found.append(Slicing("category", "the query's category", _by_value(names)))
    if known.class_sizes is not None:
        found.append(Slicing("class size", "train images of the query's label", _by_size(known.class_sizes)))
    counts, how = _divided(n_relevant.astype(np.float64))
    found.append(Slicing("relevant images", f"images of the query's label in the gallery, {how}", counts))
    for name, column in known.attributes.items():
        number = column.dtype.kind == "f"
        signed = number and np.nanmin(column, initial=0) < 0 < np.nanmax(column, initial=0)
        if signed:  # turned by 20 degrees to the left is as hard as to the right; from where on is what one asks
            slices, how = _divided(np.abs(column))
            found.append(Slicing(f"|{name}|", f"the query's attribute {name} without its sign, {how}", slices))
        else:
            slices, how = _divided(column) if number else (_by_value(column), "by value")
            found.append(Slicing(name, f"the query's attribute {name}, {how}", slices))
    return [slicing for slicing in found if len(slicing.slices) > 1]


def sliced(
    ways: list[Slicing], values: Mapping[str, Mapping[str, np.ndarray]], clusters: np.ndarray, seed: int
) -> list[Sliced]:
    """Scores in every slice. values: method -> metric -> (q,) of each query; clusters: (q,) the queries' labels."""
    return [
        Sliced(
            way.by,
            way.about,
            tuple(_measured(name, rows, clusters[rows], values, seed) for name, rows in way.slices.items()),
        )
        for way in ways
    ]


def _measured(
    name: str, rows: np.ndarray, clusters: np.ndarray, values: Mapping[str, Mapping[str, np.ndarray]], seed: int
) -> Slice:
    how = statistics(clusters, seed)
    columns = {
        f"{place} {metric}": column[rows]
        for place, of_method in enumerate(values.values())
        for metric, column in of_method.items()
    }
    reach = intervals_of(columns, clusters, how)  # one drawing for all

    def score(key: str) -> Score:
        inside = reach.get(key)
        mean = float(columns[key].mean())
        return Score(mean, None, None) if inside is None else Score(mean, inside.low, inside.high)

    scores = {
        method: {metric: score(f"{place} {metric}") for metric in of_method}
        for place, (method, of_method) in enumerate(values.items())
    }
    return Slice(name, len(rows), how.clusters, scores)


def _by_value(column: np.ndarray) -> dict[str, np.ndarray]:
    return {str(value) or "unknown": np.flatnonzero(column == value) for value in np.unique(column)}


def _by_size(sizes: np.ndarray) -> dict[str, np.ndarray]:
    divided = {
        name: np.flatnonzero((sizes >= low) & (sizes <= (sizes.max() if high is None else high)))
        for low, high, name in SIZES
    }
    return {name: rows for name, rows in divided.items() if len(rows)}


def _divided(column: np.ndarray) -> tuple[dict[str, np.ndarray], str]:
    """Few numbers: by value. Many: in bins of about equally many queries. NaN: a slice of its own."""
    unknown = ~np.isfinite(column)
    values = np.unique(column[~unknown])
    if len(values) <= MOST_VALUES:
        slices, how = {f"{value:.6g}": np.flatnonzero(column == value) for value in values}, "by value"
    else:
        slices, how = _binned(column, ~unknown), f"in {BINS} bins of about equally many queries"
    if unknown.any():
        slices["unknown"] = np.flatnonzero(unknown)
    return slices, how


def _binned(column: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Bins hold their lower edge and not the upper one; the last holds both."""
    edges = np.unique(np.quantile(column[known], np.linspace(0, 1, BINS + 1)))
    digits = next(n for n in range(3, 18) if len({f"{edge:.{n}g}" for edge in edges}) == len(edges))
    place = np.searchsorted(edges[1:-1], column, side="right")
    found = {}
    for number in range(len(edges) - 1):
        rows = np.flatnonzero((place == number) & known)
        if len(rows):
            found[f"{edges[number]:.{digits}g} to {edges[number + 1]:.{digits}g}"] = rows
    return found
