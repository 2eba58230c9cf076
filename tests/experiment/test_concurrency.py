"""Several queries at once: how many there are, what each one's time is, and what is said of it."""

from __future__ import annotations

import threading
import time

import pytest

from retrieval_bench.experiment.concurrency import concurrent
from retrieval_bench.records.schema import Settings


def test_so_many_are_under_way_at_once_and_none_is_asked_twice_in_a_turn() -> None:
    seen: list[int] = []
    under_way, most, lock = 0, {}, threading.Lock()

    def answer(number: int) -> None:
        nonlocal under_way
        with lock:
            seen.append(number)
            under_way += 1
            most[len(seen)] = under_way
        time.sleep(0.005)
        with lock:
            under_way -= 1

    times = concurrent(answer, 7, (3,), threads=2, budget_s=0.05)
    assert max(most.values()) == 3
    assert sorted(seen) == sorted(number % 7 for number in range(len(seen)))
    # Three at once for 0.05 s and more, each 5 ms long: no fewer than one in line would be, no more than three.
    throughput = times["concurrency_3_throughput"]
    assert throughput.unit == "queries/s"
    assert throughput.n == len(seen) - 3
    assert throughput.value <= 3 / 0.005
    assert 5 <= times["concurrency_3_p50"].value < 1000


def test_a_percentile_needs_its_samples_and_each_level_has_its_times() -> None:
    times = concurrent(lambda number: time.sleep(0.02), 5, (1, 2), threads=2, budget_s=0.05)
    assert set(times) == {f"concurrency_{n}_{part}" for n in (1, 2) for part in ("p50", "p95", "p99", "throughput")}
    assert times["concurrency_1_p99"].value is None


def test_an_error_of_a_query_is_raised() -> None:
    def answer(number: int) -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        concurrent(answer, 3, (2,), threads=2, budget_s=0.05)


def test_settings_without_it_are_written_as_before() -> None:
    settings = Settings(
        methods=("phash",),
        k=(1,),
        seed=0,
        weights="auto",
        device="cpu",
        threads=1,
        limit=None,
        backend="exact",
        depth=1,
    )
    assert "concurrency" not in settings.model_dump()
    timed = settings.model_copy(update={"concurrency": (1, 4)})
    assert Settings.model_validate(timed.model_dump()).concurrency == (1, 4)
    assert Settings.model_validate_json(timed.model_dump_json()).concurrency == (1, 4)
