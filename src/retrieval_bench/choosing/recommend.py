"""Records and limits to advice: what to take, what is as good, what a limit costs, and what the data cannot decide."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from retrieval_bench.choosing.candidates import Candidate, candidates_of
from retrieval_bench.choosing.cost_file import MeasuredSearch
from retrieval_bench.choosing.growth import Growth
from retrieval_bench.choosing.telling_apart import PairVerdict, TellingApart, tell_apart
from retrieval_bench.choosing.untried import untried
from retrieval_bench.compare.diff import refuse_false_comparison
from retrieval_bench.core import BenchError, NotComparable
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import BACKENDS
from retrieval_bench.report.evidence import Evidence
from retrieval_bench.report.names import names_of, renamed
from retrieval_bench.report.table import untrusted_times

PREFERRED = "map@r"
SAME_TIME = 0.1
"""Times that are longer than the shortest by at most this share of it count as equal: timings repeat no better."""


@dataclass(frozen=True)
class Limit:
    """The most that something may be. key: in the JSON; title: in a sentence; unit: behind a number of it."""

    key: str
    most: float
    title: str
    unit: str

    def of(self, one: Candidate) -> float | None:
        """What the candidate has of it; None where the record does not say."""
        value: float | None = getattr(one, self.key)
        return value

    def least(self, one: Candidate) -> float | None:
        """The least that it can be, where that was estimated; else what it is."""
        return one.p95_least_ms if self.key == "p95_ms" else self.of(one)

    def holds(self, one: Candidate) -> bool:
        """Whether the candidate is surely within it."""
        value = self.of(one)
        return value is not None and value <= self.most

    def open_for(self, one: Candidate) -> bool:
        """Whether the candidate may be within it, or beyond it: an estimate does not say."""
        value, least = self.of(one), self.least(one)
        return value is not None and least is not None and least <= self.most < value


@dataclass(frozen=True)
class ChoiceQuestion:
    """What is asked for. None: no such limit. images: in the index; None: as many as were measured."""

    max_p95_ms: float | None = None
    max_bytes: float | None = None
    max_fit_s: float | None = None
    images: float | None = None
    prefer: str = PREFERRED

    @property
    def limits(self) -> tuple[Limit, ...]:
        asked = (
            ("p95_ms", self.max_p95_ms, "p95", "ms"),
            ("bytes_per_image", self.max_bytes, "bytes", "bytes an image"),
            ("fit_s", self.max_fit_s, "fit", "s of learning"),
        )
        return tuple(Limit(key, most, title, unit) for key, most, title, unit in asked if most is not None)


@dataclass(frozen=True)
class Loosening:
    """What the next larger value of a limit would let in, the others kept, that scores more than the best that fits.

    verdict: of what would come in against the best. None of all three: nothing better waits behind this limit.
    """

    limit: Limit
    to: float | None = None
    lets_in: Candidate | None = None
    verdict: PairVerdict | None = None


@dataclass(frozen=True)
class Undecided:
    """Two candidates that these queries cannot tell apart."""

    first: Candidate
    second: Candidate
    verdict: PairVerdict


@dataclass(frozen=True)
class Advice:
    """All that is said.

    candidates: those that fit come first, the better before the worse. fitting: those within all limits, best first;
    group: those that cannot be told from the best of them, it included; take: the cheapest of the group. front: no
    other candidate is as good in quality, time, bytes and learning and better in one. nearest: where nothing fits,
    what exceeds its limits least, and by what factor. unknown: names -> the limits that its record says nothing of.
    parts: what shortened names stand for. approximate: whether any row searches by an index that may miss neighbours.
    """

    question: ChoiceQuestion
    records: tuple[Record, ...]
    record_names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    fitting: tuple[Candidate, ...]
    group: tuple[Candidate, ...]
    take: Candidate | None
    front: frozenset[str]
    loosenings: tuple[Loosening, ...]
    undecided: tuple[Undecided, ...]
    nearest: tuple[Candidate, float] | None
    unknown: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...]
    not_tried: Mapping[str, list[str]]
    warnings: tuple[str, ...]
    parts: Mapping[str, str]
    telling: TellingApart
    approximate: bool

    @property
    def best(self) -> Candidate | None:
        return self.fitting[0] if self.fitting else None


def recommend(
    evidences: Sequence[Evidence], question: ChoiceQuestion, measured: MeasuredSearch | None = None
) -> Advice:
    """What to choose from these records.

    Args:
        evidences: records of the same data, at least one, each with its rankings where they are at hand.
        question: the limits, and what is preferred.
        measured: how search grows, from `cost --json`; None: by the line through 0 and what the record measured.

    Raises:
        BenchError: The records cannot be mixed, or none of their rows can be judged by what is preferred.
    """
    if measured is not None and question.images is None:
        raise BenchError("--costs says how search grows among more images; say among how many by --images N")
    _refuse_to_mix(evidences)
    growths: Mapping[str, Growth] = {} if measured is None else measured.query_ms
    candidates, left_out = candidates_of(evidences, question.prefer, question.images, growths)
    telling = tell_apart(evidences, candidates, question.prefer)
    limits = question.limits
    ranked = sorted(candidates, key=lambda one: (-one.quality, one.price))
    fitting = [one for one in ranked if all(limit.holds(one) for limit in limits)]
    group = [one for one in fitting if one is fitting[0] or not telling.between(fitting[0], one).different]
    take = cheapest(group) if group else None
    names = names_of(row.method for evidence in evidences for row in evidence.record.rows)
    return Advice(
        question=question,
        records=tuple(evidence.record for evidence in evidences),
        record_names=tuple(evidence.name for evidence in evidences),
        candidates=(*fitting, *(one for one in ranked if one not in fitting)),
        fitting=tuple(fitting),
        group=tuple(group),
        take=take,
        front=frozenset(one.name for one in ranked if not any(other.beats(one) for other in ranked)),
        loosenings=tuple(_loosened(limit, limits, ranked, fitting[0], telling) for limit in limits) if fitting else (),
        undecided=tuple(_undecided(group, take, telling)),
        nearest=None if fitting else _nearest(limits, ranked),
        unknown={
            one.name: tuple(limit.title for limit in limits if limit.of(one) is None)
            for one in ranked
            if any(limit.of(one) is None for limit in limits)
        },
        left_out=tuple(left_out),
        not_tried=untried([evidence.record for evidence in evidences]),
        warnings=tuple(_warnings(evidences, question, candidates, measured)),
        parts=names.of(one.method for one in candidates),
        telling=telling,
        approximate=any(approximate(evidence.record) for evidence in evidences),
    )


def approximate(record: Record) -> bool:
    """Whether any row searches by an index that may miss neighbours."""
    known = BACKENDS.fill()
    name = record.settings.backend.partition(":")[0]
    exact = name in known and known[name].facts.get("exact", False)
    return not exact or any(row.approximation is not None for row in record.rows)


def cheapest(group: Sequence[Candidate]) -> Candidate:
    """Of at least one: the quickest; of those about as quick the smallest, then the one that learns soonest."""
    quickest = min(one.price[0] for one in group)
    equal = [one for one in group if one.price[0] <= quickest * (1 + SAME_TIME)]
    return min(equal, key=lambda one: (*one.price[1:], one.price[0], -one.quality))


def _refuse_to_mix(evidences: Sequence[Evidence]) -> None:
    first = evidences[0]
    for other in evidences[1:]:
        try:
            refuse_false_comparison(first.record, other.record, one_backend=False)
        except NotComparable as refusal:
            raise BenchError(f"{first.name} and {other.name} cannot be mixed, {refusal}") from None


def _loosened(
    limit: Limit, limits: Sequence[Limit], ranked: Sequence[Candidate], best: Candidate, telling: TellingApart
) -> Loosening:
    others = [one for one in limits if one is not limit]
    waiting = [
        (value, -one.quality, number)
        for number, one in enumerate(ranked)
        if (value := limit.of(one)) is not None
        and value > limit.most
        and one.quality > best.quality
        and all(other.holds(one) for other in others)
    ]
    if not waiting:
        return Loosening(limit)
    value, _, number = min(waiting)
    return Loosening(limit, value, ranked[number], telling.between(ranked[number], best))


def _undecided(group: Sequence[Candidate], take: Candidate | None, telling: TellingApart) -> list[Undecided]:
    """The pairs of the group that matter: with the one that is taken, then with the best."""
    if take is None:
        return []
    chosen = (take.name, group[0].name)
    pairs = [(one, other) for one, other in combinations(group, 2) if {one.name, other.name} & set(chosen)]
    found = [Undecided(one, other, telling.between(one, other)) for one, other in pairs]
    found = [one for one in found if not one.verdict.different]
    return sorted(found, key=lambda one: take.name not in (one.first.name, one.second.name))


def _nearest(limits: Sequence[Limit], ranked: Sequence[Candidate]) -> tuple[Candidate, float] | None:
    """What exceeds its limits least: the smallest of the largest factors; of those that may fit the best.

    None where nothing is known of any.
    """
    found = []
    for number, one in enumerate(ranked):
        surely = max(_factor(limit.least(one), limit.most) for limit in limits)
        most = max(_factor(limit.of(one), limit.most) for limit in limits)
        found.append((surely, most if surely > 1 else 0.0, number, most))
    _, _, number, factor = min(found)
    return (ranked[number], factor) if math.isfinite(factor) else None


def _factor(value: float | None, most: float) -> float:
    if value is None:
        return math.inf
    if value <= most:
        return 1.0
    return value / most if most else math.inf


def _warnings(
    evidences: Sequence[Evidence],
    question: ChoiceQuestion,
    candidates: Sequence[Candidate],
    measured: MeasuredSearch | None,
) -> list[str]:
    names = names_of(row.method for evidence in evidences for row in evidence.record.rows)
    told = []
    machines = {evidence.name: machine_of(evidence.record) for evidence in evidences}
    if len(set(machines.values())) > 1:
        each = "; ".join(f"{name}: {machine}" for name, machine in machines.items())
        told.append(
            f"The times come from different machines or settings ({each}). Each row is judged by its own record's "
            "times, so a limit on time is not the same for all."
        )
    if measured is not None and any(measured.processor != one.record.environment.processor for one in evidences):
        told.append(f"The growth of search was measured on another processor ({measured.processor}) than the records.")
    gallery = evidences[0].record.dataset.images.gallery
    if question.images is not None and question.images != gallery:
        way = "lower" if question.images > gallery else "higher"
        told.append(
            f"{question.prefer} was measured among {gallery:,} images. Among {question.images:,.0f} it will be {way}, "
            "for some methods more than for others; nothing here says by how much."
        )
    if any(one.far for one in candidates):
        told.append(
            "~ marks times more than ten times beyond the largest size that was measured, where a line says little; "
            "`cost RECORD --images N --json FILE` measures how search grows, and --costs FILE takes it."
        )
    for evidence in evidences:
        if evidence.record.status != "finished":
            told.append(f"The run of {evidence.name} did not finish ({evidence.record.status}).")
        told += evidence.record.violations
        told += untrusted_times(renamed(evidence.record, names))
    without = [evidence.name for evidence in evidences if not evidence.arrays]
    if len(evidences) > 1 and without:
        told.append(
            f"{', '.join(without)} {'has' if len(without) == 1 else 'have'} no rankings at hand, so rows of different "
            "records are told apart only where their intervals do not overlap; with the rankings, more could be."
        )
    return told


def machine_of(record: Record) -> str:
    """On what a record's times were measured, in a few words."""
    where, settings = record.environment, record.settings
    words = [f"{where.processor}, {where.cores} cores", f"{settings.threads} threads", settings.device]
    return ", ".join([*words, *([where.gpu] if where.gpu else [])])
