"""What a row of a record says under a name: quality figures, curves under perturbed queries, resolved options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retrieval_bench.records.schema import Interval, Record, Row

MARK = "[contradicted]"
"""A notice of a row begins with it where the rankings beside the record do not give the row's scores."""


def is_marked(row: Row) -> bool:
    """Whether the scores of a row are contradicted, as `compare.contradictions` found."""
    return any(notice.startswith(MARK) for notice in row.notices)


@dataclass(frozen=True)
class Option:
    """An option of one method whose value is another in the second record; None: it has no such option there."""

    method: str
    name: str
    before: Any
    after: Any


def quality_of(row: Row) -> dict[str, float]:
    """Every quality figure of a row with clean queries; a classifier's as "svm accuracy", and those of queries without
    an answer as "auroc" and "rejected@95"."""
    classified = {
        f"{classifier} {name}": value
        for classifier, facts in row.classifiers.items()
        for name, value in facts.scores.items()
    }
    return row.scores | classified | ({} if row.open_set is None else row.open_set.scores)


def perturbed_of(row: Row) -> dict[str, float]:
    """Every quality figure with perturbed queries, as "accuracy blur@3" for severity 3."""
    return {f"{name} {step}": value for step, scores in _steps(row).items() for name, value in scores.items()}


def intervals_of(row: Row) -> dict[str, Interval]:
    """Of the figures of both, those that have one."""
    curves = {
        f"{name} {one.perturbation}@{one.severity}": reach
        for one in row.robustness
        for name, reach in one.intervals.items()
    }
    aside = {} if row.open_set is None else row.open_set.intervals
    return dict(row.intervals) | curves | aside


def steps_of(row: Row) -> list[str]:
    """Perturbations and severities this row was asked with, as "blur@3", in the order of the run."""
    return list(_steps(row))


def asked_steps(record: Record) -> set[str]:
    """Those that the run was to ask every method with: of its settings, and of any row."""
    settings = record.settings
    planned = {f"{name}@{severity}" for name in settings.perturb for severity in settings.severities}
    return planned.union(*(_steps(row) for row in record.rows))


def changed_options(old: Row, new: Row) -> list[Option]:
    """Options that differ between two rows of one name, by name; empty where an earlier version kept none."""
    before, after = _flat(old.params), _flat(new.params)
    if not before or not after:
        return []
    names = dict.fromkeys([*before, *after])
    return [
        Option(old.method, name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _steps(row: Row) -> dict[str, dict[str, float]]:
    return {f"{one.perturbation}@{one.severity}": one.scores for one in row.robustness}


def _flat(params: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Options of a method with several parts as "sift side"."""
    flat: dict[str, Any] = {}
    for name, value in params.items():
        flat |= _flat(value, f"{before}{name} ") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat
