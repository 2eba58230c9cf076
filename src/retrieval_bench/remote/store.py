"""One file by ranges, wherever it lies: on this machine, on a web server, or in a store of objects."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Protocol

from retrieval_bench.core import BadImage, BenchError, printable
from retrieval_bench.remote import drivers, web
from retrieval_bench.remote.limits import MOST_BYTES, limits
from retrieval_bench.remote.place import Address, is_allowed
from retrieval_bench.system.files import open_regular

BLOCK = 64 * 2**10
"""Bytes that are read at once where a file is looked through."""


class RangedFile(Protocol):
    """A file of a known size and version. Several threads may read it at once.

    url: as it is shown. size: in bytes. stamp: what tells its versions apart, "" where nothing does. remote: whether
    its bytes are worth keeping.
    """

    url: str
    size: int
    stamp: str
    remote: bool

    def part(self, start: int, end: int) -> bytes:
        """Bytes start .. end (exclusive). Raises BadImage or BenchError."""


class LocalSource:
    """A file of this machine."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.url = printable(self._path)
        try:
            status = os.stat(path)
        except OSError as error:
            raise BenchError(f"{self.url} cannot be read: {error.strerror}") from None
        self.size, self.stamp = status.st_size, f"{status.st_mtime_ns} {status.st_size}"

    def part(self, start: int, end: int) -> bytes:
        try:
            with open_regular(self._path, self.size) as file:
                file.seek(start)
                found = file.read(end - start)
        except OSError as error:
            raise BenchError(f"{self.url} cannot be read: {error.strerror}") from None
        if len(found) != end - start:
            raise BenchError(f"{self.url}: it ends before byte {end:,}; it was changed while it was read")
        return found


class WebSource:
    """A file of a web server that answers with parts."""

    remote = True

    def __init__(self, url: str, own: frozenset[str]) -> None:
        self.url, self._own = url, own
        try:
            first = web.fetch(url, (0, 1), own=own)
        except BadImage as bad:
            raise BenchError(f"{url} cannot be read: {bad.detail}") from None
        if not first.ranges or first.size is None:
            raise BenchError(
                f"{url}: the server gives no part of a file, only the whole; download the archive, and name the file"
            )
        self.size, self.stamp = first.size, first.stamp and f"{first.stamp} {first.size}"
        self._version = first.stamp

    def part(self, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        answer = web.fetch(self.url, (start, end), own=self._own)
        if answer.content is None or answer.stamp != self._version or len(answer.content) != end - start:
            raise BenchError(f"{self.url}: the file was changed while it was read; run again")
        return answer.content


class DriverSource:
    """A file of a store of objects."""

    remote = True

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.size, self.stamp = drivers.look(url)
        except BadImage as bad:
            raise BenchError(f"{url} cannot be read: {bad.detail}") from None

    def part(self, start: int, end: int) -> bytes:
        return drivers.content(self.url, start, end)


def source_of(address: Address, own: frozenset[str]) -> RangedFile:
    """Open the file of an address, or the archive that it lies in.

    own: hosts that are allowed beside those that the user named. Raises BenchError where it cannot be read.
    """
    if not address.scheme:
        return LocalSource(Path(address.url))
    if not is_allowed(address, own):
        raise BenchError(f"{address.url}: {address.host} is not allowed; --allow-host {address.host} allows it")
    return WebSource(address.url, own) if address.scheme in ("http", "https") else DriverSource(address.url)


class Looked(io.RawIOBase):
    """A source as a file that can be sought in; for who reads the list of an archive, from one thread."""

    def __init__(self, source: RangedFile) -> None:
        self._source, self._at = source, 0
        self._start, self._held = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._source.size)[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._source.size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        if size > (most := limits().most):
            raise BenchError(f"{self._source.url}: its list has {size:,} bytes; {MOST_BYTES} allows {most:,}")
        offset = self._at - self._start
        if not 0 <= offset <= offset + size <= len(self._held):
            end = min(self._source.size, self._at + max(size, BLOCK))
            begin = max(0, min(self._at, end - BLOCK))  # the end of a file is read backwards
            self._start, self._held = begin, self._source.part(begin, end)
            offset = self._at - begin
        self._at += size
        return self._held[offset : offset + size]

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
