"""Idle threads of OpenMP sleep unless the user wants it otherwise, and other processes' share of the cores is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from retrieval_bench.system.other_processes import OtherProcesses
from retrieval_bench.system.passive_waiting import wait_passively, waiting

NAMES = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT")


@pytest.fixture(autouse=True)
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_libraries_are_asked_to_let_threads_sleep() -> None:
    assert waiting() == "as the libraries do by default"
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert waiting() == "passive"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_asked_for_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "7")
    wait_passively()
    assert waiting() == f"{name}=7"


def test_the_command_line_asks_before_anything_is_loaded() -> None:
    code = (
        "import benchmark.cli, os, sys; benchmark.cli.app = lambda **options: print("
        "os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules, 'cv2' in sys.modules); benchmark.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["PASSIVE", "False", "False"]


@pytest.mark.slow(reason="a second of work")
def test_the_share_of_others_is_measured() -> None:
    with OtherProcesses() as quiet:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            pass
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with OtherProcesses() as others:
            time.sleep(0.6)
    finally:
        busy.kill()
        busy.wait()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with OtherProcesses() as short:
        pass
    assert short.share is None
    assert quiet.share is not None
    assert others.share is not None
    assert others.share > 0.3 / cores
