"""A disk that fails on demand: a thin layer between a test and Python's own calls for files.

Each call that changes something below one folder is a step: opening for writing, each write, closing, renaming,
linking, making a folder, removing. A step can end in an error, be slow, or be the last before the power goes. A test
lets each of them fail in turn, so that no write point is forgotten.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

LONG = os.environ.get("RETRIEVAL_BENCH_FAULTS") == "long"
"""Whether tests try as often as `make faults` does."""


class PowerCut(BaseException):
    """The process ends here. Whatever it does after this no longer reaches the disk."""


class Disk:
    """What the steps below a folder come to.

    Args:
        folder: only what lies in it counts.
        at: the step, from 0, that fails; None: none does.
        error: the errno that the step ends in; None: the power goes, and nothing reaches the disk any more.
        room: how many bytes can be written before the disk is full; None: enough.
        seconds: how long each step takes more.
    """

    def __init__(
        self,
        folder: Path,
        at: int | None = None,
        error: int | None = errno.ENOSPC,
        room: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        self._folder = os.path.realpath(folder)
        self._at, self._error, self._room, self._seconds = at, error, room, seconds
        self._paths: dict[int, str] = {}
        self._dark = False
        self.steps: list[str] = []

    @property
    def struck(self) -> bool:
        """Whether the step that should fail was reached."""
        return self._at is not None and len(self.steps) > self._at

    @property
    def broken(self) -> str:
        """The step that failed."""
        return self.steps[self._at] if self._at is not None and self.struck else ""

    def _ours(self, path: Any) -> bool:
        if isinstance(path, int):
            return path in self._paths
        whole = os.path.abspath(os.fsdecode(path))
        return os.path.join(os.path.realpath(os.path.dirname(whole)), "").startswith(os.path.join(self._folder, ""))

    def step(self, what: str, path: Any, half: Callable[[], object] = lambda: None) -> None:
        """Count a step, and let it fail where its turn has come. half: what has happened of it by then."""
        if not self._ours(path):
            return
        if self._dark:
            raise PowerCut
        self.steps.append(what)
        time.sleep(self._seconds)
        if self._at == len(self.steps) - 1:
            half()
            if self._error is None:
                self._dark = True
                raise PowerCut
            raise OSError(self._error, os.strerror(self._error))

    def spend(self, size: int) -> int:
        """How many of these bytes still find room."""
        if self._room is None:
            return size
        left = min(size, self._room)
        self._room -= left
        return left


class _File:
    """An open file whose writes are steps."""

    def __init__(self, file: Any, disk: Disk, path: Any) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def write(self, content: Any) -> int:
        size = len(content)
        self._disk.step("write", self._path, lambda: self._file.write(content[: size // 2]))
        fits = self._disk.spend(size)
        written: int = self._file.write(content[:fits])
        if fits < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
            self._disk.step("close", self._path)


@contextlib.contextmanager
def failing(disk: Disk) -> Iterator[Disk]:
    """Within the block, this is the disk."""
    really_open, really_os_open = io.open, os.open

    def open_(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        changes = set(mode) & set("wxa+")
        if not changes or not disk._ours(path):
            return really_open(path, mode, *rest, **named)
        disk.step("open", path)
        return _File(really_open(path, mode, *rest, **named), disk, path)

    def os_open(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if changes:
            disk.step("open", path)
        descriptor = really_os_open(path, flags, *rest, **named)
        if changes and disk._ours(path):
            disk._paths[descriptor] = os.fspath(path)
        else:
            disk._paths.pop(descriptor, None)
        return descriptor

    def stepping(name: str) -> Callable[..., Any]:
        really = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            target = arguments[1] if name in ("replace", "rename", "link", "symlink") else arguments[0]
            disk.step(name, target)
            return really(*arguments, **named)

        return call

    with contextlib.ExitStack() as stack:
        for place, name, shim in (
            (builtins, "open", open_),
            (io, "open", open_),
            (os, "open", os_open),
            *(
                (os, name, stepping(name))
                for name in ("replace", "rename", "link", "mkdir", "unlink", "rmdir", "chmod")
            ),
        ):
            stack.enter_context(mock.patch.object(place, name, shim))
        yield disk


def every_step(folder: Path, work: Callable[[], object], error: int | None, most: int = 200) -> Iterator[Disk]:
    """Call `work` once for each of its steps, which fails each time at the next one, until it comes to its end.

    The caller puts the folder back as it was between two of them.

    Args:
        folder: the disk.
        work: what is done; an OSError that it lets through, and a power cut, end it and nothing more.
        error: the errno that the step ends in; None: the power goes.
        most: steps after which the test is wrong rather than the work long.

    Yields:
        The disk, after each call that did not come to its end undisturbed.
    """
    for at in range(most):
        with failing(Disk(folder, at, error)) as disk, contextlib.suppress(PowerCut):
            work()
        if not disk.struck:
            return
        yield disk
    raise AssertionError(f"more than {most} steps")


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """What puts something else, such as a pipe, in the place of a file."""

    def put(file: Path) -> None:
        file.unlink()
        make(file)

    return put


def cut(file: Path, size: int) -> None:
    """Leave only the first bytes of a file; a negative size: all but the last ones."""
    file.write_bytes(file.read_bytes()[:size])


def flip(file: Path, place: int, bits: int = 1) -> None:
    """Turn bits of one byte of a file round."""
    content = bytearray(file.read_bytes())
    content[place] ^= bits
    file.write_bytes(bytes(content))


def mutated(content: bytes, seed: int) -> bytes:
    """The bytes of a file, damaged in one of the ways in which files are: a few bits, a hole, a copy, an end too soon.

    Args:
        content: the whole file; it is not empty.
        seed: which damage; the same gives the same.
    """
    rng = random.Random(seed)
    data = bytearray(content)
    start = rng.randrange(len(data))
    size = min(rng.choice((1, 1, 2, 4, 16, 300)), len(data) - start)
    match rng.randrange(8):
        case 0 | 1:
            for _ in range(rng.choice((1, 1, 2, 8))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 2:
            data[start : start + size] = rng.randbytes(size)
        case 3:
            data[start : start + size] = bytes(size)
        case 4:
            del data[start : start + size]
        case 5:
            data[start:start] = data[rng.randrange(len(data)) :][:size]
        case 6:
            data[start : start + 1] = rng.choice((b"9", b"-", b"0", b'"', b"e9", b"\xff", b"null", b"[", b"}", b"\\u"))
        case _:
            del data[start:]
    return bytes(data)
