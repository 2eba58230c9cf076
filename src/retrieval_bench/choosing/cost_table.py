"""Costs as tables for a terminal, with the lines that they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retrieval_bench.choosing.cost import CostOfMethod, Load, Machine, Prices
from retrieval_bench.choosing.growth import Growth
from retrieval_bench.choosing.measured_growth import SearchGrowth
from retrieval_bench.report.lines import aligned, three_digits

FAR_MARK = "~"


def grid(costs: Sequence[CostOfMethod]) -> list[list[str]]:
    """Heads, then a line for each method; ~ marks what lies far beyond what was measured."""
    heads = ["method", "extract h", "build h", "CPU ms a query", "latency ms", "GB", "cores", "machines"]
    priced = any(one.money_a_month is not None for one in costs)
    heads += [*(["a month", "once"] if priced else []), "kWh a month", "kWh once"]
    lines = [heads]
    for one in costs:
        search, build, stored = (FAR_MARK if name in one.far else "" for name in ("search", "build", "bytes"))
        cells = [one.method, three_digits(one.extract_h), build + three_digits(one.build_h)]
        cells += [search + three_digits(one.query_ms), search + three_digits(one.latency_ms)]
        cells += [stored + three_digits(one.gb), search + three_digits(one.cores), f"{search}{one.machines:,}"]
        if priced:
            cells += ["n/a" if it is None else three_digits(it) for it in (one.money_a_month, one.money_once)]
        lines.append([*cells, three_digits(one.kwh_a_month), three_digits(one.kwh_once)])
    return lines


def measured(growths: Mapping[str, SearchGrowth]) -> list[list[str]]:
    """Heads, then each line that was fitted, with its largest deviation."""
    lines = [["method", "what", "line through the measured sizes", "off by", "measured at rows"]]
    for method, growth in growths.items():
        for what, one in (
            ("ms of a query", growth.query_ms),
            ("build s", growth.build_s),
            ("bytes", growth.index_bytes),
        ):
            lines.append([method, what, _line(one), f"{one.residual:.0%}", f"{one.sizes[0]:,} to {one.sizes[-1]:,}"])
    return lines


def assumptions(machine: Machine, load: Load, prices: Prices, processor: str) -> list[str]:
    """Sentences on what the numbers rest on."""
    asked = f"{load.images:,.0f} images, {load.queries_per_second:g} queries/s at the busiest"
    size = f"{machine.cores} cores ({processor}), {machine.memory / 2**30:.0f} GiB"
    heads = (
        "extract h, build h: once, all cores of one machine. CPU ms a query: of one core, decoding, description, search"
    )
    grown = "Rows beyond those of the record are made between two of them"
    told = [
        f"{asked}, with {load.busy:.0%} of the cores at work then. A machine is this one: {size}.",
        f"{heads}. latency ms: one query alone. GB: features and index.",
        f"Energy: {prices.watts:g} W for each core at work, an assumption (--watts).",
        f"{FAR_MARK}: more than ten times beyond the largest measured size, where such a line says little.",
        f"A description costs the same however many images there are. {grown}; an index of other data may be slower.",
    ]
    if prices.cpu_hour is not None:
        month = "nothing" if prices.gb_month is None else f"{prices.gb_month:g} for a gigabyte and month"
        told.insert(2, f"Money: {prices.cpu_hour:g} for an hour of a core, {month}; machines are held all month.")
    return told


def text(
    costs: Sequence[CostOfMethod],
    growths: Mapping[str, SearchGrowth],
    machine: Machine,
    load: Load,
    prices: Prices,
    processor: str,
) -> str:
    """Both tables and the sentences."""
    return "\n".join(
        [*aligned(grid(costs)), "", *aligned(measured(growths)), "", *assumptions(machine, load, prices, processor)]
    )


def _line(one: Growth) -> str:
    return f"{one.start:.3g} + {one.slope:.3g} x {one.shape}"
