"""A compiled kernel that anybody else could have written is no kernel: it is removed, and nothing in it runs."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_bench.system import sealed
from retrieval_bench.system.sealed import KEY_FILE, SealedFolder
from tests.support.faults import Disk, cut, every_step, failing, flip, instead

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="modes, owners and pipes are those of POSIX")
AGAIN = "it is made again"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key of this test's own."""
    place = tmp_path / "state"
    monkeypatch.setenv("RETRIEVAL_BENCH_STATE", str(place))
    sealed._key.cache_clear()
    return place


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_written_comes_back_and_is_closed_to_others(tmp_path: Path, state: Path) -> None:
    old = os.umask(0)
    try:
        SealedFolder(tmp_path / "kernels" / "x", AGAIN).write("a", b"code")
    finally:
        os.umask(old)
    assert SealedFolder(tmp_path / "kernels" / "x", AGAIN).read("a") == b"code"
    assert SealedFolder(tmp_path / "kernels" / "x", AGAIN).read("b") is None
    modes = [stat.S_IMODE(os.stat(place).st_mode) for place in (tmp_path / "kernels/x", tmp_path / "kernels/x/a")]
    assert modes == [0o700, 0o600]
    assert stat.S_IMODE(os.stat(state / KEY_FILE).st_mode) == 0o600


def other_name(file: Path) -> None:
    SealedFolder(file.parent, AGAIN).write("b", b"other code")
    os.replace(file.with_name("b"), file)


def other_folder(file: Path) -> None:
    SealedFolder(file.parent.with_name("y"), AGAIN).write("a", b"other code")
    os.replace(file.parent.with_name("y") / "a", file)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda file: cut(file, -1),
    "cut in the checksum": lambda file: cut(file, 10),
    "empty": lambda file: cut(file, 0),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "flipped": lambda file: flip(file, -1),
    "flipped checksum": lambda file: flip(file, 3, 0x80),
    "a pickle": lambda file: file.write_bytes(pickle.dumps("code")),
    "another file's content": other_name,
    "another folder's content": other_folder,
    "written by all": lambda file: file.chmod(0o666),
    "a pipe": instead(os.mkfifo),
    "a device": instead(lambda file: file.symlink_to("/dev/zero")),
    "a folder": instead(Path.mkdir),
    "a dangling link": instead(lambda file: file.symlink_to("nowhere")),
    "a link to itself": instead(lambda file: file.symlink_to(file.name)),
    "huge": lambda file: os.truncate(file, sealed.MOST_BYTES + 100),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_once_removed_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = tmp_path / "kernels" / "x"
    SealedFolder(folder, AGAIN).write("a", b"code")
    DAMAGE[damage](folder / "a")
    here = SealedFolder(folder, AGAIN)
    assert here.read("a") is None
    assert not os.path.lexists(folder / "a")
    here.write("a", b"new code")
    assert here.read("a") == b"new code"
    (told,) = warnings_of(caplog)
    assert str(folder / "a") in told
    assert told.endswith(AGAIN)


def test_a_key_of_another_machine_opens_nothing(tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture) -> None:
    SealedFolder(tmp_path / "x", AGAIN).write("a", b"code")
    (state / KEY_FILE).write_bytes(bytes(32))
    sealed._key.cache_clear()
    assert SealedFolder(tmp_path / "x", AGAIN).read("a") is None
    assert "checksum" in warnings_of(caplog)[0]


@pytest.mark.parametrize("how", ["read by all", "cut", "a pipe", "a folder", "a link"])
def test_a_key_that_others_know_is_drawn_anew(tmp_path: Path, state: Path, how: str) -> None:
    first = sealed._key(state)
    place = state / KEY_FILE
    {
        "read by all": lambda: place.chmod(0o644),
        "cut": lambda: cut(place, 31),
        "a pipe": lambda: instead(os.mkfifo)(place),
        "a folder": lambda: instead(Path.mkdir)(place),
        "a link": lambda: instead(lambda file: file.symlink_to(tmp_path / "elsewhere"))(place),
    }[how]()
    sealed._key.cache_clear()
    second = sealed._key(state)
    assert second != first
    assert len(second) == len(place.read_bytes()) == 32
    sealed._key.cache_clear()
    assert sealed._key(state) == second


