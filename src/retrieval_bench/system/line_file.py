"""Files that grow by lines: each is on the disk when its writer goes on, and half a line at the end is no line."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.system.files import read_regular


def read_lines(path: Path, most: int) -> list[bytes]:
    """All whole lines of a file; what a process that was killed has left of a further one is not among them.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        BenchError: It cannot be read.
    """
    content = _content(path, most)
    return content[: content.rfind(b"\n") + 1].splitlines()


def is_beginning_of(path: Path, line: str, most: int) -> bool:
    """Whether a file holds nothing, or a part of this line: what a process that was killed leaves of its first line.

    Raises BenchError: It cannot be read.
    """
    return line.encode().startswith(_content(path, most))


def drop_half_line(path: Path, most: int) -> None:
    """Cut off what follows the last whole line, so that the next line does not continue it. Raises BenchError."""
    content = _content(path, most)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        try:
            with path.open("r+b") as file:
                file.truncate(whole)
        except OSError as error:
            raise BenchError(f"{printable(path)} cannot be written: {error.strerror}") from None


def add_line(path: Path, line: str) -> None:
    """Write a further line and wait until it is on the disk. Raises BenchError."""
    try:
        with path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BenchError(f"{printable(path)} cannot be written: {error.strerror}") from None


def _content(path: Path, most: int) -> bytes:
    try:
        return read_regular(path, most)
    except OSError as error:
        raise BenchError(f"{printable(path)} cannot be read: {error.strerror}") from None
