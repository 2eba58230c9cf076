"""`run --resume`: what was finished stays, is not run again, and the end is that of a run that nothing interrupted."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.runner import run
from retrieval_bench.records.files import load
from retrieval_bench.records.schema import Record, Row
from tests.support.faulty import begun, command
from tests.support.methods import MeanColor, spec
from tests.support.runs import plan
from tests.support.shop import shop

pytestmark = pytest.mark.usefixtures("own_cache")

RUNS = "whole runs"
NAMES = ("hsv", "phash", "mean", "random", "oracle")
KILLS = int(os.environ.get("RETRIEVAL_BENCH_KILLS", "1"))
"""How often the run is killed; 30 where the fault suite asks for more than an ordinary test."""


class Stopping(MeanColor):
    """Interrupts the run when the method of this name has been built so often."""

    left = 0

    def transform(self, images):
        if Stopping.left:
            Stopping.left -= 1
            raise KeyboardInterrupt
        return super().transform(images)


def planned(*, seed: int = 0):
    return plan(shop(), *(spec("mean", Stopping) if name == "mean" else name for name in NAMES), seed=seed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(planned(), folder)


def interrupted(folder: Path) -> None:
    Stopping.left = 1
    with pytest.raises(KeyboardInterrupt):
        run(planned(), folder)


@pytest.mark.slow(reason=RUNS)
def test_finished_rows_are_kept_and_the_end_is_the_same(whole: tuple[Path, Record], tmp_path: Path) -> None:
    folder, expected = whole
    interrupted(tmp_path)
    before = load(tmp_path)
    assert [row.method for row in before.rows] == ["hsv", "phash"]
    rows: list[Row] = []
    record = run(planned(), tmp_path, resume=True, on_row=rows.append)
    assert [row.method for row in rows] == ["mean", "random", "oracle"]
    assert record.rows[:2] == before.rows, "times too: they are not measured again"
    assert (tmp_path / "rankings.npz").read_bytes() == (folder / "rankings.npz").read_bytes()
    for name in ("status", "comparisons", "controls", "violations", "rankings", "ceilings"):
        assert getattr(record, name) == getattr(expected, name), name
    assert record.created == before.created
    assert not (tmp_path / "earlier").exists()
    assert load(tmp_path) == record


@pytest.mark.slow(reason=RUNS)
def test_a_row_that_failed_runs_again_between_those_that_did_not(
    whole: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Stopping, "transform", lambda self, images: 1 / 0)
        assert [row.status for row in run(planned(), tmp_path).rows] == ["ok", "ok", "failed", "ok", "ok"]
    rows: list[Row] = []
    record = run(planned(), tmp_path, resume=True, on_row=rows.append)
    assert [row.method for row in rows] == ["mean"]
    assert [row.method for row in record.rows] == list(NAMES)
    assert (tmp_path / "rankings.npz").read_bytes() == (whole[0] / "rankings.npz").read_bytes()
    assert record.comparisons == whole[1].comparisons


@pytest.mark.slow(reason=RUNS)
def test_a_run_of_other_settings_is_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(BenchError, match="of another run: seed 0 there, 1 here; leave --resume out"):
        run(planned(seed=1), tmp_path, resume=True)
    with pytest.raises(BenchError, match="of another run: concurrency none there, 1, 2 here"):
        run(replace(planned(), concurrency=(1, 2)), tmp_path, resume=True)
    with pytest.raises(BenchError, match="of another run: fingerprint of the dataset"):
        run(plan(shop(4, 5), "hsv", "phash"), tmp_path, resume=True)
    assert (tmp_path / "run.json").read_bytes() == before
    monkeypatch.setattr("retrieval_bench.evaluation.uncertainty.DEFINITION", "another one")
    with pytest.raises(BenchError, match="of another run: intervals are defined otherwise"):
        run(planned(), tmp_path, resume=True)


@pytest.mark.slow(reason=RUNS)
def test_what_cannot_be_read_is_run_again_and_nothing_to_resume_is_no_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        first = run(plan(shop(), "random"), tmp_path, resume=True)
    assert "holds no record yet; all methods run" in caplog.text
    (tmp_path / "rankings.npz").write_bytes(b"torn")
    again = run(plan(shop(), "random"), tmp_path, resume=True)
    assert "all methods run again" in caplog.text
    assert again.rankings == first.rankings


def first_method(process: subprocess.Popen[str]) -> float:
    """Waits until the first method starts; when that was."""
    assert process.stderr is not None
    assert any(": starting" in line for line in process.stderr)
    return time.monotonic()


@pytest.mark.parametrize(
    "kills", [pytest.param(KILLS, marks=pytest.mark.long(reason="runs that are killed at random"))]
)
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(kills: int, shelf: Path, tmp_path: Path) -> None:
    names = ["phash", "hsv", "dhash", "random", "ahash", "lab", "block-mean", "oracle"]
    words = ("--methods", ",".join(names))
    with begun(command(shelf, tmp_path / "whole", *words)) as process:
        began = first_method(process)
        process.communicate()
    takes = time.monotonic() - began
    assert process.returncode == 0
    expected = (tmp_path / "whole" / "rankings.npz").read_bytes()
    moments = random.Random(7)
    counts = []
    for number in range(kills):
        out = tmp_path / f"killed-{number}"
        with begun(command(shelf, out, *words)) as process:
            first_method(process)
            time.sleep(takes * moments.random())
            process.send_signal(signal.SIGKILL)
            process.communicate()
        finished = [row.method for row in load(out).rows] if (out / "run.json").exists() else []
        with begun(command(shelf, out, *words, "--resume")) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert (out / "rankings.npz").read_bytes() == expected, f"killed after {finished}"
        assert load(out).status == "finished"
        started = re.findall(r"^(\S+): starting$", errors, re.M)
        assert not set(started) & set(finished), "a finished method ran again"
        assert set(started) | set(finished) == set(names)
        counts.append(len(finished))
    print(f"{kills} kills, after so many finished methods: {sorted(counts)}")
