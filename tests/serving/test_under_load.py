"""A service in a process of its own, loaded, changed and killed; `benchmark.serving_load` does it at full size."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.indexing.index import StoredIndex
from retrieval_bench.peer_benchmarks import serving as under_load
from retrieval_bench.serving.client import SearchClient, ServiceRefused

pytestmark = pytest.mark.long(reason="starts services and loads them for many seconds")


@pytest.fixture
def folder(index_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index_folder, tmp_path / "index"))


def test_every_answer_is_of_one_state_while_items_come_and_go(folder: Path, shelf: Path) -> None:
    pictures = [file.read_bytes() for file in sorted((shelf / "query").rglob("*.png"))]
    with under_load.served([str(folder)]) as client:
        parallel = under_load.in_parallel(client, pictures, 10, 5.0, {})
        changes = under_load.changed_under_searches(client, pictures, 8, 100, under_load.unlike_others, at_once=20)
        left = client.items().total
    assert not parallel.refused
    assert len(parallel.ms) > 20
    assert parallel.percentile(50) <= parallel.percentile(99)
    assert (changes.torn, changes.errors) == (0, [])
    assert (changes.added, changes.removed) == (100, 100)
    assert changes.searches > 20
    assert left == 60


def add_for_ever(client: SearchClient, numbers: Iterator[int], acknowledged: list[str]) -> None:
    while True:
        names = [f"mine/{next(numbers)}" for _ in range(3)]
        data = [under_load.unlike_others(int(name.partition("/")[2])) for name in names]
        added = client.add(data, id=names, label="mine", duplicates="add")
        assert not added.changes[0].error
        acknowledged += names


@pytest.mark.skipif("sys.platform == 'win32'", reason="kill -9 is not there")
def test_what_was_acknowledged_is_there_after_kill_9(folder: Path) -> None:
    rng = np.random.default_rng()  # another moment each time that the test runs
    acknowledged: list[str] = []
    numbers = iter(range(10_000))
    for _ in range(4):
        command = [sys.executable, "-m", "benchmark", "serve", str(folder), "--port", "0", "--rate", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            found = re.match(r"ready: (\S+)", process.stdout.readline())
            assert found is not None
            client = SearchClient(found[1])
            threading.Timer(rng.uniform(0.05, 1.5), process.send_signal, [signal.SIGKILL]).start()
            with pytest.raises(ServiceRefused, match="no service answers"):
                add_for_ever(client, numbers, acknowledged)
            client.close()
            assert process.wait() == -signal.SIGKILL
        with StoredIndex.open(folder) as index:
            snapshot = index.snapshot()
            assert all(snapshot.by_id(name) is not None for name in acknowledged)
            assert index.verify().problems == ()
            assert (len(snapshot) - 60) % 3 == 0, "each request is there as a whole or not at all"
    assert acknowledged
