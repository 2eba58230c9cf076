"""A lock that a process holds and does not write: the system gives it up with the process, however that ends.

So nothing is read from the file that is locked, and no process number is believed: it may be of another machine, of
another container, or of a process that has the number of one long dead.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from retrieval_bench.core import printable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger("retrieval_bench")

_OPEN = os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"))
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


class Taken(Exception):
    """Another process, or another part of this one, holds the lock."""


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of a file while the block runs; the file is made before and removed after it.

    Where the file system has no locks, a warning says so and nothing is held.

    Args:
        path: the file. What it holds is neither read nor changed.

    Raises:
        Taken: The lock is held elsewhere.
        OSError: The file cannot be made, or something else than a file is there.
    """
    descriptor = _locked(path)
    try:
        yield
    finally:
        if sys.platform != "win32":  # before it is given up: after that, it is another's
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)
        if sys.platform == "win32":  # no open file can be removed there, so another's never is
            with contextlib.suppress(OSError):
                path.unlink()


def supported(folder: Path) -> str:
    """Why runs that write into a folder cannot lock it, "" where they can; asked of the folder, and nothing is written.

    Raises OSError where the folder cannot be opened.
    """
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return error.strerror or str(error)
        finally:
            os.close(descriptor)
    return ""


def _locked(path: Path) -> int:
    """The descriptor of the very file that lies at `path` now, with its lock."""
    while True:
        descriptor = os.open(path, _OPEN, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, f"{path.name} is no file there")
            _lock(descriptor, path)
            if _lies_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has removed it meanwhile: the lock of a file that nobody finds


def _lock(descriptor: int, path: Path) -> None:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            log.warning(
                "%s: this file system has no locks (%s); see to it that no other run writes there",
                printable(path.parent),
                error.strerror,
            )
            return
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise Taken from None
        raise


def _lies_at(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        return True
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
