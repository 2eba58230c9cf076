"""Data that defeats a bound: float32 cannot tell its rows apart, or int8 codes say nothing. How much slower, and right?

Each is searched with as many queries, rows and dimensions as Gaussian noise, in the same rounds. Queries are drawn as
the rows are. The results of a sample of queries are compared with the float64 backend `numpy`, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.peer_benchmarks.competitors import OwnSearch
from retrieval_bench.peer_benchmarks.measurement import timed
from retrieval_bench.peer_benchmarks.report import digits, ruled
from retrieval_bench.peer_benchmarks.shapes import Shape
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.search.reference import NumpyIndex
from retrieval_bench.search.stats import ScanStats
from retrieval_bench.system.progress import Progress

SHAPE = Shape(100, 100_000, 128)
DISTANCES: tuple[Distance, ...] = ("cosine", "euclidean", "inner_product")
ENGINES = ("float32", "int8")
MOST = 3.0  # times what Gaussian noise takes
CHECKED = 5  # queries


def gauss(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return rng.standard_normal((count, dim))


def parallel(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return np.asarray(rng.uniform(0.5, 2.0, (count, 1)) * rng.standard_normal(dim))


def equal(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return np.repeat(rng.standard_normal((1, dim)), count, axis=0)


def huge_coordinate(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """The same in all rows."""
    rows = rng.standard_normal((count, dim))
    rows[:, 0] = 1e6
    return rows


def wide_coordinate(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Another in each row, so that no shift of the origin helps."""
    rows = rng.standard_normal((count, dim))
    rows[:, 0] *= 1e6
    return rows


def near_duplicates(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Of one vector of length 1e6, 1e-5 of it away."""
    original = rng.standard_normal(dim)
    away = rng.standard_normal((count, dim)) * (10 / np.sqrt(dim))
    return np.asarray(original * (1e6 / np.linalg.norm(original)) + away)


HARD: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "all rows parallel": parallel,
    "all rows equal": equal,
    "one huge coordinate": huge_coordinate,
    "one huge coordinate, all different": wide_coordinate,
    "near-duplicates at norm 1e6": near_duplicates,
}


@dataclass
class HardResult:
    """ms, gauss_ms: samples of each engine on this data and on Gaussian noise. wrong: why a result is not right."""

    data: str
    distance: Distance
    ms: dict[str, list[float]] = field(default_factory=dict)
    gauss_ms: dict[str, list[float]] = field(default_factory=dict)
    stats: dict[str, ScanStats] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def ratio(self, engine: str, to: str | None = None) -> float:
        """Time of an engine over its time, or that of engine `to`, on Gaussian noise."""
        return median(self.ms[engine]) / median(self.gauss_ms[to or engine])


def races(shape: Shape, rounds: int, progress: Progress | None = None) -> list[HardResult]:
    """Every kind of data under every distance: to be called with all thread pools pinned."""
    tell = progress or (lambda what, done, total: None)
    results: list[HardResult] = []
    for distance in DISTANCES:
        easy = _searches(*_data(gauss, shape), distance, shape.k)
        for name, make in HARD.items():
            tell(f"{name}, {distance}", len(results), len(HARD) * len(DISTANCES))
            queries, gallery = _data(make, shape)
            hard = _searches(queries, gallery, distance, shape.k)
            result = HardResult(name, distance)
            expected = NumpyIndex(gallery, distance)(queries[:CHECKED], shape.k)
            for engine, search in hard.items():
                rows, distances = (np.asarray(found)[:CHECKED] for found in search())
                if not (np.array_equal(rows, expected.indices) and np.array_equal(distances, expected.distances)):
                    result.wrong[engine] = "not identical to the float64 backend"
            for _ in range(rounds):
                for samples, searches in ((result.ms, hard), (result.gauss_ms, easy)):
                    for engine, search in searches.items():
                        samples.setdefault(engine, []).append(timed(search) * 1e3)
            result.stats = {engine: search.stats for engine, search in hard.items()}
            results.append(result)
    return results


def _searches(queries: np.ndarray, gallery: np.ndarray, distance: Distance, k: int) -> dict[str, OwnSearch]:
    return {
        "float32": OwnSearch(ExactIndex(gallery, distance), queries, k),
        "int8": OwnSearch(ExactIndex(gallery, distance, scan="int8"), queries, k),
    }


def _data(make: Callable[[np.random.Generator, int, int], np.ndarray], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Queries and gallery in float32, of one draw, so that what the rows share the queries share, too."""
    rows = make(np.random.default_rng(0), shape.rows + shape.queries, shape.dim).astype(np.float32)
    return rows[shape.rows :].copy(), rows[: shape.rows].copy()


def lines(results: Sequence[HardResult], shape: Shape, quick: bool) -> list[str]:
    """The table, what is wrong, and whether the target is met."""
    table = [["data", "distance", "float32", "x gauss", "rescored", "int8", "x gauss", "x float32", "rescored"]]
    for one in results:
        float32, int8 = (digits(median(one.ms[engine])) for engine in ENGINES)
        table.append(
            [
                *(one.data, one.distance, float32, f"{one.ratio('float32'):.2f}", _share(one, "float32")),
                *(int8, f"{one.ratio('int8'):.2f}", f"{one.ratio('int8', 'float32'):.2f}", _share(one, "int8")),
            ]
        )
    text = ruled(table, left=2)
    text += ["", f"{shape.name}, k = {shape.k}: milliseconds, medians of {len(results[0].ms['float32'])} rounds."]
    text += ["x gauss: over the same search of Gaussian noise. x float32: over float32 on Gaussian noise."]
    text += [
        f"WRONG: {one.data}, {one.distance}: {engine}: {why}" for one in results for engine, why in one.wrong.items()
    ]
    if quick:
        return [*text, "Small shapes (--quick): these times say nothing about the kernel, so no target is judged."]
    for engine in ENGINES:
        worst = max(results, key=lambda one: one.ratio(engine, "float32"))
        ratio = worst.ratio(engine, "float32")
        met = "met    " if ratio <= MOST else "NOT MET"
        text.append(f"  {met}  {engine}, x float32  <= {MOST:.2f}  {ratio:.2f} at {worst.data}, {worst.distance}")
    return text


def as_data(results: Sequence[HardResult]) -> list[dict[str, Any]]:
    """For JSON: every sample."""
    return [
        {
            **{name: value for name, value in vars(one).items() if name != "stats"},
            "scanned": {engine: {**stats._asdict(), "share": stats.share} for engine, stats in one.stats.items()},
            "ratios": {engine: one.ratio(engine) for engine in one.ms},
            "ratios_to_float32": {engine: one.ratio(engine, "float32") for engine in one.ms},
        }
        for one in results
    ]


def _share(one: HardResult, engine: str) -> str:
    return f"{100 * one.stats[engine].share:.2f} %"
