"""Two records to a verdict: the same, moved, or not comparable.

Quality is held by a tolerance in both directions, or by the gates that were asked for, which fail where a figure gets
worse by more than they allow. Both records asked the same queries, so that each difference is paired query by query and
has an interval. Speed is shown only between records of the same machine, and judged only by a gate.

Rows that learn from train get a wider tolerance. The same seed gives the same bits on one kind of processor; on
another, the last bit of a descriptor can send k-means to another vocabulary, which moves a score as far as another seed
does. Rows that learn nothing differ between processors by a rounding here and there and are held close.

Perturbed queries are held like clean ones, perturbation by perturbation and severity by severity, where both records
asked them. What a version may change at will, the options of a method that its name does not spell, is shown only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from retrieval_bench.compare.gates import Gate, bigger_is_better, known_names, time_name
from retrieval_bench.compare.reload import Values
from retrieval_bench.core import BenchError, NotComparable, Sides
from retrieval_bench.records.schema import Record, Row, find_row
from retrieval_bench.records.scores import Option, asked_steps, changed_options, perturbed_of, quality_of, steps_of
from retrieval_bench.registry import BACKENDS
from retrieval_bench.system.other_processes import DISTURBED

TOLERANCE = 0.02
LEARNED_TOLERANCE = 0.06
_ROUNDING = 1e-9  # of a mean, between processors


@dataclass(frozen=True)
class Change:
    """One figure of one method, before and after. `unit` is "" for quality; `allowed`: how far it may move.

    gate: what was asked for with --fail; it looks at changes for the worse alone. low, high: 95 % interval of the
    difference over labels, where both records hold their rankings and the figure is a mean over queries. n: how often
    a time was measured. perturbed: the queries were, as the end of `name` says. others: what other processes took of
    the cores while a time was measured, 0 to 1, the larger share of the two.
    """

    method: str
    name: str
    before: float
    after: float
    unit: str = ""
    allowed: float = float("inf")
    gate: str | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    perturbed: bool = False
    others: float = 0.0

    @property
    def moved(self) -> bool:
        return (abs(self.delta) if self.gate is None else self.worse) > self.allowed + 1e-12

    @property
    def worse(self) -> float:
        """How far it moved in the wrong direction; negative where it got better."""
        return -self.delta if bigger_is_better(self.unit) else self.delta

    @property
    def delta(self) -> float:
        return self.after - self.before

    @property
    def ratio(self) -> float | None:
        return self.after / self.before if self.before else None


@dataclass(frozen=True)
class DiffVerdict:
    """broken: sentences on rows that are missing, failed or contradicted.

    quality: every quality figure of every common row; speed: times of the common rows, where the machine is the same.
    gates: what each gate that was asked for looked at, in every common row. unjudged: sentences on gates and curves for
    which the two records are not comparable. options: what the methods of one name did not have the same. notes: what
    is told and not judged. contradicted: methods of which a record's scores are not what its rankings give.
    """

    quality: tuple[Change, ...]
    broken: tuple[str, ...]
    added: tuple[str, ...]
    speed: tuple[Change, ...]
    same_machine: bool
    gates: tuple[Change, ...] = ()
    unjudged: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    notes: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()

    @property
    def moved(self) -> tuple[Change, ...]:
        """What changed by more than is allowed."""
        return tuple(change for change in (*self.quality, *self.gates) if change.moved)

    @property
    def passed(self) -> bool:
        return not self.moved and not self.broken


@dataclass(frozen=True)
class _OneSided:
    """A figure of a common row that one record has and the other has not; names: what a gate may call it."""

    method: str
    names: tuple[str, ...]
    lacks: str


def diff(
    before: Record,
    after: Record,
    tolerance: float = TOLERANCE,
    learned_tolerance: float = LEARNED_TOLERANCE,
    *,
    gates: Sequence[Gate] = (),
    values: tuple[Values | None, Values | None] = (None, None),
) -> DiffVerdict:
    """Compare row by row. NotComparable where the numbers would not mean the same thing.

    tolerance: the largest difference of a quality number, in either direction, that still counts as the same, for
        rows that learn nothing from train; learned_tolerance: for those that do.
    gates: judged in place of the tolerances. BenchError for a name that no row has, and for a limit that no score can
        exceed.
    values: every query's values of both records, for intervals.
    """
    refuse_false_comparison(before, after)
    if gates:
        tolerance = learned_tolerance = float("inf")
    quality: list[Change] = []
    speed: list[Change] = []
    broken: list[str] = []
    options: list[Option] = []
    one_sided: list[_OneSided] = []
    contradicted: set[str] = set()
    searches = before.settings.backend, after.settings.backend
    same_machine = machine_key(before) == machine_key(after) and searches[0] == searches[1]
    for place, record in (("first", before), ("second", after)):
        if record.status == "failed":
            broken.append(f"the run of the {place} record failed: {'; '.join(record.violations)}")
        elif record.status != "finished":
            broken.append(f"the run of the {place} record did not finish")
        told = _contradicted(place, record, values[place == "second"])
        broken += told.values()
        contradicted |= told.keys()
    for old in before.rows:
        new = find_row(after.rows, old.method)
        if new is None:
            broken.append(f"{old.method} is missing in the second record")
        elif "failed" in (old.status, new.status):
            places = [place for place, row in (("first", old), ("second", new)) if row.status == "failed"]
            broken.append(f"{old.method} failed in the {' and the '.join(places)} record")
        else:
            refuse_other_method(old, new)
            learns = old.features is not None and old.features.fit != "nothing to learn"
            # the interval is of the rankings' difference: it says nothing of scores that are others
            reach = {} if old.method in contradicted else paired_intervals(old.method, values, before)
            quality += _changes(old, new, learned_tolerance if learns else tolerance, reach)
            broken += _lost(old, new, asked_steps(after), before.metrics.keys() - after.metrics.keys())
            speed += _times(old, new)
            options += changed_options(old, new)
            one_sided += [*_in_one_only(old, new, "second"), *_in_one_only(new, old, "first")]
    added = tuple(row.method for row in after.rows if find_row(before.rows, row.method) is None)
    judged, unjudged = _judged(gates, quality, speed, one_sided, same_machine)
    notes = []
    exact = f"{searches[0]} and {searches[1]} are exact both, so what they found is compared; their speed is not"
    if steps := _asked_once(before, after):
        notes.append(
            f"the perturbed queries {steps}: not comparable, the second run did not ask them; "
            "run both with the same --perturb and --severity"
        )
    if names := _defined_once(before, after):
        notes.append(f"{names}: not comparable, the version that made the second record does not have such a metric")
    if not gates:  # with gates, only what they name is judged
        unjudged, notes = [*unjudged, *notes], []
    if steps := _asked_once(after, before):
        notes.append(f"the perturbed queries {steps} are only in the second record")
    if names := _defined_once(after, before):
        notes.append(f"{names}: only in the second record; the version that made the first has no such metric")
    if searches[0] != searches[1]:
        notes.append(exact)
    return DiffVerdict(
        quality=tuple(quality),
        broken=tuple(broken),
        added=added,
        speed=tuple(speed) if same_machine else (),
        same_machine=same_machine,
        gates=tuple(judged),
        unjudged=tuple(unjudged),
        options=tuple(options),
        notes=tuple(notes),
        contradicted=tuple(sorted(contradicted)),
    )


def _judged(
    gates: Sequence[Gate],
    quality: Sequence[Change],
    speed: Sequence[Change],
    one_sided: Sequence[_OneSided],
    same_machine: bool,
) -> tuple[list[Change], list[str]]:
    """What each gate looks at, and why one cannot be judged."""
    judged: list[Change] = []
    unjudged: list[str] = []
    for gate in gates:
        figures = [change for change in quality if change.name == gate.name]
        times = [change for change in speed if gate.name in (change.name, time_name(change.name, change.unit))]
        absent = [one for one in one_sided if gate.name in one.names]
        if not figures and not times and not absent and (quality or speed):
            clean, perturbed = ([c.name for c in quality if c.perturbed == wanted] for wanted in (False, True))
            known = known_names(set(clean), {c.name: c.unit for c in speed}, perturbed)
            raise BenchError(f"--fail {gate}: no row has {gate.name}; known are {known}")
        if figures and gate.limit >= 1 and all(abs(change.before) <= 1 for change in figures):
            raise BenchError(
                f"--fail {gate}: no score can fall by more than 1 or 100%, so this never fails; lower the limit, e.g. "
                f"{gate.name}:0.01 or {gate.name}:1%"
            )
        for place in ("first", "second"):
            methods = [one.method for one in absent if one.lacks == place]
            if methods:
                unjudged.append(
                    f"{gate}: not comparable, the {place} record has no such figure of {', '.join(methods)}"
                )
        if times and not same_machine:
            unjudged.append(
                f"{gate}: not comparable, the records come from different machines, thread counts or backends"
            )
            continue
        disturbed = {c.method: c.others for c in times if c.unit != "MiB" and c.others > DISTURBED}
        if disturbed:
            share, were = 100 * max(disturbed.values()), "was" if len(disturbed) == 1 else "were"
            unjudged.append(
                f"{gate}: not comparable, other processes took up to {share:.0f} % of the cores while "
                f"{', '.join(disturbed)} {were} timed; run again when they rest"
            )
            continue
        once = [change for change in times if change.unit != "MiB" and (change.n is None or change.n < 2)]
        if once:
            unjudged.append(f"{gate}: not comparable, a run measures it once; `race` measures it repeatedly")
            continue
        judged += [replace(c, allowed=gate.allowed(c.before), gate=str(gate)) for c in (*figures, *times)]
    return judged, unjudged


def _contradicted(place: str, record: Record, values: Values | None) -> dict[str, str]:
    """Method -> a sentence. Figures follow from the record's rankings; where not, somebody changed one of the two."""
    if values is None:
        return {}
    found = {}
    for row in record.rows:
        for name, column in values.by_method.get(row.method, {}).items():
            right = float(column.mean())
            if row.status == "ok" and abs(row.scores.get(name, right) - right) > _ROUNDING:
                said = f"{name} {row.scores[name]:.6f}, its rankings give {right:.6f}"
                found[row.method] = (
                    f"{row.method} has in the {place} record {said}: one of them was changed or computed differently"
                )
                break
    return found


