from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from retrieval_bench.compare import ab_timing
from retrieval_bench.compare.gates import parse_gate
from retrieval_bench.core import BenchError


def told(monkeypatch: pytest.MonkeyPatch, figures: Any) -> list[str]:
    """No command is run: figures(side, turn) is what it took. Returns the order in which the sides were asked."""
    order: list[str] = []

    def timed(argv: list[str]) -> dict[tuple[str, str], float]:
        order.append(argv[0])
        return figures(argv[0], (len(order) - 1) // 2)

    monkeypatch.setattr(ab_timing, "_timed", timed)
    return order


def test_ratios_are_paired_so_that_drift_drops_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def drifting(side: str, turn: int) -> dict[tuple[str, str], float]:
        took = 1.5**turn * (1.2 if side == "head" else 1.0)
        return {("wall_s", "s"): took, ("x", "images/s"): 1 / took}

    order = told(monkeypatch, drifting)
    wall, rate = ab_timing.race(["base"], ["head"], 6)
    assert (wall.ratio, wall.low, wall.high) == pytest.approx((1.2, 1.2, 1.2))
    assert rate.ratio == pytest.approx(1 / 1.2)
    assert wall.rounds == 6
    assert len(order) == 14, "one round of each is not counted"
    assert order[:4] == ["head", "base", "base", "head"], "being first favours neither"
    for gate, fails in (("wall_s:19%", True), ("wall_s:21%", False)):
        assert wall.worse_than(parse_gate(gate)) is fails
        assert rate.worse_than(parse_gate(gate)) is fails


def test_noise_widens_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, lambda side, turn: {("wall_s", "s"): 1.0 + (turn % 3) * (side == "head")})
    (wall,) = ab_timing.race(["base"], ["head"], 6)
    assert wall.low < wall.ratio < wall.high
    assert wall.low < 1.3 < wall.high
    assert not wall.worse_than(parse_gate("wall_s:20%"))


def test_commands_are_run_and_records_read(tmp_path: Path) -> None:
    record = {"rows": [{"method": "sift", "times": {"search_p50": {"value": 2.0, "unit": "ms"}}}]}
    script = tmp_path / "prints.py"
    script.write_text(f"print({json.dumps(json.dumps(record))})")
    ratios = ab_timing.race([sys.executable, str(script)], [sys.executable, str(script)], 3)
    assert [ratio.name for ratio in ratios] == ["wall_s", "sift search_ms_p50"]
    assert ratios[1].ratio == pytest.approx(1)
    assert ratios[0].base > 0


def test_what_cannot_be_raced_is_refused(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(BenchError, match=r"exit code 1 \(no such luck\)"):
        ab_timing.race(fails, fails, 3)
    with pytest.raises(BenchError, match="cannot be run"):
        ab_timing.race([str(tmp_path / "nothing")], [str(tmp_path / "nothing")], 3)
    with pytest.raises(BenchError, match="at least 3"):
        ab_timing.race(fails, fails, 2)
    with pytest.raises(BenchError, match="no bin/python"):
        ab_timing.argv_of(str(tmp_path), [])
    with pytest.raises(BenchError, match="in quotes"):
        ab_timing.argv_of("say 'what", [])
    with pytest.raises(BenchError, match="empty"):
        ab_timing.argv_of(" ", [])
    with pytest.raises(BenchError, match="the command is empty"):
        ab_timing.argv_of("", [])


def test_an_environment_runs_what_is_installed_in_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    argv = ab_timing.argv_of(str(tmp_path), ["--methods", "phash"])
    assert argv == [
        str(tmp_path / "bin" / "python"),
        *["-m", "benchmark", "run", "--recompute", "--json", "--methods", "phash"],
    ]
    assert ab_timing.argv_of("sleep 1", []) == ["sleep", "1"]
