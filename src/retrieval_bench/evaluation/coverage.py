"""How often intervals hold the truth, by simulation: worlds of which the true mean is known.

In each world a label has a chance of success of its own, so that its queries succeed or fail together. `shared` says
how much: the intra-class correlation, 0 where queries are independent and 1 where all of a label are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from retrieval_bench.evaluation.bootstrap import intervals, resampled_means
from retrieval_bench.evaluation.mean_intervals import mean_intervals
from retrieval_bench.evaluation.significance import difference_intervals

MEANS = (0.01, 0.03, 0.5, 0.97, 0.99, 1.0)
PAIRS = ((0.5, 0.5), (0.8, 0.7), (0.97, 0.97), (0.99, 0.97), (1.0, 0.99))
"""True means of two methods."""
LABELS = (10, 30, 100)
SHARED = (0.0, 0.2, 0.5)

Sizes = Literal["2 to 40", "100 or 2", "Zipf", "lognormal", "1"]
SIZES: tuple[Sizes, ...] = ("2 to 40", "100 or 2", "Zipf", "lognormal", "1")
"""Queries of a label: each number as likely; 100 with a chance of 0.2, else 2; 200 / rank; exp(2 + 1.2 z) with a normal
z; one. Of the last three, rounded and at least 1."""
MEANS_OF_UNEQUAL = (0.01, 0.03, 0.5, 0.97, 0.99)
SHARED_OF_UNEQUAL = (0.0, 0.2, 0.5, 1.0)

Kind = Literal["right or wrong", "graded"]
KINDS: tuple[Kind, ...] = ("right or wrong", "graded")
"""Values of a query: 0 or 1, as accuracy; or anything between, most of them near 0 or 1, as average precision."""

LUCK = 0.7
RESAMPLES = 1000
_COLUMNS = 100  # worlds whose labels have the same sizes
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Coverage:
    """What the intervals of some worlds are worth.

    means: of the one method, or of two, whose difference is asked for. covered: how often the interval holds the truth;
    bootstrap: how often that of the cluster bootstrap does, None where it was not asked. length: of the interval, on
    average. faultless: how many worlds have no failure at all. sizes: queries of a label.
    """

    kind: Kind
    labels: int
    shared: float
    means: tuple[float, ...]
    covered: float
    bootstrap: float | None
    length: float
    faultless: float
    sizes: Sizes = SIZES[0]


def coverages(worlds: int, seed: int = 0, *, differences: bool = False) -> Iterator[Coverage]:
    """Every kind, number of labels, true mean and `shared`; differences: of two methods in place of one mean."""
    asked = PAIRS if differences else tuple((mean,) for mean in MEANS)
    for kind, labels, means, shared in product(KINDS, LABELS, asked, SHARED):
        yield coverage(kind, labels, shared, means, worlds, seed)


def unequal_coverages(worlds: int, seed: int = 0) -> Iterator[Coverage]:
    """Every kind of sizes, number of labels, true mean and `shared`, without a bootstrap; values are right or wrong."""
    for sizes, labels, mean, shared in product(SIZES, LABELS, MEANS_OF_UNEQUAL, SHARED_OF_UNEQUAL):
        if sizes != "1" or shared == 1:
            yield coverage("right or wrong", labels, shared, (mean,), worlds, seed, sizes=sizes, bootstrap=False)


def coverage(
    kind: Kind,
    labels: int,
    shared: float,
    means: tuple[float, ...],
    worlds: int,
    seed: int = 0,
    *,
    sizes: Sizes = SIZES[0],
    bootstrap: bool = True,
) -> Coverage:
    """How `worlds` worlds are covered of which these are the true means; the same seed draws the same worlds."""
    drawing = [seed, KINDS.index(kind), labels, *(round(1000 * number) for number in (shared, *means))]
    random = np.random.default_rng(drawing if sizes == SIZES[0] else [*drawing, SIZES.index(sizes)])
    truth = means[0] - sum(means[1:])
    found, others = [], []
    for start in range(0, worlds, _COLUMNS):
        clusters = np.repeat(np.arange(labels), queries_of_labels(random, labels, sizes))
        n = min(_COLUMNS, worlds - start)
        columns = drawn(random, clusters, kind, shared, means, n)
        values = np.hstack(columns)
        if len(means) == 1:
            low, high = mean_intervals(values, clusters).T
        else:
            low, high = difference_intervals(values, clusters, np.arange(n), np.arange(n, 2 * n)).T
        faultless = (np.minimum.reduce(columns) > 1 - _ROUNDING).all(axis=0)
        found.append([(low <= truth) & (truth <= high), high - low, faultless])
        if bootstrap:
            apart = values if len(means) == 1 else columns[0] - columns[1]
            least, most = intervals(resampled_means(apart, clusters, RESAMPLES, start), labels).T
            others.append((least <= truth + _ROUNDING) & (truth - _ROUNDING <= most))
    covered, length, without = np.concatenate(found, axis=1).astype(np.float64).mean(axis=1).tolist()
    resampled = float(np.concatenate(others).mean()) if bootstrap else None
    return Coverage(kind, labels, shared, means, covered, resampled, length, without, sizes)


def queries_of_labels(random: np.random.Generator, labels: int, sizes: Sizes) -> np.ndarray:
    """(labels,) int, how many queries each has."""
    if sizes == "2 to 40":
        return random.integers(2, 41, labels)
    if sizes == "100 or 2":
        return np.where(random.random(labels) < 0.2, 100, 2)
    if sizes == "1":
        return np.ones(labels, int)
    of_rank = 200 / np.arange(1, labels + 1)
    expected = of_rank if sizes == "Zipf" else np.exp(2 + 1.2 * random.standard_normal(labels))
    return np.maximum(np.round(expected), 1).astype(int)


def table(coverages: Iterable[Coverage]) -> list[str]:
    """A Markdown table: one line for sizes, labels and means.

    In each cell covered, in brackets by the bootstrap where it was asked, and the mean length.
    """
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    of_sizes = False
    for one in coverages:
        of_sizes = one.bootstrap is None
        aside = "" if one.bootstrap is None else f" ({one.bootstrap:.3f})"
        key = (one.sizes if of_sizes else one.kind, str(one.labels), " - ".join(f"{mean:g}" for mean in one.means))
        cells.setdefault(key, {})[one.shared] = f"{one.covered:.3f}{aside}, {one.length:.3f}"
    shares = list(dict.fromkeys(shared for of_line in cells.values() for shared in of_line))
    first = "queries of a label" if of_sizes else "values"
    heads = [first, "labels", "true mean", *(f"shared {shared:g}" for shared in shares)]
    lines = [heads, ["---", "---:", "---:", *["---:"] * len(shares)]]
    lines += [[*key, *(of_line.get(shared, "") for shared in shares)] for key, of_line in cells.items()]
    return [f"| {' | '.join(line)} |" for line in lines]


def drawn(
    random: np.random.Generator, clusters: np.ndarray, kind: Kind, shared: float, means: tuple[float, ...], worlds: int
) -> list[np.ndarray]:
    """Of each method (q, worlds) float64 values of the queries; clusters: (q,) their labels, from 0.

    Two methods have each its own chance with a label; LUCK of the queries are as hard for the one as for the other.
    """
    same = random.random((len(clusters), worlds)) < LUCK
    luck = random.random(same.shape)
    columns = []
    for place, mean in enumerate(means):
        chances = _beta(random, np.full((clusters.max() + 1, worlds), mean), shared)[clusters]
        if kind == "graded":
            columns.append(_beta(random, chances, 1 / 3))
        else:
            own = luck if place == 0 else np.where(same, luck, random.random(same.shape))
            columns.append((own < chances).astype(np.float64))
    return columns


def _beta(random: np.random.Generator, means: np.ndarray, shared: float) -> np.ndarray:
    """Beta-distributed values with these means and a variance of shared x mean x (1 - mean)."""
    inside = (means > 0) & (means < 1)
    if shared == 0 or not inside.any():
        return means
    if shared == 1:
        return (random.random(means.shape) < means).astype(np.float64)
    several = 1 / shared - 1
    safe = np.where(inside, means, 0.5)
    found = random.beta(np.maximum(safe * several, 1e-300), np.maximum((1 - safe) * several, 1e-300))
    # where both parameters are near 0 the library has 0 / 0: such a value is 0 or 1
    found = np.where(np.isfinite(found), found, random.random(means.shape) < means)
    return np.where(inside, found, means)
