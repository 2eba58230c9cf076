"""Files are written whole or not at all; what is no file is written into, or refused, and never replaced."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.system.files import read_regular, write_whole
from retrieval_bench.system.npz import read_arrays
from tests.support.faults import every_step

POSIX = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes, devices and links are those of POSIX")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, None])
def test_the_file_is_the_old_or_the_new_at_each_step(tmp_path: Path, error: int | None) -> None:
    file, seen = tmp_path / "a.html", []
    file.write_bytes(b"old")

    def work() -> None:
        try:
            write_whole(file, b"new page")
        except BenchError as told:
            seen.append(str(told))

    for disk in every_step(tmp_path, work, error):
        assert file.read_bytes() in (b"old", b"new page")
        if error is not None and disk.broken != "unlink":
            assert [entry.name for entry in tmp_path.iterdir()] == ["a.html"]
        file.write_bytes(b"old")
    assert all("a.html: cannot be written (" in sentence for sentence in seen)
    assert len(seen) >= (0 if error is None else 4)


@POSIX
def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to("there/mine.html")
    for content in (b"one", b"two"):
        write_whole(link, content)
        assert link.is_symlink()
        assert (tmp_path / "there" / "mine.html").read_bytes() == content


@POSIX
def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(b"old")
    file.chmod(0o604)
    write_whole(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o604


@POSIX
def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    write_whole(Path("/dev/null"), b"page")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    with pytest.raises(BenchError, match="cannot be written"):  # nobody reads it
        write_whole(pipe, b"page")
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    whole = b"page" * 50_000  # more than a pipe holds
    for _ in range(1000):
        try:
            write_whole(pipe, whole)
            break
        except BenchError:  # the reader has not begun
            threading.Event().wait(0.01)
    reader.join(10)
    assert read == [whole]
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
    for name in (tmp_path, tmp_path / "loop"):
        if name.name == "loop":
            name.symlink_to("loop")
        with pytest.raises(BenchError, match="cannot be written"):
            write_whole(name, b"page")
    if os.path.exists("/dev/full"):
        with pytest.raises(BenchError, match="No space left on device"):
            write_whole(Path("/dev/full"), b"page")


@POSIX
def test_standard_output_goes_where_it_is_sent(tmp_path: Path) -> None:
    code = "from pathlib import Path; from retrieval_bench.system.files import write_whole; print('first'); "
    code += "write_whole(Path('/dev/stdout'), b'page')"
    (tmp_path / "log").write_text("before\n")
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nfirst\npage"


@POSIX
def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(101))
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, why in {
        "pipe": "a pipe, a socket or a device is there",
        "zero": "a pipe, a socket or a device is there",
        ".": "a folder is there",
        "large": "it has 101 bytes; at most 100 are read",
        "nothing": "No such file",
    }.items():
        with pytest.raises(OSError, match=why):
            read_regular(tmp_path / name, 100)
    assert read_regular(tmp_path / "large", 101) == bytes(101)


def npz(**entries: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return file


def npy(shape: object, descr: str = "<f8", body: bytes = b"") -> bytes:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})  # type: ignore[arg-type]
    return head.getvalue() + body


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {
        "a/b": np.arange(6).reshape(2, 3),
        "none": np.empty((0, 4), np.float32),
        "one": np.array(7),
        "names": np.array(["x", "ü"]),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    }
    for save in (np.savez, np.savez_compressed):
        with (tmp_path / "a.npz").open("wb") as file:
            save(file, **arrays)  # type: ignore[arg-type]
        with (tmp_path / "a.npz").open("rb") as file:
            found = read_arrays(file)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
            assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (npz(a=npy((10**12,), body=bytes(100))), "8,000,000,000,000 bytes is in it, and 100 are there"),
        (npz(a=npy((2**40, 2**40), "<i4")), "and 0 are there"),
        (npz(a=npy((-1,))), "no shape"),
        (npz(a=npy((True,), body=bytes(8))), "no shape"),
        (npz(a=npy((2,), "|O", bytes(16))), "holds objects"),
        (npz(a=npy((3,), body=bytes(16))), "24 bytes is in it, and 16 are there"),
        (npz(a=b"no array"), "magic"),
        (npz(a=npy((2**26,), "|u1", bytes(2**26)), b=npy((2**28,), "|u1", bytes(2**28))), "more than 268,435,456"),
        (io.BytesIO(b"no zip"), "not a zip file"),
        (io.BytesIO(b""), "not a zip file"),
    ],
)
def test_arrays_that_lie_are_refused(file: io.BytesIO, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_arrays(file)
