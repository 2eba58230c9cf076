"""How a cost grows with the number of images: a line through measured sizes, and how far it may be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SHAPES: Mapping[str, Callable[[float], float]] = {
    "n": lambda n: n,
    "log n": lambda n: math.log(n),
    "n log n": lambda n: n * math.log(n),
}
"""What a cost may be proportional to, beside a constant."""

GRAPHS = ("hnsw", "usearch", "pynndescent")
"""Searches along a graph, in whose names one of these stands: the steps to a neighbour grow like log n."""

FEWEST_SIZES = 4
FAR = 10.0
"""Beyond so many times the largest measured size, an estimate is marked."""


@dataclass(frozen=True)
class Growth:
    """A cost at several sizes, and start + slope * shape(n) through them.

    sizes, values: what was measured, ascending. shape: one of SHAPES. residual: the largest deviation of a measured
    value from the line, as a share of the value.
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    shape: str
    start: float
    slope: float
    residual: float

    def at(self, n: float) -> float:
        """The cost of n images."""
        return self.start + self.slope * SHAPES[self.shape](n)

    def far(self, n: float) -> bool:
        """Whether n lies so far beyond what was measured that the estimate is to be marked."""
        return n > FAR * self.sizes[-1]


def fit(sizes: Sequence[int], values: Sequence[float], shapes: Sequence[str] = ("n", "log n")) -> Growth:
    """The line with the smallest relative squares; start and slope are at least 0.

    Args:
        sizes: at least FEWEST_SIZES different ones, ascending.
        values: the cost at each, above 0.
        shapes: which of SHAPES it may have; of equally good ones the first.

    Raises:
        ValueError: There are fewer sizes, or a value is not above 0.
    """
    from scipy.optimize import nnls

    if len(set(sizes)) < FEWEST_SIZES or min(values) <= 0:
        raise ValueError(f"{len(set(sizes))} sizes, least value {min(values)}: a fit needs {FEWEST_SIZES} and above 0")
    costs = np.asarray(values, np.float64)
    found = []
    for shape in shapes:
        at = np.array([SHAPES[shape](size) for size in sizes])
        design = np.column_stack([1 / costs, at / costs])
        weights, _ = nnls(design / np.abs(design).max(axis=0), np.ones(len(costs)))
        start, slope = weights / np.abs(design).max(axis=0)
        away = np.abs(design @ (start, slope) - 1)
        found.append((float((away**2).sum()), shape, float(start), float(slope), float(away.max())))
    _, shape, start, slope, residual = min(found, key=lambda one: one[0])
    return Growth(tuple(sizes), tuple(map(float, values)), shape, start, slope, residual)


def through_one(size: int, value: float, shape: str = "n") -> Growth:
    """The line through 0 and one measured size: what may be said where nobody measured more.

    It takes nothing of the cost to be constant, so it rather says too much than too little beyond that size.

    Args:
        size: where the cost was measured, at least 2.
        value: the cost there.
        shape: one of SHAPES.
    """
    return Growth((size,), (value,), shape, 0.0, value / SHAPES[shape](max(size, 2)), 0.0)


def shape_of(backend: str) -> str:
    """How the time of one query grows by the name of what searches: `n`, or `log n` along a graph."""
    return "log n" if any(name in backend for name in GRAPHS) else "n"
