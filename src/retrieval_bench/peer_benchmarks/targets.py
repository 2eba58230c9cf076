"""What is asked of the kernel, and whether a run shows it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retrieval_bench.peer_benchmarks.measurement import Result
from retrieval_bench.peer_benchmarks.shapes import BATCHES, CODES, LARGE, SINGLES, Shape

ONE_QUERY = tuple(shape for shape in (*SINGLES, *LARGE) if shape.queries == 1)
LARGE_BATCHES = tuple(shape for shape in (*BATCHES, *LARGE) if shape.queries >= 100 and shape.dim >= 512)
MOST_EXTRA_MIB = 64.0
_MOST_SHARE = 1.03  # no search beats the machine: beyond this, other processes were in the way of the peak


@dataclass(frozen=True)
class Target:
    """At least `least` in every one of `shapes`, or in their geometric mean.

    or_share: or else, at least this share of the peak that binds, at every shape.
    """

    what: str
    least: float
    shapes: tuple[Shape, ...]
    figure: Callable[[Result], float | None]
    mean: bool = False
    or_share: float | None = None
    percent: bool = False


TARGETS = (
    Target("float32, every batch of the first proof", 1.8, BATCHES, lambda result: result.ratio("float32")),
    Target(
        "float32, their geometric mean", 2.6, BATCHES, lambda result: result.ratio("float32"), mean=True, or_share=0.9
    ),
    Target("float32, one query", 1.0, ONE_QUERY, lambda result: result.ratio("float32")),
    Target(
        "float32, share of the multiply-add peak",
        0.85,
        (Shape(1000, 50_000, 512),),
        lambda result: result.share_of_flops(),
        percent=True,
    ),
    Target(
        "float32, share of the read peak",
        0.90,
        (Shape(1, 100_000, 512),),
        lambda result: result.share_of_read(),
        percent=True,
    ),
    Target("int8, one query", 3.0, ONE_QUERY, lambda result: result.ratio("int8")),
    Target("int8, 100 queries or more, dim 512 or more", 2.5, LARGE_BATCHES, lambda result: result.ratio("int8")),
    Target("hamming, every shape", 1.5, CODES, lambda result: result.ratio("float32")),
)


@dataclass(frozen=True)
class TargetVerdict:
    """met None: not all of the shapes were measured, so there is nothing to say; `figure` is what there is."""

    what: str
    asked: str
    met: bool | None
    figure: str


def verdicts(results: Sequence[Result], extra_mib: Mapping[str, float] | None = None) -> list[TargetVerdict]:
    """One for each target, and one for the memory where it was measured."""
    by_shape = {result.shape: result for result in results}
    found = [_verdict(target, by_shape) for target in TARGETS]
    for engine, mib in (extra_mib or {}).items():
        found.append(
            TargetVerdict(
                f"{engine}, memory above gallery and index",
                f"< {MOST_EXTRA_MIB:.0f} MiB",
                mib < MOST_EXTRA_MIB,
                f"{mib:.1f} MiB",
            )
        )
    return found


def _verdict(target: Target, by_shape: Mapping[Shape, Result]) -> TargetVerdict:
    figures = {
        shape: figure
        for shape in target.shapes
        if shape in by_shape and (figure := target.figure(by_shape[shape])) is not None
    }
    asked = f">= {_number(target, target.least)}" + (
        f" or {100 * target.or_share:.0f} % of a peak" if target.or_share else ""
    )
    complete = len(figures) == len(target.shapes)
    if not figures:
        return TargetVerdict(target.what, asked, None, "not measured")
    missing = "" if complete else f"; {len(target.shapes) - len(figures)} of {len(target.shapes)} shapes not measured"
    if target.mean:
        value = geometric_mean(list(figures.values()))
        enough, shown = value >= target.least, _number(target, value)
        shares = {shape: share for shape in figures if (share := by_shape[shape].share_of_peak()) is not None}
        if target.or_share and len(shares) == len(figures):
            least = min(shares, key=lambda shape: shares[shape])
            enough = enough or (shares[least] >= target.or_share and max(shares.values()) <= _MOST_SHARE)
            shown += f"; {100 * shares[least]:.0f} % at {least.name}"
        return TargetVerdict(target.what, asked, enough if complete else None, f"{shown}{missing}")
    worst = min(figures, key=lambda shape: figures[shape])
    if target.percent and max(figures.values()) > _MOST_SHARE:
        return TargetVerdict(
            target.what,
            asked,
            None,
            f"{_number(target, max(figures.values()))} of a peak that was disturbed: run again",
        )
    # One shape below the mark is enough to say no, even where others were not measured.
    met = figures[worst] >= target.least if complete or figures[worst] < target.least else None
    place = f" at {worst.name}" if len(target.shapes) > 1 else ""
    return TargetVerdict(target.what, asked, met, f"{_number(target, figures[worst])}{place}{missing}")


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def _number(target: Target, value: float) -> str:
    return f"{100 * value:.1f} %" if target.percent else f"{value:.2f}"