def paired_intervals(
    method: str, values: tuple[Values | None, Values | None], record: Record
) -> Mapping[str, tuple[float, float]]:
    """Metric -> interval of its difference; empty where either record lacks what each query found."""
    from retrieval_bench.evaluation.bootstrap import LEVEL, RESAMPLES, intervals, resampled_means

    old, new = values
    if old is None or new is None or old.query_ids != new.query_ids:
        return {}
    one, other = old.by_method.get(method, {}), new.by_method.get(method, {})
    names = [name for name in one if name in other]
    clusters = len(np.unique(old.clusters))
    if not names or clusters < 2:
        return {}
    differences = np.column_stack([other[name] - one[name] for name in names])
    if not differences.any():
        return dict.fromkeys(names, (0.0, 0.0))
    means = resampled_means(differences, old.clusters, RESAMPLES, record.settings.seed)
    reach = intervals(means, clusters, LEVEL)
    return {name: (low, high) for name, (low, high) in zip(names, reach.tolist(), strict=True)}


def _in_one_only(has: Row, other: Row, lacks: str) -> list[_OneSided]:
    quality = [(name,) for name in _figures(has) if name not in _figures(other)]
    kept = {name: time for name, time in has.times.items() if time.value is not None}
    known = {name for name, time in other.times.items() if time.value is not None}
    times = [(name, time_name(name, time.unit)) for name, time in kept.items() if name not in known]
    return [_OneSided(has.method, names, lacks) for names in (*quality, *times)]


