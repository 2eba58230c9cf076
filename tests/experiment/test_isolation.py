"""A method in a process of its own: however it ends, its row has failed and all others are there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from retrieval_bench.core import Setup
from retrieval_bench.experiment.isolation import LEAST_TIMEOUT_S, IsolatedExecutor, default_timeout_s
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.worker import packed, unpacked
from retrieval_bench.experiment.worker_process import WorkerEnded, WorkerProcess
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.plugins.loading import load_files
from retrieval_bench.records.files import load
from retrieval_bench.records.schema import ImageCounts, Record
from retrieval_bench.registry import DATASETS, EXTRACTORS, fill, parse
from retrieval_bench.system.child_process import why_it_ended
from retrieval_bench.system.progress import silent
from tests.support.command import call
from tests.support.faulty import FAULTY, begun, command, faulty_file
from tests.support.methods import MeanColor

pytestmark = pytest.mark.usefixtures("own_cache")
fill()

IN_PROCESSES = "whole runs in processes of their own"


def test_a_plan_is_the_same_in_another_process() -> None:
    methods = ("sift:words=16@trim+color+rrf", "phash", "hog+verify=10")
    plan = Plan(tuple(map(parse_method, methods)), parse(DATASETS, "folder:label=leaf"), Path("shop"), seed=3, k=(1, 2))
    again = unpacked(packed(plan))
    assert again.cache.root is plan.cache.root is None
    assert packed(again) == packed(plan)
    assert (again.methods, again.dataset, again.setup) == (plan.methods, plan.dataset, plan.setup)


def test_a_method_has_an_hour_and_a_second_an_image() -> None:
    images = ImageCounts(train=10, gallery=20, query=5)
    assert default_timeout_s(images) == LEAST_TIMEOUT_S + 35
    assert default_timeout_s(images, perturbed=6) == LEAST_TIMEOUT_S + 35 + 30


def test_how_a_process_ended_is_said_in_words() -> None:
    assert why_it_ended(3) == "ended itself with exit code 3"
    assert why_it_ended(-11).startswith("was ended by SIGSEGV")
    assert "memory may have run out" in why_it_ended(-9)
    assert why_it_ended(-250) == "was ended by signal 250"


def test_what_ends_processes_needs_one() -> None:
    done = call("run", "--isolate", "off", "--timeout", "5")
    assert done.exit_code == 2
    assert "leave --isolate off out" in done.stderr


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def sentences(record: Record) -> dict[str, str]:
    return {row.method: "" if row.error is None else row.error.sentence for row in record.rows}


@pytest.mark.slow(reason=IN_PROCESSES)
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_each_fault_ends_its_own_row_and_says_why(shelf: Path, tmp_path: Path) -> None:
    plugin = faulty_file(tmp_path / "faulty.py")
    faults = ("f-crash", "f-leave", "f-exit", "f-interrupt")
    names = ("phash", *faults, "f-fine", "hsv")
    words = ("--methods", ",".join(names), "--plugin", plugin, "--json")
    with begun(command(shelf, tmp_path / "out", *words)) as process:
        out, errors = process.communicate(timeout=100)
    assert process.returncode == 4, errors
    record = load(tmp_path / "out")
    assert json.loads(out) == json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (record.status, record.violations) == ("finished", ())
    assert [row.method for row in record.rows if row.status == "ok"] == ["phash", "f-fine", "hsv"]
    told = sentences(record)
    assert (
        told["f-crash"] == "its process was ended by SIGSEGV (an invalid memory access), in its step 'f-crash: gallery'"
    )
    assert told["f-leave"] == "its process ended itself with exit code 0, in its step 'f-leave: gallery'"
    assert told["f-exit"] == "SystemExit: 3"
    assert told["f-interrupt"].startswith("KeyboardInterrupt")
    traces = {row.method: row.error.traceback or "" for row in record.rows if row.error is not None}
    for method in ("f-crash", "f-exit", "f-interrupt"):
        assert "faulty.py" in traces[method], f"{method}: where it was"
    assert "Traceback" not in errors


@pytest.mark.long(reason="waits for as long as a busy machine may take to come to the method that hangs")
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_method_that_hangs_is_ended_and_the_next_has_a_new_process(
    shelf: Path, tmp_path: Path, no_plugin_stays: None
) -> None:
    load_files([faulty_file(tmp_path / "faulty.py")])
    hang, fine = map(parse_method, ("f-hang", "f-fine"))
    with IsolatedExecutor(timeout_s=12) as executor:
        executor.open(Plan((hang, fine), parse(DATASETS, "folder"), shelf), silent)
        error = executor.evaluate(hang, silent).row.error
        assert error is not None
        assert error.sentence.startswith(
            "its process was not done after 12 s and was ended, in its step 'f-hang: gallery'"
        )
        assert "faulty.py" in (error.traceback or ""), "where it was"
        assert executor.evaluate(fine, silent).row.status == "ok"


@pytest.mark.long(reason=IN_PROCESSES)
@pytest.mark.skipif(os.name != "posix", reason="working directories of other systems")
def test_what_a_method_does_to_its_process_is_felt_nowhere_else(shelf: Path, tmp_path: Path) -> None:
    plugin = faulty_file(tmp_path / "faulty.py")
    words = ["--methods", "f-move,f-see,f-late,f-eat,f-fine", "--plugin", plugin, "--max-memory", "1", "--json"]
    relative = command(Path(shelf.name), Path("out"), *words)
    with begun(relative, cwd=tmp_path) as process:
        out, errors = process.communicate(timeout=100)
    assert process.returncode == 4, errors
    told = sentences(load(tmp_path / "out"))
    assert told.pop("f-eat").startswith("its process took 1.")
    assert set(told.values()) == {""}, "a thread that one method left behind ends no other"
    assert json.loads(out)["dataset"]["root"] == shelf.name
    assert "printed by a method" in errors


@pytest.mark.long(reason="tries to load torch in little memory, which takes several processes")
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space of other systems")
def test_a_library_that_memory_does_not_suffice_for_ends_its_own_row_alone(shelf: Path, tmp_path: Path) -> None:
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2_500_000 << 10, 2_500_000 << 10))

    words = command(shelf, tmp_path / "out", "--methods", "phash,resnet18,dhash")
    with begun(words, preexec_fn=limit) as process:
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 4, errors
    told = sentences(load(tmp_path / "out"))
    assert told.pop("resnet18")
    assert set(told.values()) == {""}, "what is left of torch takes no memory from others"


@pytest.mark.slow(reason=IN_PROCESSES)
def test_the_record_is_the_same_with_and_without(shelf: Path, tmp_path: Path) -> None:
    records = {}
    for isolate in ("on", "off"):
        words = ("--methods", "phash,hsv+dhash+concat,oracle", "--perturb", "blur", "--severity", "2")
        done = call(*command(shelf, tmp_path / isolate, *words, "--isolate", isolate)[3:])
        assert done.exit_code == 0, done.stderr
        assert "phash: starting" in done.stderr
        records[isolate] = load(tmp_path / isolate)
    assert (tmp_path / "on" / "rankings.npz").read_bytes() == (tmp_path / "off" / "rankings.npz").read_bytes()
    on, off = records["on"], records["off"]
    for name in set(Record.model_fields) - {"created", "command", "environment", "rows"}:
        assert getattr(on, name) == getattr(off, name), name
    timed = {"times", "other_processes"}
    for row, other in zip(on.rows, off.rows, strict=True):
        assert row.model_dump(exclude=timed) == other.model_dump(exclude=timed)
        assert row.times.keys() == other.times.keys()


@pytest.mark.long(reason="a program of its own with workers of its own")
def test_a_program_that_registers_and_calls_the_command_line_needs_no_guard(shelf: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(FAULTY + "\nfrom benchmark.cli import app\napp()\n", encoding="utf-8")
    words = command(shelf, tmp_path / "out", "--methods", "f-leave,f-fine")
    with begun([words[0], str(program), *words[3:]]) as process:
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 4, errors
    assert [row.status for row in load(tmp_path / "out").rows] == ["failed", "ok"]


@pytest.mark.slow(reason=IN_PROCESSES)
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.long(reason="a gentler end")), signal.SIGKILL]
)
def test_no_child_outlives_the_run(number: int, shelf: Path, tmp_path: Path) -> None:
    plugin = faulty_file(tmp_path / "faulty.py")
    with begun(command(shelf, tmp_path / "out", "--methods", "phash,f-hang", "--plugin", plugin)) as process:
        assert process.stderr is not None
        assert any("f-hang: starting" in line for line in process.stderr)
        time.sleep(0.2)
        left = children(process)
        assert left, "it works in a child"
        began = time.monotonic()
        process.send_signal(number)
        psutil.wait_procs(left, timeout=2)
        assert time.monotonic() - began < 2
        assert not [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        process.communicate(timeout=60)
    record = load(tmp_path / "out")
    assert [row.method for row in record.rows] == ["phash"]
    if number != signal.SIGKILL:
        assert (process.returncode, record.status) == (130, "interrupted")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_worker_that_is_gone_is_told_at_once() -> None:
    worker = WorkerProcess(None)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker._process.pid, signal.SIGABRT)
    with pytest.raises(WorkerEnded, match="was ended by SIGABRT, before its first step"):
        worker.ask("anything", lambda *_: None, seconds=30)
    worker.end()


@pytest.mark.slow(reason=IN_PROCESSES)
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_new_worker_goes_on_with_the_same_images_or_not_at_all(
    shelf: Path, tmp_path: Path, no_plugin_stays: None
) -> None:
    load_files([faulty_file(tmp_path / "faulty.py")])
    leave, phash = map(parse_method, ("f-leave", "phash"))
    with IsolatedExecutor() as executor:
        executor.open(Plan((leave, phash), parse(DATASETS, "folder"), shelf), silent)
        assert [executor.evaluate(method, silent).row.status for method in (leave, phash, leave)] == [
            *("failed", "ok", "failed")
        ]
        shutil.copy(shelf / "train" / "product-0" / "0.png", shelf / "train" / "product-1" / "0.png")
        for _ in range(2):
            row = executor.evaluate(phash, silent).row
            assert row.error is not None
            assert row.error.sentence.endswith("the images or labels are no longer those that the run began with")


@pytest.mark.slow(reason=IN_PROCESSES)
@pytest.mark.skipif(os.name != "posix", reason="closing by number")
def test_closed_streams_close_nothing_else(shelf: Path, tmp_path: Path) -> None:
    words = command(shelf, tmp_path / "out", "--methods", "phash")
    closed = "import os, sys\nfor number in range(3): os.close(number)\nos.execv(sys.argv[1], sys.argv[1:])"
    with begun([sys.executable, "-c", closed, *words]) as process:
        process.communicate(timeout=100)
    assert process.returncode == 0
    assert load(tmp_path / "out").status == "finished"


@pytest.mark.slow(reason=IN_PROCESSES)
def test_a_name_that_only_this_process_knows_is_evaluated_in_it(shelf: Path, tmp_path: Path) -> None:
    @EXTRACTORS("known-here", family="color", about="for tests")
    def build(setup: Setup) -> MeanColor:
        return MeanColor()

    try:
        words = command(shelf, tmp_path / "out", "--methods", "known-here,random", "--isolate", "on")[3:]
        done = call(*words)
    finally:
        EXTRACTORS.replace(entry for entry in EXTRACTORS.own() if entry.name != "known-here")
    assert done.exit_code == 0, done.stderr
    assert "methods run in this process, where a crash of one ends all" in done.stderr
    assert [row.status for row in load(tmp_path / "out").rows] == ["ok", "ok"]
