"""Costs: lines through measured sizes, rows that are grown, arithmetic by hand, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.choosing.cost import Load, Machine, Prices, cost_of
from retrieval_bench.choosing.growth import Growth, fit
from retrieval_bench.choosing.measured_growth import SearchGrowth, grown, measure, sizes_up_to
from retrieval_bench.core import BenchError
from retrieval_bench.records.schema import Features, Row, TimeFigure
from retrieval_bench.search.reference import NumpyIndex
from tests.support.command import call, run
from tests.support.shop import shelf_at

# --- lines ------------------------------------------------------------------------------------------------------------

SIZES = (1000, 2000, 4000, 8000, 16000)


@pytest.mark.parametrize(
    ("cost", "shape"),
    [
        (lambda n: 3 + 0.002 * n, "n"),
        (lambda n: 0.1 + 2 * math.log(n), "log n"),
        (lambda n: 1e-5 * n * math.log(n), "n log n"),
    ],
)
def test_a_line_finds_its_shape(cost, shape: str) -> None:
    found = fit(SIZES, [cost(n) for n in SIZES], ("n", "log n", "n log n"))
    assert found.shape == shape
    assert found.residual < 1e-6
    assert found.at(10_000_000) == pytest.approx(cost(10_000_000), rel=1e-5)
    assert found.far(160_001)
    assert not found.far(160_000)


def test_what_does_not_lie_on_the_line_is_told() -> None:
    values = [1.0, 2.0, 4.0, 16.0, 16.0]  # the fourth is twice what it should be
    assert fit(SIZES, values, ("n",)).residual > 0.2
    falling = fit(SIZES, [5.0, 4.0, 3.0, 2.0, 1.0])
    assert falling.slope == 0  # no cost falls with n


def test_too_few_sizes_are_no_line() -> None:
    with pytest.raises(ValueError, match="a fit needs 4"):
        fit(SIZES[:3], [1.0, 2.0, 3.0])


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8])
def test_grown_rows_are_between_two_of_the_given(dtype) -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 100, (7, 5)).astype(dtype)
    more = grown(rows, 50, 1)
    assert more.shape == (50, 5)
    assert more.dtype == dtype
    np.testing.assert_array_equal(more[:7], rows)
    np.testing.assert_array_equal(more, grown(rows, 50, 1))
    if dtype == np.uint8:
        assert not (more & ~np.bitwise_or.reduce(rows)).any()
    else:
        assert (more >= rows.min(axis=0)).all()
        assert (more <= rows.max(axis=0)).all()
    assert len(np.unique(more, axis=0)) > 20
    np.testing.assert_array_equal(grown(rows, 3, 1), rows[:3])


def test_every_size_is_measured() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    seen: list[int] = []

    def build(some, distance):
        seen.append(len(some))
        return NumpyIndex(some, distance)

    growth = measure(build, rows, rows[:2], "cosine", sizes_up_to(320), k=3, threads=1)
    assert seen == [20, 40, 80, 160, 320]
    assert growth.index_bytes.at(1000) == pytest.approx(1000 * 8 * 8)  # float64


# --- arithmetic -------------------------------------------------------------------------------------------------------


def flat(value: float) -> Growth:
    return Growth(SIZES, (value,) * 5, "n", value, 0.0, 0.0)


def a_row(**times: float) -> Row:
    features = Features(
        distance="cosine", dim=4, dtype="float32", bytes_per_image=1000, index_bytes=1, zero_rows=0, computed=1,
        from_cache=0, fit="nothing to learn", learned_from=None,
    )  # fmt: skip
    return Row(
        method="color", family="color", status="ok", features=features,
        times={name: TimeFigure(value=value, unit="ms") for name, value in times.items()},
    )  # fmt: skip


def test_a_cost_by_hand() -> None:
    """40 images/s on 2 threads are 50 ms of a core; 30 ms of search: 80 ms a query, 50 a second, 60 % busy."""
    growth = SearchGrowth(flat(30.0), flat(7200.0), flat(5e9))
    row = a_row(extract_throughput=40.0, decode_p50=4.0, extract_p50=40.0)
    cost = cost_of(row, growth, 2, Machine(4, 16e9), Load(1e6, 50.0), Prices(0.05, 0.02, 10.0))
    assert cost.query_ms == pytest.approx(80)
    assert cost.latency_ms == pytest.approx(74)
    assert cost.cores == pytest.approx(50 * 0.08 / 0.6)
    assert cost.gb == pytest.approx(6)
    assert cost.machines == 2  # 6.7 cores of 4
    assert cost.extract_h == pytest.approx(1e6 * 0.05 / 4 / 3600)
    assert cost.money_a_month == pytest.approx(2 * 4 * 730 * 0.05 + 6 * 0.02)
    assert cost.money_once == pytest.approx((cost.extract_h + 2) * 4 * 0.05)
    assert cost.kwh_a_month == pytest.approx(50 * 0.08 * 730 * 10 / 1e3)
    assert cost.far == ("search", "build", "bytes")
    memory = cost_of(row, growth, 2, Machine(64, 2e9), Load(1e5, 0.1), Prices())
    assert memory.machines == 4  # 5.1 GB in 0.8 of 2 GB each
    assert memory.money_a_month is None
    assert memory.far == ()


def test_a_row_without_its_rate_has_no_cost() -> None:
    growth = SearchGrowth(flat(1), flat(1), flat(1))
    with pytest.raises(BenchError, match="does not say how long describing an image takes"):
        cost_of(a_row(), growth, 1, Machine(1, 1.0), Load(1, 1), Prices())


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    assert run(shelf_at(folder / "shelf"), folder / "record", "--methods", "random,hsv,crop-resistant").exit_code == 0
    return folder / "record"


def test_the_command_costs_every_method_that_can_be_grown(record: Path, tmp_path: Path) -> None:
    words = (
        "--images",
        "1e6",
        "--price",
        "cpu-hour=0.04,gb-month=0.02",
        "--grow-to",
        256,
        "--json",
        tmp_path / "c.json",
    )
    told = call("cost", record, *words, "--backends", "int8")
    assert told.exit_code == 0, told.output
    assert "hsv on int8" in told.output
    assert "left out: crop-resistant" in " ".join(told.output.split())
    facts = json.loads((tmp_path / "c.json").read_text())
    assert [one["method"] for one in facts["costs"]] == ["hsv", "hsv on int8"]
    assert facts["growth"]["hsv"]["query_ms"]["sizes"] == [16, 32, 64, 128, 256]
    assert all(one["far"] for one in facts["costs"])


def test_what_was_measured_is_shown_when_the_rest_is_interrupted(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def once(*args, **options):
        if done:
            raise KeyboardInterrupt
        done.append(measure(*args, **options))
        return done[0]

    monkeypatch.setattr("retrieval_bench.choosing.measured_growth.measure", once)
    file = tmp_path / "c.json"
    words = ("--images", "1e6", "--grow-to", 64, "--methods", "hsv", "--backends", "int8,numpy", "--json", file)
    told = call("cost", record, *words)
    assert told.exit_code == 130
    assert "hsv" in told.output
    assert [one["method"] for one in json.loads(file.read_text())["costs"]] == ["hsv"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--price", "cpu=3"), "write cpu-hour=0.04,gb-month=0.02"),
        (("--price", "gb-month=3"), "gb-month alone prices no machine"),
        (("--price", "cpu-hour=1" + 400 * "0"), "--price cpu-hour: must be at most 1,000,000,000,000,000"),
        (("--images", "1e308"), "Invalid value for '--images'"),
        (("--queries-per-second", "1e308"), "Invalid value for '--queries-per-second'"),
        (("--watts", "1e308"), "Invalid value for '--watts'"),
        (("--methods", "hog"), "the record has hsv, crop-resistant"),
        (("--methods", ""), "--methods '' names no method; leave it out for all of the record's but controls"),
        (("--methods", " , "), "--methods ' , ' names no method"),
        (("--methods", "crop-resistant"), "nothing was left whose cost could be told"),
    ],
)
def test_a_wrong_question_is_refused(record: Path, words: tuple[str, ...], sentence: str) -> None:
    told = call("cost", record, "--images", "1e6", "--grow-to", 64, *words)
    assert told.exit_code == 2
    assert sentence in " ".join(told.output.split())
