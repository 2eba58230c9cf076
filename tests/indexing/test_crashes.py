"""Nothing that was acknowledged is lost, and what was not is there whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.indexing.index import NewItem, StoredIndex
from tests.support.command import call
from tests.support.faults import every_step
from tests.support.indexes import built_at
from tests.support.paths import ROOT
from tests.support.shop import picture


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_at(tmp_path_factory.mktemp("index") / "shop", "phash", "hsv")


def kill(folder: Path, rounds: int, seed: int) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.support.killed", str(folder), str(rounds), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="no process is forked there")
@pytest.mark.slow(reason="processes that are killed")
def test_a_writer_is_killed_while_others_read(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "own")
    assert kill(tmp_path / "own", 5, 1)["acknowledged"] > 5


@pytest.mark.skipif(sys.platform == "win32", reason="no process is forked there")
@pytest.mark.long(reason="50 processes are killed")
def test_a_writer_is_killed_at_fifty_moments(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "own")
    assert kill(tmp_path / "own", 50, 2)["acknowledged"] > 50


def test_a_full_disk_changes_nothing(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "own")
    with StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False) as index:
        before = index.snapshot()
        told = []

        def add() -> None:
            try:
                index.add([NewItem("new", picture(0, 77))])
            except BenchError as error:
                told.append(str(error))

        for _ in every_step(tmp_path / "own", add, errno.ENOSPC):
            assert index.snapshot() is before
            assert told[-1].endswith("own: cannot be written (No space left on device); nothing was changed")
        assert len(told) == 6  # opening, writing and closing two files
        assert len(index.snapshot()) == len(before) + 1
        assert not index.verify().problems


LIMITED = """
import resource, sys
from pathlib import Path
from retrieval_bench.core import BenchError
from retrieval_bench.indexing.index import NewItem, StoredIndex
from retrieval_bench.registry import fill
from tests.support.shop import picture
fill()
with StoredIndex.open(Path(sys.argv[1]), writable=True) as index:
    new = [NewItem(f"new/{number}", picture(number, 78)) for number in range(40)]
    features = [method.features([one.picture for one in new]) for method in index.methods]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        index.add_features(new, features)
    except BenchError as error:
        print(error)
    print(len(index.snapshot()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
@pytest.mark.slow(reason="a process of its own for each limit")
@pytest.mark.parametrize("most", [500, 20_000])
def test_a_limit_of_file_sizes_is_a_full_disk(built: Path, tmp_path: Path, most: int) -> None:
    """The first is met by the features, the second by the items."""
    shutil.copytree(built, tmp_path / "own")
    command = [sys.executable, "-c", LIMITED, tmp_path / "own", str(most)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    sentence, items = done.stdout.splitlines()
    assert "cannot be written (" in sentence
    assert items == "16"
    with StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False) as index:
        assert index.add([NewItem("new", picture(0, 77))]).numbers == (17,)
        assert not index.verify().problems


def test_one_process_changes_an_index_at_a_time(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "own")
    with StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False) as index:
        with pytest.raises(BenchError, match="another process is changing this index"):
            StoredIndex.open(tmp_path / "own", writable=True, check_recipe=False)
        with pytest.raises(BenchError, match="another process is changing this index"):
            built_at(tmp_path / "own", "phash", overwrite=True)
        done = call("index", "remove", tmp_path / "own", "gallery/0/1000.png")
        assert (done.exit_code, "another process is changing this index" in done.stderr) == (2, True)
        with StoredIndex.open(tmp_path / "own", check_recipe=False) as reader:
            before = reader.snapshot()
            index.remove(["gallery/0/1000.png"])
            assert (len(before), len(reader.snapshot())) == (16, 15)
            assert before.by_id("gallery/0/1000.png") is not None
            assert reader.snapshot().by_id("gallery/0/1000.png") is None
            index.compact()
            assert len(reader.snapshot().features("phash")[0]) == 15
            assert len(before.features("phash")[0]) == 16
        with pytest.raises(BenchError, match="open for reading"):
            reader.remove(["gallery/0/1001.png"])
