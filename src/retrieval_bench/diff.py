"""Two records to a verdict: the same, moved, or not comparable.

First form: quality by a tolerance, speed shown only between records of the same machine and never judged.

Rows that learn from train get a wider tolerance. The same seed gives the same bits on one kind of processor; on
another, the last bit of a descriptor can send k-means to another vocabulary, which moves a score as far as another seed
does. Rows that learn nothing differ between processors by a rounding here and there and are held close.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from retrieval_bench.core import NotComparable
from retrieval_bench.results import Record, Row, find_row

TOLERANCE = 0.02
LEARNED_TOLERANCE = 0.06


@dataclass(frozen=True)
class Change:
    """One figure of one method, before and after. `unit` is "" for quality; `allowed`: how far it may move."""

    method: str
    name: str
    before: float
    after: float
    unit: str = ""
    allowed: float = float("inf")

    @property
    def moved(self) -> bool:
        return abs(self.delta) > self.allowed + 1e-12

    @property
    def delta(self) -> float:
        return self.after - self.before

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before else None


@dataclass(frozen=True)
class Verdict:
    """broken: sentences on rows that are missing or failed.

    quality: every quality figure of every common row; speed: times of the common rows, where the machine is the same.
    """

    quality: tuple[Change, ...]
    broken: tuple[str, ...]
    added: tuple[str, ...]
    speed: tuple[Change, ...]
    same_machine: bool

    @property
    def moved(self) -> tuple[Change, ...]:
        """Quality that changed by more than is allowed."""
        return tuple(change for change in self.quality if change.moved)

    @property
    def passed(self) -> bool:
        return not self.moved and not self.broken


def diff(
    before: Record, after: Record, tolerance: float = TOLERANCE, learned_tolerance: float = LEARNED_TOLERANCE
) -> Verdict:
    """Compare row by row. NotComparable where the numbers would not mean the same thing.

    tolerance: the largest difference of a quality number, in either direction, that still counts as the same, for
        rows that learn nothing from train; learned_tolerance: for those that do.
    """
    _refuse_false_comparison(before, after)
    quality: list[Change] = []
    speed: list[Change] = []
    broken: list[str] = []
    same_machine = _machine(before) == _machine(after)
    for place, record in (("first", before), ("second", after)):
        if record.status != "finished":
            broken.append(f"the {place} record is of a run that did not finish")
    for old in before.rows:
        new = find_row(after.rows, old.method)
        if new is None:
            broken.append(f"{old.method} is missing in the second record")
        elif "failed" in (old.status, new.status):
            places = [place for place, row in (("first", old), ("second", new)) if row.status == "failed"]
            broken.append(f"{old.method} failed in the {' and the '.join(places)} record")
        else:
            _refuse_other_weights(old, new)
            learns = old.features is not None and old.features.fit != "nothing to learn"
            quality += _changes(old, new, learned_tolerance if learns else tolerance)
            broken += _lost(old, new)
            if same_machine:
                speed += _times(old, new)
    added = tuple(row.method for row in after.rows if find_row(before.rows, row.method) is None)
    return Verdict(tuple(quality), tuple(broken), added, tuple(speed), same_machine)


def _refuse_false_comparison(before: Record, after: Record) -> None:
    pairs: dict[str, tuple[Any, Any]] = {
        "the dataset": (before.dataset.name, after.dataset.name),
        "the dataset's fingerprint": (before.dataset.fingerprint[:16], after.dataset.fingerprint[:16]),
        "k": (before.settings.k, after.settings.k),
        "the seed": (before.settings.seed, after.settings.seed),
        "the limit": (before.settings.limit, after.settings.limit),
        "the queries left out": (before.dataset.queries_left_out, after.dataset.queries_left_out),
        "the backend": (before.settings.backend, after.settings.backend),
    }
    for what, (old, new) in pairs.items():
        if old != new:
            raise NotComparable(f"not comparable: {what} differs ({old} and {new}); run both on the same splits")
    for name in before.metrics.keys() & after.metrics.keys():
        if before.metrics[name].definition != after.metrics[name].definition:
            raise NotComparable(f"not comparable: {name} is defined differently in the two records; run both anew")


def _refuse_other_weights(old: Row, new: Row) -> None:
    def identity(row: Row) -> Any:
        weights = row.weights or {}
        # Random weights differ in the last bit between processors; their source line holds the seed.
        known = "source" if "[untrained]" in row.method else "sha256"
        return f"{weights.get(known)}, {weights.get('recipe')}" if weights else None

    if identity(old) != identity(new):
        raise NotComparable(f"not comparable: {old.method} has other weights ({identity(old)} and {identity(new)})")


def _changes(old: Row, new: Row, allowed: float) -> list[Change]:
    before, after = _quality(old), _quality(new)
    return [Change(old.method, name, before[name], after[name], allowed=allowed) for name in before if name in after]


def _quality(row: Row) -> dict[str, float]:
    """Every quality figure of a row; a classifier's as "svm accuracy"."""
    heads = {f"{head} {name}": value for head, facts in row.heads.items() for name, value in facts.scores.items()}
    return row.scores | heads


def _lost(old: Row, new: Row) -> list[str]:
    gone = _quality(old).keys() - _quality(new).keys()
    return [f"{old.method} has no {', '.join(sorted(gone))} in the second record"] if gone else []


def _times(old: Row, new: Row) -> list[Change]:
    changes = []
    for name, before in old.times.items():
        after = new.times.get(name)
        if after is not None and before.value is not None and after.value is not None:
            changes.append(Change(old.method, name, before.value, after.value, before.unit))
    return changes


def _machine(record: Record) -> tuple[Any, ...]:
    where = record.environment
    return (where.processor, where.cores, where.machine, where.gpu, record.settings.threads, record.settings.device)
