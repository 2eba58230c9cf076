"""What can be chosen: every finished row of the records but the controls, with its quality and what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from retrieval_bench.choosing.growth import Growth, shape_of, through_one
from retrieval_bench.core import BenchError
from retrieval_bench.methods.parse import ON, Method, parse_method
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.records.scores import is_marked
from retrieval_bench.report.evidence import Evidence
from retrieval_bench.report.names import names_of

FIXED_SHORTLIST = frozenset({"verify", "cross"})
"""Steps that look at as many images however many there are, and search nothing again."""


@dataclass(frozen=True)
class Candidate:
    """A row that could be chosen.

    record: which of the records, from 0. method: as the record calls it; name: as it is shown, each its own. low, high:
    interval of the quality. p95_ms, bytes_per_image, fit_s: what it costs; None: the record does not say.
    p95_ms is the most and p95_least_ms the least that the time can be, the same where it was measured.
    measured_p95_ms: the time among as many images as were measured. estimated: the time is of more images than those;
    far: of more than ten times as many.
    """

    record: int
    method: str
    name: str
    quality: float
    low: float | None = None
    high: float | None = None
    p95_ms: float | None = None
    bytes_per_image: float | None = None
    fit_s: float | None = None
    p95_least_ms: float | None = None
    measured_p95_ms: float | None = None
    estimated: bool = False
    far: bool = False

    @property
    def price(self) -> tuple[float, float, float]:
        """By what one is cheaper than another: time, then bytes, then learning; what is not known comes last."""
        costs = (self.p95_ms, self.bytes_per_image, self.fit_s)
        time, size, fit = (float("inf") if one is None else one for one in costs)
        return time, size, fit

    def beats(self, other: Candidate) -> bool:
        """Whether it is nowhere worse, in quality, time, bytes and learning, and somewhere better."""
        ours, theirs = (-self.quality, *self.price), (-other.quality, *other.price)
        return ours != theirs and all(one <= two for one, two in zip(ours, theirs, strict=True))


def candidates_of(
    evidences: Sequence[Evidence],
    metric: str,
    images: float | None = None,
    growths: Mapping[str, Growth] | None = None,
) -> tuple[list[Candidate], list[str]]:
    """All candidates of these records, and sentences on the rows that are none.

    Args:
        evidences: the records, at least one.
        metric: what they are to be chosen by, with its cutoff: `map@r`, `recall@10`.
        images: how many the search is to be among; None: as many as were measured.
        growths: method -> how its search grows, where that was measured.

    Raises:
        BenchError: No row has this metric, or less of it is better.
    """
    names = names_of(row.method for evidence in evidences for row in evidence.record.rows).short
    often = Counter(row.method for evidence in evidences for row in evidence.contestants)
    found: list[Candidate] = []
    left_out: list[str] = []
    for place, evidence in enumerate(evidences):
        record = evidence.record
        _refuse_less_is_better(record, metric)
        methods = methods_of(record)
        for row in record.rows:
            name = names[row.method] + (f" [{place + 1}]" if often[row.method] > 1 else "")
            if row.status != "ok":
                left_out.append(f"{name} failed in the run")
            elif row in evidence.contestants and is_marked(row):
                left_out.append(f"{name} has other scores than its rankings give: one of the two was changed")
            elif row in evidence.contestants and metric not in row.scores:
                left_out.append(f"{name} has no {metric}")
            elif row in evidence.contestants:
                time = p95_at(row, record, methods, images, growths or {})
                reach, timed = row.intervals.get(metric), row.times.get("end_to_end_p95")
                found.append(
                    Candidate(
                        record=place,
                        method=row.method,
                        name=name,
                        quality=row.scores[metric],
                        low=None if reach is None else reach.low,
                        high=None if reach is None else reach.high,
                        p95_ms=time.most,
                        p95_least_ms=time.least,
                        bytes_per_image=None if row.features is None else float(row.features.bytes_per_image),
                        fit_s=_fit(row),
                        measured_p95_ms=None if timed is None else timed.value,
                        estimated=time.estimated,
                        far=time.far,
                    )
                )
    if not found:
        known = dict.fromkeys(name for one in evidences for row in one.contestants for name in row.scores)
        if metric not in known:
            controls = [row.method for one in evidences for row in one.record.rows if row.status == "ok"]
            if not known and controls:
                raise BenchError(
                    f"the records hold controls alone ({', '.join(dict.fromkeys(controls))}), which show what chance "
                    "or the labels give and are no methods to choose; run others beside them"
                )
            raise BenchError(f"--prefer {metric}: the records have {', '.join(known) or 'no method that finished'}")
        raise BenchError(f"no row can be chosen: {'; '.join(left_out)}")
    return found, left_out


def _refuse_less_is_better(record: Record, metric: str) -> None:
    facts = record.metrics.get(metric) or record.metrics.get(metric.rpartition("@")[0])
    if facts is not None and not facts.higher_is_better:
        raise BenchError(f"--prefer {metric}: less of it is better; name a metric of which more is better")


def _fit(row: Row) -> float | None:
    """Seconds; 0 where there is nothing to learn, None where what was learned came from a cache."""
    known = row.times.get("fit")
    if known is not None and known.value is not None:
        return known.value
    return 0.0 if row.features is not None and row.features.fit == "nothing to learn" else None


def methods_of(record: Record) -> dict[str, Method]:
    """Row -> what its name means, for the rows whose names this installation can read."""
    asked = record.settings.methods
    texts = asked if len(asked) == len(record.rows) else [row.method for row in record.rows]
    found = {}
    for row, text in zip(record.rows, texts, strict=True):
        try:
            found[row.method] = parse_method(text)
        except BenchError:  # of a plug-in that is not there
            continue
    return found


@dataclass(frozen=True)
class TimeAtSize:
    """ms that a query takes among so many images, from least to most; None where nobody can say."""

    least: float | None
    most: float | None
    estimated: bool = False
    far: bool = False


def p95_at(
    row: Row, record: Record, methods: Mapping[str, Method], images: float | None, growths: Mapping[str, Growth]
) -> TimeAtSize:
    """95th percentile of one query among so many images.

    Decoding and description cost the same however many images there are. Search grows as `growths` says where that was
    measured. Else at most all of it grows, by the line through 0 and the size of the record's gallery, and at least
    nothing does: one size does not tell the part that grows from the other. Steps with a fixed shortlist do not grow,
    where the row without them is there to tell their share. Among fewer images than were measured it is taken to be the
    time that was measured.
    """
    end, search = (row.times.get(name) for name in ("end_to_end_p95", "search_p95"))
    if end is None or end.value is None:
        return TimeAtSize(None, None)
    gallery = record.dataset.images.gallery
    if images is None or images <= gallery:
        return TimeAtSize(end.value, end.value)
    if search is None or search.value is None:
        return TimeAtSize(end.value, None, True)
    before = max(0.0, end.value - search.value)
    method = methods.get(row.method)
    measured = growths.get(row.method) or (None if method is None else growths.get(str(method)))
    if measured is not None:
        usual = row.times.get("search_p50")
        tail = search.value / usual.value if usual is not None and usual.value else 1.0
        time = before + tail * measured.at(images)
        return TimeAtSize(time, time, True, measured.far(images))
    fixed = _fixed_part(row, record, methods)
    line = through_one(gallery, search.value - fixed, shape_of(_backend(row, record)))
    return TimeAtSize(end.value, before + fixed + line.at(images), True, line.far(images))


def _fixed_part(row: Row, record: Record, methods: Mapping[str, Method]) -> float:
    """ms of its search that do not grow."""
    method, search = methods.get(row.method), row.times["search_p95"].value or 0.0
    if method is None or not method.steps or any(step.entry.name not in FIXED_SHORTLIST for step in method.steps):
        return 0.0
    plain = str(replace(method, steps=()))
    for other in record.rows:
        if other.method in methods and str(methods[other.method]) == plain and "search_p95" in other.times:
            alone = other.times["search_p95"].value
            return 0.0 if alone is None else max(0.0, search - alone)
    return 0.0


def _backend(row: Row, record: Record) -> str:
    _, on, own = row.method.rpartition(ON)
    return own if on else record.settings.backend
