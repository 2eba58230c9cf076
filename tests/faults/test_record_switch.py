"""One record or the other, whole, whatever the disk does and whenever the power goes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.records.files import claimed, load, load_rankings, rankings_file, save
from retrieval_bench.records.schema import Record
from tests.support.faults import Disk, every_step, failing
from tests.support.paths import ROOT
from tests.support.records import record, row

OLD = {"x": np.arange(3000)}
NEW = {"x": np.arange(4000)[::-1]}
TABLES = {"table.md": "a table", "table.csv": "a,table"}


def first(folder: Path) -> Record:
    return save(record(row(), settings={"seed": 1}), folder, OLD, TABLES)


def second(folder: Path, keep_earlier: bool) -> Record:
    return save(record(row(), settings={"seed": 2}), folder, NEW, TABLES, keep_earlier)


def seed_of(folder: Path) -> int:
    """The seed of the record there, which is whole."""
    found = load(folder)
    arrays = load_rankings(folder, found)
    assert len(arrays["x"]) == {1: 3000, 2: 4000}[found.settings.seed]
    return found.settings.seed


@pytest.mark.slow(reason="saves and reads a record once for each step of a save")
@pytest.mark.parametrize("keep_earlier", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_fails_at_any_step_costs_the_new_record_at_most(
    tmp_path: Path, error: int, keep_earlier: bool
) -> None:
    folder, steps, left = tmp_path / "out", 0, []
    first(folder)

    def work() -> None:
        with contextlib.suppress(BenchError):  # what fails may not matter: a link that cannot be made is a copy
            second(folder, keep_earlier)

    for _ in every_step(folder, work, error):
        steps += 1
        left.append(seed_of(folder))
        if left[-1] == 1:
            assert {file.name for file in folder.iterdir()} == {"run.json", "rankings.npz", *TABLES}
        elif keep_earlier:
            (home,) = (folder / "earlier").iterdir()
            assert seed_of(home) == 1
        with claimed(folder):  # as the next run begins
            assert seed_of(folder) == left[-1]
        assert not list(folder.rglob(".*"))
        shutil.rmtree(folder)
        first(folder)
    assert steps > 12
    assert set(left) == {1, 2}


@pytest.mark.slow(reason="saves and reads a record once for each step of a save")
@pytest.mark.parametrize("keep_earlier", [False, True])
def test_a_power_cut_at_any_step_leaves_a_whole_record(tmp_path: Path, keep_earlier: bool) -> None:
    folder, left = tmp_path / "out", []
    first(folder)
    for _ in every_step(folder, lambda: second(folder, keep_earlier), None):
        left.append(seed_of(folder))
        if left[-1] == 2 and keep_earlier:
            (home,) = (folder / "earlier").iterdir()
            assert seed_of(home) == 1
        with claimed(folder):
            assert seed_of(folder) == left[-1]
        assert not list(folder.rglob(".*"))
        assert rankings_file(folder, load(folder)) == folder / "rankings.npz"
        shutil.rmtree(folder)
        first(folder)
    assert left == sorted(left)  # one step decides
    assert set(left) == {1, 2}


@pytest.mark.parametrize("room", [0, 5000])
def test_a_full_disk_leaves_the_earlier_record_in_its_place(tmp_path: Path, room: int) -> None:
    first(tmp_path)
    with failing(Disk(tmp_path, room=room)), pytest.raises(BenchError, match="No space left on device"):
        second(tmp_path, keep_earlier=True)
    assert seed_of(tmp_path) == 1
    assert {file.name for file in tmp_path.iterdir()} == {"run.json", "rankings.npz", *TABLES}


def test_a_slow_disk_is_waited_for_and_its_folder_stays_taken(tmp_path: Path) -> None:
    refused = []

    def come_later() -> None:
        try:
            with claimed(tmp_path):
                pass
        except BenchError as error:
            refused.append(str(error))

    with claimed(tmp_path), failing(Disk(tmp_path, seconds=0.005)):
        other = threading.Thread(target=come_later)
        other.start()
        first(tmp_path)
        other.join()
    assert seed_of(tmp_path) == 1
    assert len(refused) == 1


def test_what_is_in_the_way_is_told_before_any_work(tmp_path: Path) -> None:
    for name in ("run.json", "rankings.npz", "table.csv"):
        (tmp_path / name / name).mkdir(parents=True)
        with pytest.raises(BenchError, match="is a folder there"), claimed(tmp_path / name):
            pass
    if hasattr(os, "mkfifo"):
        (tmp_path / "a").mkdir()
        os.mkfifo(tmp_path / "a" / "run.json")
        with pytest.raises(BenchError, match=r"run\.json is no file there"), claimed(tmp_path / "a"):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").symlink_to("../elsewhere/mine.json")
    first(tmp_path / "out")
    second(tmp_path / "out", keep_earlier=True)
    assert (tmp_path / "out" / "run.json").is_symlink()
    assert seed_of(tmp_path / "out") == 2
    (home,) = (tmp_path / "out" / "earlier").iterdir()
    assert not (home / "run.json").is_symlink()
    assert seed_of(home) == 1


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    first(tmp_path)
    monkeypatch.setattr(os, "link", none)
    second(tmp_path, keep_earlier=True)
    (home,) = (tmp_path / "earlier").iterdir()
    assert (seed_of(home), seed_of(tmp_path)) == (1, 2)


LIMITED = """
import resource, sys
from pathlib import Path
from retrieval_bench.core import BenchError
from tests.faults.test_record_switch import second
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    second(Path(sys.argv[1]), True)
except BenchError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")
@pytest.mark.slow(reason="a process of its own for each limit")
@pytest.mark.parametrize("most", [0, 10, 2000, 4000])
def test_a_limit_of_file_sizes_is_a_full_disk(tmp_path: Path, most: int) -> None:
    first(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path, str(most)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "cannot be written (File too large)" in done.stdout
    assert seed_of(tmp_path) == 1
    assert not (tmp_path / "earlier").exists()