@pytest.mark.parametrize("how", ["written by all", "a file", "a full disk"])
def test_without_a_key_nothing_is_kept_or_removed(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    folder, other = tmp_path / "x", tmp_path / "other"
    SealedFolder(folder, AGAIN).write("a", b"code")
    sealed._key.cache_clear()
    monkeypatch.setenv("RETRIEVAL_BENCH_STATE", str(other))
    if how == "a file":
        other.write_text("")
    else:
        other.mkdir(mode=0o700)
        (other / "letter").write_text("of another program")
        if how == "written by all":
            other.chmod(0o777)
    here = SealedFolder(folder, AGAIN)
    with failing(Disk(other, room=0)):
        assert here.read("a") is None
        here.write("b", b"code")
    assert [file.name for file in folder.iterdir()] == ["a"]
    assert how == "a file" or [file.name for file in other.iterdir()] == ["letter"]
    (told,) = warnings_of(caplog)
    assert "there is no key for it" in told
    assert "RETRIEVAL_BENCH_STATE" in told


def test_a_folder_that_all_can_write_to_is_emptied_and_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "x"
    SealedFolder(folder, AGAIN).write("a", b"code")
    folder.chmod(0o777)
    here = SealedFolder(folder, AGAIN)
    assert here.read("a") is None
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    here.write("a", b"code")
    assert here.read("a") == b"code"
    (told,) = warnings_of(caplog)
    assert "can be written by others (mode 777)" in told


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_another_user_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "x"
    SealedFolder(folder, AGAIN).write("a", b"code")
    os.chown(folder / "a", 12345, -1)
    assert SealedFolder(folder, AGAIN).read("a") is None
    SealedFolder(folder, AGAIN).write("a", b"code")
    os.chown(folder, 12345, -1)
    here = SealedFolder(folder, AGAIN)
    assert here.read("a") is None
    here.write("a", b"other")
    assert (folder / "a").exists()  # of a folder of somebody else, nothing is removed
    assert [told.split("; ")[0].partition(" belongs")[2] for told in warnings_of(caplog)] == [
        " to another user (number 12345)"
    ] * 2


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EINTR])
def test_a_disk_that_fails_at_any_step_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    disk, told = tmp_path / "disk", 0
    sealed._key(tmp_path / "state")
    disk.mkdir()

    def work() -> None:
        SealedFolder(disk / "x", AGAIN).write("a", b"code")

    for failed in every_step(disk, work, error):
        assert SealedFolder(disk / "x", AGAIN).read("a") in (None, b"code")
        assert failed.broken == "unlink" or not list(disk.rglob(".*"))
        told += 1
    assert 5 <= told == len(warnings_of(caplog))
    assert all(os.strerror(error) in sentence for sentence in warnings_of(caplog))


def test_a_full_disk_is_called_full_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sealed._key(tmp_path / "state")
    folder = SealedFolder(tmp_path / "x", AGAIN)
    with failing(Disk(tmp_path / "x", room=40)):
        folder.write("a", b"code" * 100)
        folder.write("b", b"code" * 100)
    (told,) = warnings_of(caplog)
    assert "No space left on device" in told
    assert list((tmp_path / "x").iterdir()) == []


EVIL = """
import os, pickle, sys
class Evil:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)
sys.stdout.buffer.write(pickle.dumps(Evil()))
"""
SEARCH = """
import logging
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from numba import types
from retrieval_bench.search import jit
def double(x):
    return 2 * x
kernel = jit.compiled(double, types.int64(types.int64))
print(kernel(21), sum(kernel.stats.cache_hits.values()))
"""


@pytest.mark.slow(reason="starts four processes that load Numba")
def test_no_pickle_of_others_runs_and_damaged_kernels_are_compiled_again(tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    environment = {**os.environ, "RETRIEVAL_BENCH_CACHE": str(tmp_path / "cache")}

    def search() -> tuple[list[str], list[str]]:
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
        return done.stdout.split(), done.stderr.splitlines()

    assert search() == (["42", "0"], [])
    assert search() == (["42", "1"], [])
    pwned = tmp_path / "pwned"
    evil = subprocess.run([sys.executable, "-c", EVIL, pwned], capture_output=True, check=True).stdout
    (index,) = tmp_path.rglob("*.nbi")
    index.write_bytes(evil)
    out, told = search()
    assert out == ["42", "0"]
    assert len(told) == 1
    assert str(index) in told[0]
    assert not pwned.exists()
    (data,) = tmp_path.rglob("*.nbc")
    data.write_bytes(evil)
    out, told = search()
    assert out == ["42", "0"]
    assert str(data) in told[0]
    assert not pwned.exists()
