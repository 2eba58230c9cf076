"""The contest as text, and as data from which the text could be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from retrieval_bench.peer_benchmarks.data import Data
from retrieval_bench.peer_benchmarks.measurement import Result, names
from retrieval_bench.peer_benchmarks.targets import TargetVerdict

SCHEMA_VERSION = 2
NOTHING = "-"
RELIABLE = 0.05  # share of the cores that other processes may take before the table says so


def table(results: Sequence[Result]) -> list[str]:
    """One line a shape: milliseconds of everybody, then how ours compare. A star marks the best peer."""
    rivals = names(results)
    certified = ["int8"] if "int8" in rivals else []
    heads = ["queries x rows x dim", "k", *rivals, *(f"x {name}" for name in ("float32", *certified))]
    heads += ["GFLOP/s", "of FMA", "GB/s", "of read", "rescored", *("resc. int8" for _ in certified)]
    heads += ["build ms", *("build int8" for _ in certified)]
    lines = [heads]
    for result in results:
        line = [result.shape.name, str(result.shape.k)]
        for name in rivals:
            star = "*" if name == result.best_peer else " "
            line.append("wrong " if name in result.wrong else f"{digits(result.ms(name))}{star}")
        line += [digits(result.ratio(name)) for name in ("float32", *certified)]
        line += [_giga(result.flops()), _percent(result.share_of_flops())]
        line += [_giga(result.read()), _percent(result.share_of_read())]
        line += [_small_share(result, name) for name in ("float32", *certified)]
        line += [digits(result.build_ms.get(name)) for name in ("float32", *certified)]
        lines.append(line)
    return ruled(lines)


def ruled(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Cells in columns, with a rule below the heads; the first `left` columns begin at the left."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (lines[0], ["─" * width for width in widths], *lines[1:])
    ]


def footer(
    results: Sequence[Result],
    verdicts: Sequence[TargetVerdict],
    threads: int,
    others: float | None,
    quick: bool,
    data: Data = "gauss",
) -> list[str]:
    """What the figures are, the machine's peaks, what went wrong, and the targets."""
    counted = f"{min(_rounds(results))} to {max(_rounds(results))} interleaved rounds on {threads} threads"
    lines = [f"Milliseconds, medians of {counted}; results checked equal. * best peer; x: its time over ours."]
    if data != "gauss":
        lines.append(f"Data: {data}.")
    flops = [value for result in results for value in result.peak_flops]
    read = [value for result in results for value in result.peak_read]
    if flops:
        lines.append(f"Peaks measured in the same rounds: {_giga(median(flops))} GFLOP/s, {_giga(median(read))} GB/s.")
    lines += disturbance(others)
    if others is not None and others > RELIABLE:
        ratios = [
            f"{result.shape.key} {digits(result.ratio_of_fastest('float32'))}"
            for result in results
            if result.ratio_of_fastest("float32") is not None
        ]
        lines.append("x float32 from the fastest round of each instead of its median:")
        lines += [f"  {', '.join(ratios[start : start + 4])}" for start in range(0, len(ratios), 4)]
    lines += [f"WRONG: {result.shape.name}: {name}: {why}" for result in results for name, why in result.wrong.items()]
    if quick:
        return [*lines, "Small shapes (--quick): these times say nothing about the kernel, so no target is judged."]
    words = {True: "met", False: "NOT MET", None: "open"}
    widths = [max(len(getattr(verdict, part)) for verdict in verdicts) for part in ("what", "asked")]
    lines += ["", "Targets (ratio to the best peer of each shape unless it says otherwise; the worst shape counts)"]
    lines += [
        f"  {words[verdict.met]:7}  {verdict.what:{widths[0]}}  {verdict.asked:{widths[1]}}  {verdict.figure}"
        for verdict in verdicts
    ]
    return lines


def disturbance(others: float | None) -> list[str]:
    """What other processes took of the cores, and whether that spoils the figures."""
    if others is None:
        return []
    taken = f"Other processes took {100 * others:.0f} % of the cores meanwhile."
    return [f"{taken} The figures are not reliable." if others > RELIABLE else taken]


def as_data(results: Sequence[Result], verdicts: Sequence[TargetVerdict], **about: Any) -> dict[str, Any]:
    """For `json.dumps(..., allow_nan=False)`; `about`: threads, environment and whatever else belongs to the run."""
    return {
        "schema": SCHEMA_VERSION,
        **about,
        "shapes": [
            {
                "name": result.shape.key,
                **vars(result.shape),
                "samples_ms": result.samples_ms,
                "median_ms": {name: result.ms(name) for name in result.samples_ms},
                "build_ms": result.build_ms,
                "trials_ms": result.trials_ms,
                "settings": result.settings,
                "wrong": result.wrong,
                "scanned": {name: {**stats._asdict(), "share": stats.share} for name, stats in result.stats.items()},
                "best_peer": result.best_peer,
                "ratios": {name: result.ratio(name) for name in ("float32", "int8") if name in result.samples_ms},
                "flops": result.flops(),
                "bytes_per_second": result.read(),
                "peak_flops": result.peak_flops,
                "peak_bytes_per_second": result.peak_read,
            }
            for result in results
        ],
        "targets": [vars(verdict) for verdict in verdicts],
    }


def progress_line(result: Result) -> str:
    """One shape is done: who took how long."""
    times: Mapping[str, str] = {name: digits(result.ms(name)) for name in result.samples_ms}
    return f"{result.shape.name}: {', '.join(f'{name} {time}' for name, time in times.items())} ms"


def _rounds(results: Sequence[Result]) -> list[int]:
    return [len(samples) for result in results for samples in result.samples_ms.values()] or [0]


def digits(value: float | None) -> str:
    """About three digits and never an exponent: 0.123, 1.23, 12.3, 1,234."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 3}f}"


def _giga(value: float | None) -> str:
    return NOTHING if value is None else digits(value / 1e9)


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f} %"


def _small_share(result: Result, name: str) -> str:
    """Float64 distances computed, of all pairs of a query and a row; nothing where a search needs none."""
    stats = result.stats.get(name)
    return NOTHING if stats is None or result.shape.bits else f"{100 * stats.share:.3f} %"
