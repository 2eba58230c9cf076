"""What each way of training is worth against each perturbation of the queries: a table from the rows of one record.

Rows of one way are trainings that differ by their seed: their files of weights are called WAY-SEED.pth. A row without
such a file is the network as it was before.
"""

from __future__ import annotations

from pathlib import PurePath

from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.records.scores import perturbed_of, steps_of

UNTRAINED = "not trained here"


def gains(record: Record, metric: str) -> list[list[str]]:
    """Cells of a table, its head first: the mean of the first way, and how far the others' means are from it, in points
    of 100. In bold: each training of the way beats, or is beaten by, each of the first. BenchError for other rows."""
    ways = _ways(record)
    steps = ["as they are", *steps_of(next(iter(ways.values()))[0])]
    first = next(iter(ways))
    scores = {way: [_scores(row, metric, steps) for row in rows] for way, rows in ways.items()}
    table = [["trained with", *(step.partition("@")[0] for step in steps)]]
    for way, trained in scores.items():
        cells = [way]
        for step in steps:
            own, plain = [one[step] for one in trained], [one[step] for one in scores[first]]
            mean = sum(own) / len(own)
            if way == first:
                cells.append(f"{mean:.3f}")
                continue
            told = f"{100 * (mean - sum(plain) / len(plain)):+.1f}"
            cells.append(f"**{told}**" if min(own) > max(plain) or max(own) < min(plain) else told)
        table.append(cells)
    return table


def _ways(record: Record) -> dict[str, list[Row]]:
    ways: dict[str, list[Row]] = {}
    for row in record.rows:
        file = PurePath(str(row.params.get("weights") or ""))
        way, dash, _ = file.stem.rpartition("-")
        if row.status != "ok" or (file.name and not dash):
            raise BenchError(f"{row.method}: gains need finished rows whose weights, if any, are called WAY-SEED.pth")
        ways.setdefault(f"`{way}`" if way else UNTRAINED, []).append(row)
    return ways


def _scores(row: Row, metric: str, steps: list[str]) -> dict[str, float]:
    found = perturbed_of(row) | {f"{metric} {steps[0]}": row.scores[metric]}
    return {step: found[f"{metric} {step}"] for step in steps}
