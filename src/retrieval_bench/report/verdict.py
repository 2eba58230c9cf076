"""A diff's verdict as terminal text, as Markdown for a pull request, and as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from retrieval_bench.compare.diff import Change, DiffVerdict
from retrieval_bench.compare.gates import bigger_is_better, time_name
from retrieval_bench.records.schema import Record
from retrieval_bench.records.scores import intervals_of, perturbed_of, quality_of
from retrieval_bench.report.lines import counted, three_digits

_SPEED_SHOWN = ("end_to_end_p50", "search_p50", "extract_throughput", "fit")
_QUALITY_SHOWN = ("accuracy", "map@r")
_CURVE = "accuracy "
OPTIONS = "Same name, other options:"


def lines(verdict: DiffVerdict) -> list[str]:
    """What a person needs: the verdict, then what moved, then the largest change of each method, then speed."""
    text = [headline(verdict)]
    text += [f"  {sentence}" for sentence in (*verdict.broken, *verdict.unjudged)]
    text += [f"  {_figure(change)}, {_limit(change)}" for change in verdict.moved]
    changed = _changed(verdict)
    if changed:
        text += ["", "Largest change of each method:"]
    for method in changed:
        for perturbed in (False, True):
            text += [f"  {_figure(largest)}" for largest in _largest(verdict, method, perturbed)]
    options = _options(verdict)
    text += ["", OPTIONS, *(f"  {sentence}" for sentence in options)] if options else []
    text += ["", identical] if (identical := _identical(verdict)) else []
    if verdict.added:
        text += ["", f"Only in the second record: {', '.join(verdict.added)}"]
    text += ["", *(f"Note: {sentence}" for sentence in verdict.notes)] if verdict.notes else []
    text.append("")
    if verdict.same_machine:
        text.append(f"Speed, same machine, {'judged only by --fail' if verdict.gates else 'shown, not judged'}:")
        text += [f"  {_figure(change)}" for change in verdict.speed if change.name in _SPEED_SHOWN]
    else:
        text.append("Speed is not compared: the records come from different machines, thread counts or backends.")
    return text


def headline(verdict: DiffVerdict) -> str:
    """The verdict in one line."""
    methods = len(_methods(verdict))
    if verdict.passed and verdict.unjudged:
        return f"not comparable in {counted(len(verdict.unjudged), 'point')}; everything that could be judged passed"
    if verdict.passed:
        return f"same: {counted(methods, 'method')}, nothing changed by more than is allowed"
    parts = []
    if verdict.broken:
        parts.append(f"{counted(len(verdict.broken), 'row')} missing, failed, incomplete or contradicted")
    if verdict.moved:
        kind = "gated" if verdict.gates else "quality"
        parts.append(f"{counted(len(verdict.moved), f'{kind} number')} changed too much")
    return f"different: {'; '.join(parts)}"


def markdown(verdict: DiffVerdict) -> str:
    """For a pull request: the verdict, what failed, then the headline figures of each method."""
    mark = "✅" if verdict.passed and not verdict.unjudged else "⚠️" if verdict.passed else "❌"
    text = [f"### {mark} Retrieval benchmark: {_escaped(headline(verdict))}", ""]
    text += [f"- {_escaped(sentence)}" for sentence in (*verdict.broken, *verdict.unjudged)]
    text += [f"- {_escaped(_figure(change))}, {_limit(change)}" for change in verdict.moved]
    changed = set(_changed(verdict))
    moving = [change for change in verdict.quality if change.method in changed]
    shown = [change for change in moving if change.name in _QUALITY_SHOWN]
    if shown:
        text += ["", "| method | metric | before | after | change | 95 % interval |", "|---|---|---:|---:|---:|---|"]
    for change in shown:
        reach = "n/a" if change.low is None or change.high is None else f"{change.low:+.4f} to {change.high:+.4f}"
        text.append(
            f"| {_escaped(change.method)} | {change.name} | {change.before:.4f} | {change.after:.4f} "
            f"| {change.delta:+.4f} | {reach} |"
        )
    text += _perturbed_table([change for change in moving if change.perturbed and change.name.startswith(_CURVE)])
    options = _options(verdict)
    text += ["", OPTIONS, "", *(f"- {_escaped(sentence)}" for sentence in options)] if options else []
    text += ["", _escaped(identical)] if (identical := _identical(verdict)) else []
    speed = [change for change in verdict.speed if change.name in _SPEED_SHOWN]
    if speed:
        judged = "judged only by --fail" if verdict.gates else "shown, not judged"
        text += ["", f"<details><summary>Speed, same machine, {judged}</summary>", ""]
        text += ["| method | time | before | after | ratio |", "|---|---|---:|---:|---:|"]
    for change in speed:
        ratio = "n/a" if change.ratio is None else f"{change.ratio:.2f}{_once(change)}"
        text.append(
            f"| {_escaped(change.method)} | {time_name(change.name, change.unit)} | {three_digits(change.before)} "
            f"| {three_digits(change.after)} {change.unit} | {ratio} |"
        )
    text += ["", "</details>"] if speed else []
    if not verdict.same_machine:
        text += ["", "Speed is not compared: the records come from different machines, thread counts or backends."]
    if verdict.added:
        text += ["", f"Only in the second record: {_escaped(', '.join(verdict.added))}"]
    for sentence in verdict.notes:
        text += ["", f"Note: {_escaped(sentence)}"]
    return "\n".join(text) + "\n"


def _perturbed_table(changes: Sequence[Change]) -> list[str]:
    """Accuracy of every perturbation and severity, folded away: there can be many."""
    if not changes:
        return []
    text = ["", "<details><summary>Perturbed queries: accuracy</summary>", ""]
    text += ["| method | perturbation | before | after | change |", "|---|---|---:|---:|---:|"]
    text += [
        f"| {_escaped(change.method)} | {_escaped(change.name.removeprefix(_CURVE))} | {change.before:.4f} "
        f"| {change.after:.4f} | {change.delta:+.4f} |"
        for change in changes
    ]
    return [*text, "", "</details>"]


def refused(sentence: str) -> str:
    """For a pull request, why two records cannot be compared."""
    return f"### ⚠️ Retrieval benchmark: {_escaped(sentence)}\n"


def github(record: Record) -> dict[str, list[dict[str, Any]]]:
    """The figures of a record as the two lists that github-action-benchmark reads, one for each of its custom tools."""
    lists: dict[str, list[dict[str, Any]]] = {"customBiggerIsBetter": [], "customSmallerIsBetter": []}
    for row in record.rows:
        intervals = intervals_of(row)
        for name, value in (quality_of(row) | perturbed_of(row)).items():
            entry = {"name": f"{row.method} {name}", "unit": "score", "value": value}
            reach = intervals.get(name)
            if reach is not None:
                entry["range"] = f"{reach.low:.4f} to {reach.high:.4f}"
            lists["customBiggerIsBetter"].append(entry)
        for name, time in row.times.items():
            if time.value is None:
                continue
            better = "customBiggerIsBetter" if bigger_is_better(time.unit) else "customSmallerIsBetter"
            entry = {"name": f"{row.method} {time_name(name, time.unit)}", "unit": time.unit, "value": time.value}
            lists[better].append(entry)
    return lists


def as_data(verdict: DiffVerdict) -> dict[str, Any]:
    """JSON-able: figures that nothing limits have no `allowed`."""
    moved = [asdict(change) for change in verdict.moved]
    content = {"passed": verdict.passed, "moved": moved, **asdict(verdict)}
    for kind in ("moved", "quality", "speed", "gates"):
        for change in content[kind]:
            if not math.isfinite(change["allowed"]):
                del change["allowed"]
    return content


def _methods(verdict: DiffVerdict) -> list[str]:
    return list(dict.fromkeys(change.method for change in verdict.quality))


def _changed(verdict: DiffVerdict) -> list[str]:
    """Methods of which any quality figure is another."""
    return list(dict.fromkeys(change.method for change in verdict.quality if change.delta))


def _largest(verdict: DiffVerdict, method: str, perturbed: bool) -> list[Change]:
    """The figure of a method that changed most, with clean or with perturbed queries; none where none did."""
    changes = [c for c in verdict.quality if c.method == method and c.perturbed == perturbed and c.delta]
    return [max(changes, key=lambda change: abs(change.delta))] if changes else []


def _options(verdict: DiffVerdict) -> list[str]:
    """A sentence for each method with other options."""
    found: dict[str, list[str]] = {}
    for option in verdict.options:
        before, after = ("absent" if value is None else str(value) for value in (option.before, option.after))
        found.setdefault(option.method, []).append(f"{option.name} {before} -> {after}")
    return [f"{method}: {', '.join(changes)}" for method, changes in found.items()]


def _identical(verdict: DiffVerdict) -> str:
    changed = {*_changed(verdict), *verdict.contradicted}
    same = [method for method in _methods(verdict) if method not in changed]
    return f"Identical in every quality number: {', '.join(same)}" if same else ""


def _once(change: Change) -> str:
    """A time that a run measures once says little: `race` measures it repeatedly."""
    return ", measured once" if change.unit != "MiB" and (change.n is None or change.n < 2) else ""


def _limit(change: Change) -> str:
    return f"allowed {change.allowed:g}" if change.gate is None else f"--fail {change.gate}"


def _figure(change: Change) -> str:
    if change.unit:
        ratio = "" if change.ratio is None else f" (x {change.ratio:.2f}{_once(change)})"
        before, after = three_digits(change.before), three_digits(change.after)
        return f"{change.method}: {time_name(change.name, change.unit)} {before} -> {after} {change.unit}{ratio}"
    reach = "" if change.low is None or change.high is None else f", 95 % {change.low:+.4f} to {change.high:+.4f}"
    return f"{change.method}: {change.name} {change.before:.4f} -> {change.after:.4f} ({change.delta:+.4f}{reach})"


def _escaped(text: str) -> str:
    """Names of methods hold what the user typed: no cell ends early and no tag begins."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`").replace("\n", " ")