def _asked_once(one: Record, other: Record) -> str:
    """The perturbed queries that one run asked and the other did not; what both asked is compared all the same."""
    asked = asked_steps(other)
    return ", ".join(dict.fromkeys(step for row in one.rows for step in steps_of(row) if step not in asked))


def _defined_once(one: Record, other: Record) -> str:
    """The metrics that one record defines and the other, of another version, does not."""
    return ", ".join(name for name in one.metrics if name not in other.metrics)


def refuse_false_comparison(before: Record, after: Record, *, one_backend: bool = True) -> None:
    """Raise NotComparable where the numbers of the two records would not mean the same thing.

    one_backend: also where they searched by different backends, unless both are exact.
    """
    if not before.rows:
        raise NotComparable("not comparable: the first record has no method")
    pairs: dict[str, tuple[Any, Any]] = {
        "the dataset": (before.dataset.name, after.dataset.name),
        "the dataset's fingerprint": (before.dataset.fingerprint[:16], after.dataset.fingerprint[:16]),
        "k": (before.settings.k, after.settings.k),
        "the seed": (before.settings.seed, after.settings.seed),
        "the limit": (before.settings.limit, after.settings.limit),
        "what counts as relevant": (before.settings.relevance, after.settings.relevance),
        "the split that methods learned from": (before.settings.learn_from, after.settings.learn_from),
        "the side for which large photos were decoded": (
            before.settings.decoded_for or "whole",
            after.settings.decoded_for or "whole",
        ),
        "the queries left out": (before.dataset.queries_left_out, after.dataset.queries_left_out),
    }
    if one_backend and not _exact_both(before, after):
        pairs["the backend"] = before.settings.backend, after.settings.backend
    for what, (old, new) in pairs.items():
        if old != new:
            raise NotComparable(f"not comparable: {what} differs ({old} and {new}); run both on the same splits")
    for name in sorted(before.perturbations.keys() & after.perturbations.keys()):
        first, second = before.perturbations[name], after.perturbations[name]
        if first != second:
            raise NotComparable(
                f"not comparable: {name} perturbs differently in the two records ({first!r} and {second!r}); "
                "run both again"
            )
    for name in sorted(before.metrics.keys() & after.metrics.keys()):
        one, other = before.metrics[name], after.metrics[name]
        for rule in ("definition", "denominator", "ties", "empty"):
            said = (getattr(one, rule), getattr(other, rule))
            if all(said) and said[0] != said[1]:  # an earlier record does not say all of it
                raise NotComparable(
                    f"not comparable: {name} is defined differently in the two records ({rule}: {said[0]!r} and "
                    f"{said[1]!r}); run both again"
                )


