"""What the distances of a column are worth: learned from the queries of the dataset that its index was built of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.evaluation.calibration import (
    FEWEST_QUERIES,
    Calibration,
    ThresholdCurve,
    calibrated,
    threshold_curve,
)
from retrieval_bench.serving.answering.open_indexes import SearchColumn

CALIBRATED_HITS = 10
"""Of each query's hits, those that a probability is learned from: about as many as a page shows."""


@dataclass(frozen=True, eq=False)
class ColumnCalibration:
    """What is known of a column's distances.

    Args:
        calibration: the probability that a hit at a distance is right; None where it is not known.
        curve: what a threshold would do; None where it is not known.
        queries: that it was learned from.
        unknown: why nothing is known; "" where something is.
    """

    calibration: Calibration | None = None
    curve: ThresholdCurve | None = None
    queries: int = 0
    unknown: str = ""


def calibration_of(column: SearchColumn) -> ColumnCalibration:
    """Learn it from what the queries of the dataset found when the index was built.

    Returns:
        What is known. Nothing where the index was built of no labelled queries, or where the method's distances of two
        queries cannot be compared.
    """
    if column.method.comparable:
        return ColumnCalibration(unknown=column.method.comparable)
    judged = column.index.stored.judged(column.method.name)
    if judged is None or len(judged.ids) < FEWEST_QUERIES:
        return ColumnCalibration(
            unknown=f"the index was built with fewer than {FEWEST_QUERIES} queries that have a label"
        )
    answerable = judged.n_relevant > 0
    labels = _labels(column, judged.ids)
    distances = np.where(judged.numbers >= 0, judged.distances, np.inf)
    hits = slice(0, CALIBRATED_HITS)
    return ColumnCalibration(
        calibrated(distances[:, hits], judged.right[:, hits], labels),
        threshold_curve(distances[:, 0], judged.right[:, 0], answerable, labels),
        len(judged.ids),
    )


def _labels(column: SearchColumn, ids: np.ndarray) -> np.ndarray:
    """(q,) what each query shows, by which photos are no independent observations; all different if nobody knows."""
    try:
        queries = column.index.queries
    except (BenchError, BadImage):
        return np.arange(len(ids))
    known = dict(zip(queries.ids, queries.labels.tolist(), strict=True))
    return np.array([known.get(str(one), -1 - place) for place, one in enumerate(ids)], np.int64)


class ColumnCalibrations:
    """What the distances of each column are worth; learned once, when it is first asked for."""

    def __init__(self, columns: Mapping[str, SearchColumn]) -> None:
        self._columns, self._lock = columns, Lock()
        self._known: dict[str, ColumnCalibration] = {}

    def __call__(self) -> Mapping[str, ColumnCalibration]:
        """Of every column, by its key."""
        with self._lock:
            if not self._known:
                self._known = {key: calibration_of(column) for key, column in self._columns.items()}
            return self._known
