"""What a number of images costs by one method and backend: time, bytes, machines, money and energy, from measurements.

Everything here is arithmetic on measured rates; what is assumed is an argument and is written into the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrieval_bench.choosing.growth import Growth
from retrieval_bench.choosing.measured_growth import SearchGrowth
from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Row

HOURS_A_MONTH = 730.0
GB = 1e9
ROOM = 0.8
"""Share of a machine's memory that indexes may take."""


@dataclass(frozen=True)
class Load:
    """What is asked for. images: in the index. queries_per_second: at the busiest. busy: share of the cores that may be
    at work then, above 0 and at most 1."""

    images: float
    queries_per_second: float
    busy: float = 0.6


@dataclass(frozen=True)
class Prices:
    """Money for an hour of a core and for a month of a gigabyte; None: not known. watts: of a core at work."""

    cpu_hour: float | None = None
    gb_month: float | None = None
    watts: float = 8.0


@dataclass(frozen=True)
class Machine:
    """Cores and bytes of memory of one machine."""

    cores: int
    memory: float


@dataclass(frozen=True)
class CostOfMethod:
    """extract_h: hours of all cores of one machine, once; build_h likewise. query_ms: of one core, describing and
    searching; latency_ms: of one query alone, decoding, description and search. gb: features and index together. cores:
    at work at the busiest. money and energy: a month, and once (extraction and building). far: what lies more than ten
    times beyond what was measured."""

    method: str
    extract_h: float
    build_h: float
    query_ms: float
    latency_ms: float
    gb: float
    cores: float
    machines: int
    money_a_month: float | None
    money_once: float | None
    kwh_a_month: float
    kwh_once: float
    far: tuple[str, ...]


def cost_of(row: Row, growth: SearchGrowth, threads: int, machine: Machine, load: Load, prices: Prices) -> CostOfMethod:
    """The cost of one row of a record.

    Args:
        row: finished, of a method whose images were described in the run.
        growth: of its search.
        threads: with which its throughput was measured.
        machine: what one of the machines has.
        load: what is asked for.
        prices: for money and energy.

    Raises:
        BenchError: The record does not say how fast the method describes images.
    """
    rate = row.times.get("extract_throughput")
    if row.features is None or rate is None or not rate.value:
        raise BenchError(f"{row.method}: the record does not say how long describing an image takes")
    describe_s = threads / rate.value  # of one core
    search_s = growth.query_ms.at(load.images) / 1e3
    gb = (row.features.bytes_per_image * load.images + growth.index_bytes.at(load.images)) / GB
    cores = load.queries_per_second * (describe_s + search_s) / load.busy
    machines = max(1, math.ceil(cores / machine.cores), math.ceil(gb * GB / (ROOM * machine.memory)))
    extract_h = load.images * describe_s / machine.cores / 3600
    build_h = growth.build_s.at(load.images) / 3600
    once = (extract_h + build_h) * machine.cores
    held = machines * machine.cores * HOURS_A_MONTH
    alone = sum(
        time.value or 0.0 for name in ("decode_p50", "extract_p50") if (time := row.times.get(name)) is not None
    )
    return CostOfMethod(
        method=row.method,
        extract_h=extract_h,
        build_h=build_h,
        query_ms=(describe_s + search_s) * 1e3,
        latency_ms=alone + search_s * 1e3,
        gb=gb,
        cores=cores,
        machines=machines,
        money_a_month=_money(held, gb, prices),
        money_once=None if prices.cpu_hour is None else once * prices.cpu_hour,
        kwh_a_month=cores * load.busy * HOURS_A_MONTH * prices.watts / 1e3,
        kwh_once=once * prices.watts / 1e3,
        far=tuple(name for name, one in _named(growth) if one.far(load.images)),
    )


def _money(core_hours: float, gb: float, prices: Prices) -> float | None:
    if prices.cpu_hour is None:
        return None
    return core_hours * prices.cpu_hour + gb * (prices.gb_month or 0.0)


def _named(growth: SearchGrowth) -> list[tuple[str, Growth]]:
    return [("search", growth.query_ms), ("build", growth.build_s), ("bytes", growth.index_bytes)]
