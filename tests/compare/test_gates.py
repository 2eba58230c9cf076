"""Which way of a time is worse, and how often both runs must have measured it before a gate judges it."""

from __future__ import annotations

import pytest

from retrieval_bench.compare.diff import DiffVerdict, diff
from retrieval_bench.compare.gates import bigger_is_better, parse_gate
from retrieval_bench.records.schema import Row, TimeFigure
from tests.support.records import record, row


def with_time(value: float, unit: str, n: int | None = 9) -> Row:
    return row(times={"work": TimeFigure(value=value, unit=unit, n=n)})


def gated(before: Row, after: Row, gate: str) -> DiffVerdict:
    return diff(record(before), record(after), gates=[parse_gate(gate)])


@pytest.mark.parametrize("unit", ["images/s", "queries/s"])
def test_less_work_a_second_is_worse(unit: str) -> None:
    assert bigger_is_better(unit)
    assert not gated(with_time(100, unit), with_time(50, unit), "work:20%").passed
    assert gated(with_time(50, unit), with_time(100, unit), "work:20%").passed


@pytest.mark.parametrize("unit", ["ms", "s", "MiB"])
def test_more_time_or_memory_is_worse(unit: str) -> None:
    assert not bigger_is_better(unit)
    assert not gated(with_time(50, unit), with_time(100, unit), "work:20%").passed
    assert gated(with_time(100, unit), with_time(50, unit), "work:20%").passed


@pytest.mark.parametrize(("first", "second"), [(1, 9), (9, 1), (None, 9), (9, None)])
def test_what_one_of_the_two_runs_measured_once_is_not_judged(first: int | None, second: int | None) -> None:
    verdict = gated(with_time(50, "ms", first), with_time(100, "ms", second), "work_ms:20%")
    assert verdict.passed
    assert "measures it once" in verdict.unjudged[0]
    assert not gated(with_time(50, "ms"), with_time(100, "ms", 2), "work_ms:20%").passed
