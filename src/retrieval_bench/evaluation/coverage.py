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
SIZES = (2, 40)
"""Queries of a label: from, to, each number as likely."""

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
    bootstrap: how often that of the cluster bootstrap does. length: of the interval, on average. faultless: how many
    worlds have no failure at all.
    """

    kind: Kind
    labels: int
    shared: float
    means: tuple[float, ...]
    covered: float
    bootstrap: float
    length: float
    faultless: float


def coverages(worlds: int, seed: int = 0, *, differences: bool = False) -> Iterator[Coverage]:
    """Every kind, number of labels, true mean and `shared`; differences: of two methods in place of one mean."""
    asked = PAIRS if differences else tuple((mean,) for mean in MEANS)
    for kind, labels, means, shared in product(KINDS, LABELS, asked, SHARED):
        yield coverage(kind, labels, shared, means, worlds, seed)


def coverage(kind: Kind, labels: int, shared: float, means: tuple[float, ...], worlds: int, seed: int = 0) -> Coverage:
    """How `worlds` worlds are covered of which these are the true means; the same seed draws the same worlds."""
    drawing = [seed, KINDS.index(kind), labels, *(round(1000 * number) for number in (shared, *means))]
    random = np.random.default_rng(drawing)
    truth = means[0] - sum(means[1:])
    found = []
    for start in range(0, worlds, _COLUMNS):
        clusters = np.repeat(np.arange(labels), random.integers(SIZES[0], SIZES[1] + 1, labels))
        n = min(_COLUMNS, worlds - start)
        columns = drawn(random, clusters, kind, shared, means, n)
        values = np.hstack(columns)
        if len(means) == 1:
            low, high = mean_intervals(values, clusters).T
            resampled = resampled_means(values, clusters, RESAMPLES, start)
        else:
            low, high = difference_intervals(values, clusters, np.arange(n), np.arange(n, 2 * n)).T
            resampled = resampled_means(columns[0] - columns[1], clusters, RESAMPLES, start)
        least, most = intervals(resampled, labels).T
        found.append(
            [
                (low <= truth) & (truth <= high),
                (least <= truth + _ROUNDING) & (truth - _ROUNDING <= most),
                high - low,
                (np.minimum.reduce(columns) > 1 - _ROUNDING).all(axis=0),
            ]
        )
    covered, bootstrap, length, faultless = np.concatenate(found, axis=1).astype(np.float64).mean(axis=1).tolist()
    return Coverage(kind, labels, shared, means, covered, bootstrap, length, faultless)


def table(coverages: Iterable[Coverage]) -> list[str]:
    """A Markdown table: one line for kind, labels and means; in each cell covered, and in brackets by the bootstrap."""
    cells: dict[tuple[str, ...], dict[float, str]] = {}
    for one in coverages:
        key = (one.kind, str(one.labels), " - ".join(f"{mean:g}" for mean in one.means))
        cells.setdefault(key, {})[one.shared] = f"{one.covered:.3f} ({one.bootstrap:.3f})"
    shares = list(dict.fromkeys(shared for of_line in cells.values() for shared in of_line))
    heads = ["values", "labels", "true mean", *(f"shared {shared:g}" for shared in shares)]
    lines = [heads, ["---", "---:", "---:", *["---:"] * len(shares)]]
    lines += [[*key, *(of_line[shared] for shared in shares)] for key, of_line in cells.items()]
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
    several = 1 / shared - 1
    safe = np.where(inside, means, 0.5)
    found = random.beta(np.maximum(safe * several, 1e-300), np.maximum((1 - safe) * several, 1e-300))
    # where both parameters are near 0 the library has 0 / 0: such a value is 0 or 1
    found = np.where(np.isfinite(found), found, random.random(means.shape) < means)
    return np.where(inside, found, means)