def _exact_both(before: Record, after: Record) -> bool:
    """Whether both searches promise the exact result, so that they must agree."""
    names = (before.settings.backend, after.settings.backend)
    known = BACKENDS.fill()
    return all(name in known and known[name].facts.get("exact") for name in names)


def refuse_other_method(old: Row, new: Row) -> None:
    """Raise NotComparable where one name stands for two methods: other modalities, or other weights."""
    _refuse_other_sides(old, new)
    _refuse_other_weights(old, new)


def _refuse_other_sides(old: Row, new: Row) -> None:
    asked, again = (str(Sides(row.query, row.gallery)) for row in (old, new))
    if asked != again:
        raise NotComparable(
            f"not comparable: {old.method} compares {asked} in the first record and {again} in the second"
        )


def _refuse_other_weights(old: Row, new: Row) -> None:
    def identity(row: Row) -> Any:
        weights = row.weights or {}
        # Random weights differ in the last bit between processors; their source line holds the seed.
        known = "source" if "[untrained]" in row.method else "sha256"
        return ", ".join(filter(None, (weights.get(known), weights.get("recipe")))) or None

    if identity(old) != identity(new):
        raise NotComparable(f"not comparable: {old.method} has other weights ({identity(old)} and {identity(new)})")


def _changes(old: Row, new: Row, allowed: float, reach: Mapping[str, tuple[float, float]]) -> list[Change]:
    before, after = quality_of(old), quality_of(new)
    changes = []
    for name in before:
        if name in after:
            low, high = reach.get(name, (None, None))
            changes.append(Change(old.method, name, before[name], after[name], allowed=allowed, low=low, high=high))
    asked, again = perturbed_of(old), perturbed_of(new)
    changes += [
        Change(old.method, name, asked[name], again[name], allowed=allowed, perturbed=True)
        for name in asked
        if name in again
    ]
    return changes


def _figures(row: Row) -> dict[str, float]:
    return quality_of(row) | perturbed_of(row)


def _lost(old: Row, new: Row, asked: set[str], unknown: set[str]) -> list[str]:
    """What the second run should have and has not; a whole severity is one word.

    asked: the perturbed queries of the second run. unknown: metrics that its version does not have.
    """
    kept = steps_of(new)
    gone = sorted(quality_of(old).keys() - quality_of(new).keys())
    aside = {} if old.open_set is None else old.open_set.scores  # compared where both records have them
    gone = [name for name in gone if name not in aside and not {name, name.partition("@")[0]} & unknown]
    gone += [f"score of {step}" for step in steps_of(old) if step in asked and step not in kept]
    again = perturbed_of(new)
    gone += [name for name in perturbed_of(old) if name not in again and name.rpartition(" ")[2] in kept]
    return [f"{old.method} has no {', '.join(gone)} in the second record"] if gone else []


def _times(old: Row, new: Row) -> list[Change]:
    changes = []
    for name, before in old.times.items():
        after = new.times.get(name)
        if after is not None and before.value is not None and after.value is not None:
            n = None if before.n is None or after.n is None else min(before.n, after.n)
            others = max(old.other_processes or 0.0, new.other_processes or 0.0)
            changes.append(Change(old.method, name, before.value, after.value, before.unit, n=n, others=others))
    return changes


def machine_key(record: Record) -> tuple[Any, ...]:
    """What two records must share for their times to be compared."""
    where = record.environment
    return (where.processor, where.cores, where.machine, where.gpu, record.settings.threads, record.settings.device)
