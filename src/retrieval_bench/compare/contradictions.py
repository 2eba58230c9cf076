"""Scores that are not what the rankings and predictions beside them give: somebody changed one of the two, or computed
differently."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retrieval_bench.compare.reload import judged, refuse_shallow
from retrieval_bench.core import BenchError, Judged, printable
from retrieval_bench.evaluation import metrics
from retrieval_bench.records.files import load_rankings, rankings_file
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.records.scores import MARK

ROUNDING = 1e-9
"""Of a mean, between processors."""


def contradictions(record: Record, arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """What the rankings of a record say against its scores, and the predictions of its classifiers against theirs.

    Args:
        record: the record.
        arrays: those of its rankings.npz.

    Returns:
        method -> one sentence, for the methods whose scores are not what their arrays give. Only metrics that this
        version defines as the record does are computed again.

    Raises:
        BenchError: The rankings cannot be judged.
    """
    now = metrics.describe(graded=True)
    same = {name for name, facts in record.metrics.items() if now.get(name, {}).get("definition") == facts.definition}
    found = {}
    for row in record.rows:
        if row.status != "ok" or f"{row.method}/indices" not in arrays:
            continue
        refuse_shallow(arrays, row.method, record.settings.k)
        right = metrics.scores(judged(arrays, row.method), record.settings.k)
        figures = [
            (name, said, right[name], "rankings")
            for name, said in row.scores.items()
            if name in right and (name.partition("@")[0] in same or name in same)
        ]
        for name, said, computed, by in [*figures, *_of_classifiers(row, arrays)]:
            if abs(said - computed) > ROUNDING:
                found[row.method] = (
                    f"{MARK} {name} is {said:.6f} in the record, and {computed:.6f} by its {by}: one of the two was "
                    "changed, or computed differently"
                )
                break
    return found


def _of_classifiers(row: Row, arrays: Mapping[str, np.ndarray]) -> list[tuple[str, float, float, str]]:
    """Name, value in the record and value by the predictions, of what predictions alone give."""
    found = []
    for classifier, facts in row.classifiers.items():
        predicted = arrays.get(f"{row.method}/heads/{classifier}/predicted")
        if facts.error is not None or predicted is None:
            continue
        expected = arrays["query_labels"]
        one = Judged(expected, predicted[:, None], np.ones(len(expected), np.int64))
        right = {"accuracy": float(one.hits.mean()), "macro_f1": metrics.macro_f1(one, 1)}
        found += [
            (f"{classifier} {name}", facts.scores[name], value, "predictions")
            for name, value in right.items()
            if name in facts.scores
        ]
    return found


def marked(record: Record, found: Mapping[str, str]) -> Record:
    """The record with a notice that begins with MARK in each row that is contradicted. found: of `contradictions`."""
    rows = tuple(
        row.model_copy(update={"notices": (found[row.method], *row.notices)}) if row.method in found else row
        for row in record.rows
    )
    return record.model_copy(update={"rows": rows})


def against_rankings(path: Path, record: Record, otherwise: str) -> tuple[Record, list[str]]:
    """Hold a record against the rankings beside it.

    Args:
        path: where the record was read.
        record: the record.
        otherwise: what is done where there are rankings and they cannot be read.

    Returns:
        The record, `marked`; and a sentence on each row that is contradicted, and on rankings that cannot be read.
    """
    if not rankings_file(path, record).exists():
        return record, []
    try:
        found = contradictions(record, load_rankings(path, record))
    except BenchError as error:
        return record, [f"{error}; {otherwise}"]
    bare = {method: said.removeprefix(f"{MARK} ") for method, said in found.items()}
    return marked(record, found), [f"{printable(path)}: scores of {method}: {said}" for method, said in bare.items()]
