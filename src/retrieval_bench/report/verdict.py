"""A diff's verdict as terminal text and as plain data for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from retrieval_bench.diff import Change, Verdict
from retrieval_bench.report.table import three_digits

_SPEED_SHOWN = ("end_to_end_p50", "search_p50", "extract_throughput", "fit")


def lines(verdict: Verdict) -> list[str]:
    """What a person needs: the verdict, then what moved, then the largest change of each method, then speed."""
    methods = list(dict.fromkeys(change.method for change in verdict.quality))
    text = [_headline(verdict, len(methods))]
    text += [f"  {sentence}" for sentence in verdict.broken]
    text += [f"  {_quality(change)}, allowed {change.allowed:g}" for change in verdict.moved]
    if methods:
        text += ["", "Largest change of each method:"]
    for method in methods:
        largest = max((c for c in verdict.quality if c.method == method), key=lambda change: abs(change.delta))
        text.append(f"  {_quality(largest) if largest.delta else f'{method}: identical in every quality number'}")
    if verdict.added:
        text += ["", f"Only in the second record: {', '.join(verdict.added)}"]
    text.append("")
    if verdict.same_machine:
        text.append("Speed, same machine, shown and not judged:")
        text += [f"  {_speed(change)}" for change in verdict.speed if change.name in _SPEED_SHOWN]
    else:
        text.append("Speed is not compared: the records come from different machines or thread counts.")
    return text


def _headline(verdict: Verdict, methods: int) -> str:
    if verdict.passed:
        return f"same: {methods} methods, no quality number moved further than is allowed"
    parts = []
    if verdict.broken:
        parts.append(f"{len(verdict.broken)} rows missing, failed or incomplete")
    if verdict.moved:
        parts.append(f"{len(verdict.moved)} quality numbers moved too far")
    return f"different: {'; '.join(parts)}"


def _quality(change: Change) -> str:
    return f"{change.method}: {change.name} {change.before:.4f} -> {change.after:.4f} ({change.delta:+.4f})"


def _speed(change: Change) -> str:
    ratio = "" if change.ratio is None else f" (x {change.ratio:.2f})"
    before, after = three_digits(change.before), three_digits(change.after)
    return f"{change.method}: {change.name} {before} -> {after} {change.unit}{ratio}"


def as_data(verdict: Verdict) -> dict[str, Any]:
    """JSON-able: times, which nothing limits, have no `allowed`."""
    moved = [asdict(change) for change in verdict.moved]
    content = {"passed": verdict.passed, "moved": moved, **asdict(verdict)}
    for change in content["speed"]:
        del change["allowed"]
    return content
