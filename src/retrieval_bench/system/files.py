"""Files written whole or not at all, and read only where they are files, of a size that is expected."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from retrieval_bench.core import BenchError, printable

_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))


def write_whole(path: Path, content: bytes, option: str = "--out") -> None:
    """Write a file whole or not at all: beside it first, then in one rename.

    A link is followed. What exists and is no file, such as a pipe or /dev/stdout, is written into.

    Args:
        path: the file.
        content: what it will hold.
        option: by which the user chose the place, for the sentence.

    Raises:
        BenchError: It cannot be written; what was there before is still there.
    """
    try:
        if (descriptor := _open_already(path)) is not None:
            sys.stdout.flush()
            _write_all(descriptor, content)
        elif _is_no_file(path):
            _write_into(path, content)
        else:
            _replace(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise BenchError(
            f"{printable(path)}: cannot be written ({error.strerror}); choose another place with {option}"
        ) from None


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        unfinished.write_bytes(content)
        on_the_disk(unfinished)
        with contextlib.suppress(FileNotFoundError):  # what is replaced keeps its mode
            os.chmod(unfinished, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def on_the_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk, so that no rename can come before them; OSError where it fails."""
    with open(path, "r+b") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # some file systems cannot
                raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows opens no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _open_already(path: Path) -> int | None:
    """The descriptor that /dev/stdout, /dev/fd/3 and the like name: opened anew, it would begin at its start again."""
    if found := re.fullmatch(r"/(?:dev|proc/self)/fd/(\d+)", str(path)):
        return int(found[1])
    return {"/dev/stdout": 1, "/dev/stderr": 2}.get(str(path))


def _is_no_file(path: Path) -> bool:
    """Whether something else than a file is there; OSError for what nothing can be written into."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, "a socket or a disk is there")
    return not stat.S_ISREG(mode)


def _write_into(path: Path, content: bytes) -> None:
    """Into a device or a pipe, which a rename would replace. A pipe that nobody reads is an error, and no wait."""
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if sys.platform != "win32":
            os.set_blocking(descriptor, True)
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


@contextlib.contextmanager
def open_regular(path: Path, most: int) -> Iterator[IO[bytes]]:
    """Open a file for reading, and nothing else: a pipe would be waited for, and a device may have no end.

    Args:
        path: the file, or a link to one.
        most: bytes that it may have.

    Yields:
        The file, without a buffer for who reads all of it.

    Raises:
        OSError: It is not there, is no regular file, or is larger; its `strerror` says so.
    """
    descriptor = os.open(path, _READ)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
            raise OSError(errno.EINVAL, f"{kind} is there, and no file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; at most {most:,} are read")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_regular(path: Path, most: int) -> bytes:
    """All bytes of a file, as `open_regular` opens it; raises what that raises."""
    with open_regular(path, most) as file:
        return file.read(most)


def removed(path: Path) -> bool:
    """Remove what lies there, whatever it is, but no folder that holds anything; whether it is gone."""
    for remove in (path.unlink, path.rmdir):
        with contextlib.suppress(OSError):
            remove()
    return not os.path.lexists(path)
