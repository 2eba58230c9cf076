"""What a search for methods found: a line for each trial, a table of the best, and how far val and queries differ."""

from __future__ import annotations

from retrieval_bench.records.schema import Record
from retrieval_bench.records.tunings import Tried
from retrieval_bench.report.lines import aligned, three_digits
from retrieval_bench.tuning.tune import Chosen

SHOWN = 12


def line(tried: Tried) -> str:
    """0.412  half of the data: sift+color (31 s)"""
    reached = "failed" if tried.score is None else f"{tried.score:.3f}"
    where = "all of the validation data" if tried.whole else f"{tried.queries:,} queries of it"
    return f"{reached:>6}  {tried.method} ({where}, {three_digits(tried.seconds)} s)"


def table(found: Chosen, metric: str) -> str:
    """The best on all of the validation data, what each costs, and which no test tells from the first."""
    alike = {one.method for one in found.best}
    lines = [["method", metric, "p95 ms", "B/image", "fit s"]]
    for one in found.whole[:SHOWN]:
        mark = " =" if one.method in alike else ""
        lines.append(
            [
                f"{one.method}{mark}",
                "" if one.score is None else f"{one.score:.3f}",
                *("n/a" if value is None else three_digits(value) for value in (one.p95_ms, one.bytes, one.fit_s)),
            ]
        )
    failed = sum(one.score is None for one in found.tried)
    names = len({one.method for one in found.tried})
    told = [
        f"{names} methods in {len(found.tried)} trials, {failed} of which failed; {found.validation.told}.",
        "=: no test tells it from the first (sign flips by label, corrected by Holm).",
    ]
    if found.validation.shares_labels:
        told.append("The queries show labels that it chose by, so that only their pictures are new.")
    if found.over:
        one, why = max(found.over, key=lambda pair: pair[0].score or 0.0)
        told.append(f"Over a limit: {len(found.over)}; the best of these is {one.method}: {', '.join(why)}.")
    return "\n".join([*aligned(lines), *told])


def gaps(found: Chosen, record: Record, metric: str) -> str:
    """Each chosen method on the data that it was chosen by, and on the queries, which were asked once."""
    scores = {one.method: one.score for one in found.whole}
    lines = [["method", f"{metric} val", "queries", "95 %", "gap"]]
    for text, row in zip(record.settings.methods, record.rows, strict=True):
        known, reached, reach = scores.get(text), row.scores.get(metric), row.intervals.get(metric)
        if known is None or reached is None:
            lines.append([text, "" if known is None else f"{known:.3f}", "failed", "", ""])
            continue
        within = "" if reach is None else f"{reach.low:.3f}-{reach.high:.3f}"
        lines.append([text, f"{known:.3f}", f"{reached:.3f}", within, f"{reached - known:+.3f}"])
    return "\n".join(
        [
            *aligned(lines),
            "gap: what the queries say less what val said. The galleries differ, and the best of many is lucky on val.",
        ]
    )
