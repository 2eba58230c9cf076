"""A sweep: tuned on train, reported on queries, kept beside its record and shown in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmark.sweep import _values
from retrieval_bench.core import BenchError
from retrieval_bench.experiment.sweep import front
from retrieval_bench.records.sweeps import Point, load, load_all
from retrieval_bench.registry import BACKENDS, parse
from retrieval_bench.report.evidence import gather
from retrieval_bench.report.page import render
from retrieval_bench.report.sweeps import advice, grid
from tests.support.command import call, run
from tests.support.shop import shelf_at

pytest.importorskip("faiss", reason='needs pip install "retrieval-bench[ann]"')


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swept")
    shelf = shelf_at(folder / "shelf")
    record = folder / "record"
    assert run(shelf, record, "--methods", "random,hsv,color").exit_code == 0
    told = call("sweep", record, "--backend", "faiss:ivf:lists=4", "--over", "probes=1..4", "--method", "hsv")
    assert told.exit_code == 0, told.output
    assert "hsv on faiss:ivf:lists=4: probes from 1 to 4" in told.output
    return record


def test_values_cost_what_they_find(swept: Path) -> None:
    (sweep,) = load_all(swept)
    assert [point.value for point in sweep.points] == [1, 2, 4]
    shares = [point.found for point in sweep.points]
    assert shares == sorted(shares)
    assert shares[-1] == sweep.points[-1].found_on_train == 1  # all lists are read
    assert sweep.points[-1].scores == pytest.approx(sweep.exact_scores)
    assert sweep.points[-1].on_front or sweep.points[1].found_on_train == 1
    record = json.loads((swept / "run.json").read_text())
    row = next(row for row in record["rows"] if row["method"] == "hsv")
    assert sweep.exact_scores == pytest.approx({name: row["scores"][name] for name in ("accuracy", "map@r")})
    chosen = next(point for point in sweep.points if point.value == sweep.chosen)
    assert chosen.found_on_train >= sweep.wanted


def test_it_is_a_picture_and_a_section_of_the_report(swept: Path) -> None:
    (sweep,) = load_all(swept)
    assert len({len(line) for line in grid(sweep)}) == 1
    assert f"probes={sweep.chosen:g}" in advice(sweep)
    assert next((swept / "sweeps").glob("*.png")).read_bytes().startswith(b"\x89PNG")
    page = render([gather(swept, with_dataset=False)])
    assert "Approximate search: sweeps" in page
    assert "probes=2" in page


def test_where_nothing_finds_enough_no_value_is_chosen(swept: Path) -> None:
    (sweep,) = load_all(swept)
    assert "finds most" in advice(sweep.model_copy(update={"chosen": None}))


def test_the_front_is_what_nothing_beats() -> None:
    def point(value: float, found: float, rate: float) -> Point:
        return Point(
            backend="x", value=value, build_s=0, index_bytes=0, found_on_train=found, rate_on_train=rate, found=found,
            scores={}, differences={}, rate=rate, p50_ms=1,
        )  # fmt: skip

    assert front([point(1, 0.5, 9), point(2, 0.5, 8), point(3, 0.9, 5), point(4, 0.9, 5), point(5, 0.8, 4)]) == {
        1,
        3,
        4,
    }


@pytest.mark.parametrize(
    ("over", "values"), [("ef=16..128", (16, 32, 64, 128)), ("ef=5..11", (5, 10, 11)), ("m=32,8", (8, 32))]
)
def test_values_are_doubled_or_listed(over: str, values: tuple[int, ...]) -> None:
    BACKENDS.fill_with_own()
    assert _values(parse(BACKENDS, "faiss:hnsw"), over) == (over.partition("=")[0], values)


def test_an_option_that_the_backend_has_already_is_not_varied() -> None:
    BACKENDS.fill_with_own()
    with pytest.raises(BenchError, match="faiss:hnsw:ef=3 says ef already, and --over ef=8,16 varies it"):
        _values(parse(BACKENDS, "faiss:hnsw:ef=3"), "ef=8,16")


@pytest.mark.parametrize(
    ("over", "sentence"),
    [
        ("ef", "write an option of faiss with its values"),
        ("efs=1..4", "write an option of faiss with its values"),
        ("ef=9..2", "A..B are whole numbers above 0, the first smaller"),
        ("ef=8,8", "different numbers"),
        ("ef=0..4", "A..B are whole numbers"),
        ("ef=0,4", "ef"),
    ],
)
def test_what_is_no_range_is_refused(over: str, sentence: str) -> None:
    BACKENDS.fill_with_own()
    with pytest.raises(BenchError, match=sentence):
        _values(parse(BACKENDS, "faiss:hnsw"), over)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--backend", "int8", "--over", "ef=1..2"), "it is exact and has nothing to sweep over"),
        (("--backend", "faiss:hnsw", "--over", "ef=1..2", "--method", "hog"), "the record has hsv, color"),
    ],
)
def test_a_wrong_sweep_is_refused(swept: Path, words: tuple[str, ...], sentence: str) -> None:
    told = call("sweep", swept, *words)
    assert told.exit_code == 2
    assert sentence in " ".join(told.output.split())


def test_a_broken_sweep_is_told(swept: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"method": 3}')
    with pytest.raises(BenchError, match="is no sweep"):
        load(file)
