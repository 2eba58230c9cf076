"""Zip and tar archives: listed once, and each member read by one range."""

from __future__ import annotations

import bz2
import json
import lzma
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.remote.content_cache import ContentCache
from retrieval_bench.remote.limits import MOST_BYTES, limits
from retrieval_bench.remote.store import Looked, RangedFile

TAR = -1
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_SLACK = 256
"""Bytes that the header before a member of a zip file may have more than its list says."""


class ArchiveMember(NamedTuple):
    """Where a file lies in an archive.

    offset: of its bytes (tar) or of the header before them (zip). size: of the file. packed: bytes in the archive.
    method: of zip; TAR. crc, flags: of zip.
    """

    offset: int
    size: int
    packed: int
    method: int = TAR
    crc: int = 0
    flags: int = 0


class Archive:
    """An archive whose members are known.

    Args:
        source: the file.
        kind: "zip" or "tar".
        cache: where its list is kept.

    Raises:
        BenchError: It is no such archive, or is damaged.
    """

    def __init__(self, source: RangedFile, kind: str, cache: ContentCache) -> None:
        self.source = source
        address = f"list of {kind} {source.url}"
        kept = cache.find(address)
        text = cache.content(address, kept) if kept is not None and kept.stamp == source.stamp else None
        if text is not None:
            self.members = {name: ArchiveMember(*facts) for name, facts in json.loads(text).items()}
            return
        self.members = dict(_zip_members(source) if kind == "zip" else _tar_members(source))
        cache.keep(address, source.stamp, json.dumps(self.members).encode())

    def read(self, name: str) -> bytes:
        """The bytes of a member. BadImage where it is missing, damaged, encrypted or too large."""
        member = self.members.get(name)
        if member is None:
            raise BadImage("missing file", "the archive has no file of this name")
        if max(member.size, member.packed) > (most := limits().most):
            raise BadImage(
                "too many bytes", f"{member.size:,} bytes; at most {most:,} are read, or as many as {MOST_BYTES} says"
            )
        if member.method == TAR:
            return self.source.part(member.offset, member.offset + member.size)
        if member.flags & _ENCRYPTED:
            raise BadImage("encrypted", "the archive has it behind a password")
        return _unpacked(self._packed(name, member), member)

    def _packed(self, name: str, member: ArchiveMember) -> bytes:
        """The bytes behind the header of a member; the header says how long it is itself."""
        start = member.offset
        likely = start + _LOCAL_HEADER.size + len(name.encode()) + _SLACK + member.packed
        held = self.source.part(start, min(likely, self.source.size))
        mark, of_name, of_more = _LOCAL_HEADER.unpack_from(held.ljust(_LOCAL_HEADER.size, b"\0"))
        if mark != b"PK\3\4":
            raise BadImage("damaged", "the archive has something else where this file begins")
        begin = _LOCAL_HEADER.size + of_name + of_more
        missing = begin + member.packed - len(held)
        if start + begin + member.packed > self.source.size:
            raise BadImage("truncated file", "the archive ends within it")
        if missing > 0:
            held += self.source.part(start + len(held), start + len(held) + missing)
        return held[begin : begin + member.packed]


def _unpacked(packed: bytes, member: ArchiveMember) -> bytes:
    try:
        if member.method == zipfile.ZIP_STORED:
            content = packed
        elif member.method == zipfile.ZIP_DEFLATED:
            content = zlib.decompressobj(-15).decompress(packed, member.size + 1)
        elif member.method == zipfile.ZIP_BZIP2:
            content = bz2.BZ2Decompressor().decompress(packed, member.size + 1)
        else:
            raise BadImage("unreadable", f"it is packed by method {member.method}; stored, deflate and bzip2 are read")
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        raise BadImage("damaged", "the archive has it in bytes that cannot be unpacked") from None
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise BadImage("damaged", "the archive's checksum of it does not fit")
    return content


def _zip_members(source: RangedFile) -> Iterator[tuple[str, ArchiveMember]]:
    try:
        with zipfile.ZipFile(Looked(source)) as archive:  # type: ignore[arg-type]
            for info in archive.infolist():
                if not info.is_dir():
                    facts = info.compress_size, info.compress_type, info.CRC, info.flag_bits
                    yield _named(info.filename), ArchiveMember(info.header_offset, info.file_size, *facts)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise BenchError(f"{source.url} is no whole zip file ({_shortly(error)}); copy it again") from None


def _tar_members(source: RangedFile) -> Iterator[tuple[str, ArchiveMember]]:
    file = Looked(source)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if info.isreg() and not info.issparse():
                    yield _named(info.name), ArchiveMember(info.offset_data, info.size, info.size)
            end = archive.offset
    except (tarfile.TarError, ValueError, OSError) as error:
        raise BenchError(f"{source.url} is no whole tar file ({_shortly(error)}); copy it again") from None
    file.seek(end)
    behind = file.read(tarfile.BLOCKSIZE)
    if any(behind) or not behind:  # tarfile takes both for the end
        why = f"byte {end:,} begins no file" if behind else f"it ends at byte {end:,} without the mark of the end"
        raise BenchError(f"{source.url} is no whole tar file ({why}); copy it again")


def _named(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _shortly(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
