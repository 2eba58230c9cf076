"""A folder has one run at a time; a lock ends with the process that holds it, and with nothing else."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.records.files import claimed
from retrieval_bench.system import locks
from tests.support.faults import LONG

POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and signals are those of POSIX")
HOLD = """
import sys, time
from pathlib import Path
from retrieval_bench.records.files import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("left", ["", "1", "99999999999999999999", "our own", "x" * 100_000, "\0\n"])
def test_what_a_lock_file_holds_is_not_believed(tmp_path: Path, left: str) -> None:
    (tmp_path / ".lock").write_text(str(os.getpid()) if left == "our own" else left)
    with claimed(tmp_path), pytest.raises(BenchError, match="another run"), claimed(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


@POSIX
def test_what_is_no_file_is_a_sentence(tmp_path: Path) -> None:
    made: dict[str, Callable[[Path], object]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "link": lambda file: file.symlink_to(tmp_path / "elsewhere"),
    }
    for name, make in made.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / ".lock")
        with pytest.raises(BenchError, match=r"--out .*: cannot be written"), claimed(tmp_path / name):
            pass
        assert os.path.lexists(tmp_path / name / ".lock")
    assert not (tmp_path / "elsewhere").exists()


@POSIX
@pytest.mark.slow(reason="starts two processes")
def test_the_lock_of_a_killed_run_is_free_though_nobody_has_buried_it(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "new"):
        with subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "held\n"
            with pytest.raises(BenchError, match="another run"), claimed(out):
                pass
            os.kill(owner.pid, signal.SIGKILL)
            owner.stdout.read()  # it ends with the process, which is a zombie from here on
            assert (out / ".lock").exists()
            with claimed(out):
                pass


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "fcntl" if sys.platform != "win32" else "msvcrt", Locks(none))
    with claimed(tmp_path):
        pass
    (sentence,) = [record.getMessage() for record in caplog.records]
    assert "this file system has no locks" in sentence


class Locks:
    """Of fcntl and msvcrt, what is called."""

    LOCK_EX = LOCK_NB = LK_NBLCK = 1

    def __init__(self, call: Callable[..., None]) -> None:
        self.flock = self.locking = call


def test_any_other_error_of_a_lock_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(locks, "fcntl" if sys.platform != "win32" else "msvcrt", Locks(broken))
    with pytest.raises(BenchError, match="cannot be written"), claimed(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no open file can be removed there")
def test_a_lock_whose_file_was_removed_by_its_holder_is_not_won(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race of four starters, step by step: opened before, locked after the holder has gone."""
    really, removed = locks._lock, []

    def late(descriptor: int, path: Path) -> None:
        if not removed:
            removed.append(1)
            path.unlink()
        really(descriptor, path)

    monkeypatch.setattr(locks, "_lock", late)
    with locks.held(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
        with pytest.raises(locks.Taken), locks.held(tmp_path / "lock"):
            pass


def contend(folder: Path, rounds: int, stale: bool, barrier: Any, inside: Any, wins: Any, clashes: Any) -> None:
    """One of several starters, in each round at the same moment as the others."""
    for number in range(rounds):
        out = folder if stale else folder / str(number % 7)
        if stale and number % 5 == 0:
            (out / ".lock").touch()
        barrier.wait(60)
        try:
            with claimed(out):
                with inside:
                    inside.value += 1
                    clashes.value += inside.value > 1
                    wins.value += 1
                barrier.wait(60)  # held until all others have tried
                with inside:
                    inside.value -= 1
        except BenchError:
            barrier.wait(60)


def test_of_four_starters_one_wins_each_round(tmp_path: Path) -> None:
    """A lock belongs to an open file, so that threads contend as processes do."""
    parties = Counted(), Counted(), Counted()
    for stale in (False, True):
        barrier = threading.Barrier(4)
        arguments = (tmp_path, 30, stale, barrier, *parties)
        threads = [threading.Thread(target=contend, args=arguments) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [party.value for party in parties] == [0, 60, 0]


class Counted:
    """A number with a lock, as multiprocessing has it."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


ROUNDS = 10_000 if LONG else 100


@pytest.mark.slow(reason="starts four processes, which contend 10,000 times for each kind of lock in `make faults`")
@pytest.mark.parametrize("stale", [False, True])
def test_of_four_processes_one_wins_each_round(tmp_path: Path, stale: bool) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    numbers = [context.Value("i", 0) for _ in range(3)]
    arguments = (tmp_path, ROUNDS, stale, barrier, *numbers)
    processes = [context.Process(target=contend, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [number.value for number in numbers] == [0, ROUNDS, 0]
