"""What the search page shows, put into words and numbers for its templates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.report.markup import visible
from retrieval_bench.serving.answering.column_calibration import ColumnCalibration
from retrieval_bench.serving.client.answers import JOINED, Answer, ColumnAnswer, Hit
from retrieval_bench.serving.page_state import THRESHOLD, PageState

FRAMES = "ABCDEFGH"
"""Marks of items that several columns found; further ones share the last look without a letter of their own."""


@dataclass(frozen=True)
class Chance:
    """A probability with its interval, in words and as places on a line 100 units long."""

    words: str
    whole: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class HitView:
    """One hit.

    frame: the letter of an item that several columns found, else "". beyond: farther than the threshold. right: it
    shows what the query is known to show; None where nobody knows that.
    """

    hit: Hit
    rank: int
    distance: str
    chance: Chance | None
    frame: str
    agreement: str
    beyond: bool
    right: bool | None


@dataclass(frozen=True)
class SliderView:
    """A column's threshold: the range that it moves in, and where it stands, for the browser and for people.

    words: what it would do. steps: JSON of the same for each step.
    """

    name: str
    least: str
    most: str
    step: str
    value: str
    shown: str
    words: str
    steps: str


@dataclass(frozen=True)
class ColumnView:
    """One column. none_passes: there are hits, and all of them are beyond the threshold."""

    key: str
    title: str
    family: str
    anchor: str
    hits: tuple[HitView, ...]
    times: str
    total_ms: str
    bytes_per_item: str
    slider: SliderView | None
    unknown: str
    note: str
    approximate: str
    refused: str
    none_passes: bool
    left: str
    right: str
    hide: str


def column_views(
    answer: Answer,
    state: PageState,
    shown: Sequence[str],
    kinds: Mapping[str, str],
    calibrations: Mapping[str, ColumnCalibration],
    label: str = "",
) -> list[ColumnView]:
    """The columns of an answer in their order, the joined one last.

    kinds: what is said of each method in a word or two. label: what the query is known to show, or "".
    """
    several = [*answer.columns, *([answer.joined] if answer.joined else [])]
    frames = _frames(answer)
    views = []
    for place, column in enumerate(several):
        joined = column.key == JOINED
        known = ColumnCalibration() if joined else calibrations[column.key]
        if column.comparable and not joined:
            known = ColumnCalibration(unknown=column.comparable)
        if column.refused:
            known = ColumnCalibration()
        slider = None if known.curve is None else _slider(column, known, state)
        threshold = None if slider is None else state.thresholds.get(column.key)
        hits = _hits(column, known, frames, len(answer.columns), threshold, label)
        views.append(
            ColumnView(
                key=column.key,
                title=visible(column.key),
                family="reciprocal-rank fusion of the columns" if joined else kinds[column.key],
                anchor=f"column-{place}",
                hits=tuple(_sorted(hits, state.sort)),
                times=", ".join(f"{phase} {ms:.1f} ms" for phase, ms in column.milliseconds.items() if ms >= 0.05),
                total_ms=f"{sum(column.milliseconds.values()):.1f} ms",
                bytes_per_item="" if joined else f"{column.bytes_per_item:,} bytes an item",
                slider=slider,
                unknown="" if joined else known.unknown,
                note=column.note,
                approximate=column.approximate,
                refused=column.refused,
                none_passes=bool(hits) and all(one.beyond for one in hits),
                left="" if joined or place == 0 else _moved(state, shown, place, -1),
                right="" if joined or place >= len(shown) - 1 else _moved(state, shown, place, 1),
                hide="" if joined or len(shown) < 2 else state.address(columns=tuple(_without(shown, place))),
            )
        )
    return views


def chance_of(known: ColumnCalibration, distance: float) -> Chance | None:
    """The probability that a hit at this distance is right; None where nobody knows."""
    if known.calibration is None:
        return None
    at, low, high = known.calibration.at(np.array(distance)).tolist()
    whole = (
        f"of the hits of {known.queries} known queries at about this distance, {at:.0%} were right "
        f"(95 % interval {low:.0%} to {high:.0%})"
    )
    return Chance(f"{at:.0%}", whole, 100 * at, 100 * low, 100 * high)


def worded(known: ColumnCalibration, threshold: float) -> str:
    """What a threshold would do, in one line."""
    assert known.curve is not None
    step = known.curve.at(threshold)
    return f"precision {_three(known.curve.precision[step])}, recall {_three(known.curve.recall[step])}"


def _three(values: np.ndarray) -> str:
    at, low, high = values.tolist()
    return "unknown" if at != at else f"{at:.2f} ({low:.2f} to {high:.2f})"


def _slider(column: ColumnAnswer, known: ColumnCalibration, state: PageState) -> SliderView:
    curve = known.curve
    assert curve is not None
    least, most = float(curve.thresholds[0]), float(curve.thresholds[-1])
    value = min(max(state.thresholds.get(column.key, most), least), most)
    whole = bool((curve.thresholds == np.round(curve.thresholds)).all())
    step = 1.0 if whole else (most - least) / 200 or 1.0
    texts = [worded(known, float(one)) for one in curve.thresholds]
    return SliderView(
        name=THRESHOLD + column.key,
        least=f"{least:.6g}",
        most=f"{most:.6g}",
        step=f"{step:.6g}",
        value=f"{value:.6g}",
        shown=f"{value:.4g}",
        words=worded(known, value),
        steps=json.dumps([[float(f"{at:.6g}"), text] for at, text in zip(curve.thresholds, texts, strict=True)]),
    )


def _frames(answer: Answer) -> dict[str, str]:
    """Letters of the items that more than one column shows, the most agreed ones first."""
    counts: dict[str, int] = {}
    best: dict[str, int] = {}
    for column in answer.columns:
        for rank, hit in enumerate(column.hits):
            key = hit.id
            counts[key] = counts.get(key, 0) + 1
            best[key] = min(best.get(key, rank), rank)
    agreed = sorted((key for key, count in counts.items() if count > 1), key=lambda key: (-counts[key], best[key], key))
    return {key: FRAMES[min(place, len(FRAMES) - 1)] for place, key in enumerate(agreed)}


def _hits(
    column: ColumnAnswer,
    known: ColumnCalibration,
    frames: Mapping[str, str],
    columns: int,
    threshold: float | None,
    label: str,
) -> list[HitView]:
    found = []
    for rank, hit in enumerate(column.hits, start=1):
        by = len(hit.columns)
        found.append(
            HitView(
                hit=hit,
                rank=rank,
                distance=f"{hit.distance:.4g}",
                chance=chance_of(known, hit.distance),
                frame=frames.get(hit.id, ""),
                agreement=f"{by} of {columns}" if columns > 1 else "",
                beyond=threshold is not None and float(np.float32(hit.distance)) > float(np.float32(threshold)),
                right=hit.label == label if label else None,
            )
        )
    return found


def _sorted(hits: list[HitView], sort: str) -> list[HitView]:
    if sort == "agreement":
        return sorted(hits, key=lambda one: (-len(one.hit.columns), one.rank))
    return sorted(hits, key=lambda one: (one.hit.id, one.rank)) if sort == "name" else hits


def _without(shown: Sequence[str], place: int) -> list[str]:
    return [key for other, key in enumerate(shown) if other != place]


def _moved(state: PageState, shown: Sequence[str], place: int, by: int) -> str:
    order = _without(shown, place)
    order.insert(place + by, shown[place])
    return state.address(columns=tuple(order))
