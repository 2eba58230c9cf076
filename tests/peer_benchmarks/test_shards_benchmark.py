"""The measurement of sharded search: what it says, and that it compares bytes. Workers are measured by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmark.distributed import app
from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.peer_benchmarks.shards import ShardTimes, as_data, lines, refuse_other_bytes


def test_the_verdict_is_of_medians() -> None:
    times = ShardTimes([2.0, 2.2, 9.0], [2.0, 2.0, 1.0], 3.0, 0.5)
    said = "\n".join(lines(times, 1000, 8, 100, 10, 2))
    assert "met      workers >= 1.0 x one process: 1.100 x" in said
    assert "NOT MET" not in said
    assert "took 50 % of the cores meanwhile. The figures are not reliable." in said
    assert as_data(times, schema=1)["times_as_fast"] == pytest.approx(1.1)
    assert "NOT MET" in "\n".join(lines(ShardTimes([1.0], [2.0], 3.0, None), 1000, 8, 100, 10, 2))


def test_one_bit_is_a_difference() -> None:
    one = Ranking(np.array([[1, 2]]), np.array([[0.0, 1.0]], np.float32))
    refuse_other_bytes(one, one)
    with pytest.raises(BenchError, match="other rows"):
        refuse_other_bytes(one, Ranking(np.array([[2, 1]]), one.distances))
    with pytest.raises(BenchError, match="other distances"):
        refuse_other_bytes(one, Ranking(one.indices, np.array([[-0.0, 1.0]], np.float32)))


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(app, ["--rows", "1000", "--dim", "4", "--queries", "5", "--rounds", "1"])
    assert done.exit_code == 2
    assert "needs Ray" in done.stderr
