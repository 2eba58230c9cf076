"""What a URL names, and whether it may be read."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from retrieval_bench.core import BenchError

if sys.platform == "win32":
    from pathlib import WindowsPath as _Native
else:
    from pathlib import PosixPath as _Native

HOSTS = "RETRIEVAL_BENCH_HOSTS"
"""What --allow-host adds to, so that the processes that this one starts know it, too; separated by commas."""

SCHEMES = ("http", "https", "s3", "gs", "hdfs", "abfs", "file")
ARCHIVES = ("zip", "tar")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Archives of which no part can be read without all before it."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.I)


def is_url(path: str) -> bool:
    """Whether a path names a place in the net: a scheme of two letters or more, a colon and a slash."""
    return _URL.match(path) is not None


class RemotePlace(_Native):
    """A URL where a path is expected. It is written as it was given; `Path` would drop one of its two slashes.

    url: for example https://host/manifest.csv, s3://bucket/photos or zip://manifest.csv::https://host/shop.zip.
    """

    url: str

    def __new__(cls, url: str) -> RemotePlace:
        place = super().__new__(cls, url)
        place.url = url
        return place

    def __init__(self, url: str) -> None:
        if sys.version_info >= (3, 12):
            super().__init__(url)

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Of the file that is named, not of the archive around it, and without what follows a question mark."""
        address = address_of(self.url)
        return posixpath.basename(address.member or urlsplit(address.url).path)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    def __reduce__(self) -> tuple[type[RemotePlace], tuple[str]]:
        return RemotePlace, (self.url,)


def root_of(text: str) -> Path:
    """The place of a dataset as the user wrote it, or as a record has it: a path, or a URL."""
    return RemotePlace(text) if is_url(text) else Path(text)


def whole_path(root: Path) -> str:
    """The root of a dataset as text that holds in every working directory."""
    return root.url if isinstance(root, RemotePlace) else os.path.abspath(root)


@dataclass(frozen=True)
class Address:
    """One file or folder.

    Args:
        url: of the file; where it is inside an archive, of that. A path where it lies on this machine.
        archive: "zip" or "tar" where `url` is one, else "".
        member: the name inside the archive, "" for all of it.
    """

    url: str
    archive: str = ""
    member: str = ""

    @property
    def scheme(self) -> str:
        """In lower case; "" for a path of this machine."""
        return self.url.partition(":")[0].lower() if is_url(self.url) else ""

    @property
    def host(self) -> str:
        """host or host:port; of a store of objects the bucket."""
        return urlsplit(self.url).netloc.lower() if self.scheme else ""

    def __str__(self) -> str:
        return f"{self.archive}://{self.member}::{self.url}" if self.archive and self.member else self.url


def address_of(text: str) -> Address:
    """What a path or URL names. Nothing is opened.

    Raises:
        BenchError: It is of no scheme that is read, or is written wrongly.
    """
    first, *rest = text.split("::")
    scheme = first.partition(":")[0].lower() if is_url(first) else ""
    if scheme in ARCHIVES:
        if len(rest) != 1 or not rest[0]:
            raise BenchError(
                f"{text}: write {scheme}://NAME::ARCHIVE, for example {scheme}://manifest.csv::shop.{scheme}"
            )
        outer = _plain(rest[0], text)
        return Address(outer.url, scheme, first.partition("://")[2].strip("/"))
    if rest:
        raise BenchError(f"{text}: before :: stands zip://NAME or tar://NAME; no other is read inside another")
    return _plain(text, text)


def _plain(url: str, told: str) -> Address:
    """The address of a file that is inside no other."""
    if not is_url(url):
        return Address(url, archive_of(url))
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in (*SCHEMES, *ARCHIVES))
        raise BenchError(f"{told}: {scheme}:// is not read; known are {known}")
    try:
        parts = urlsplit(url)
        sound = bool(parts.path if scheme == "file" else parts.hostname or scheme == "hdfs") and parts.port != 0
    except ValueError:  # of a port, or of brackets
        sound = False
    if not sound:
        raise BenchError(f"{told}: this is no whole address; write {scheme}://HOST/PATH")
    if parts.password is not None:
        raise BenchError(
            f"{scheme}://{parts.hostname}{parts.path}: an address with a password would be written into the record; "
            "put the password into ~/.netrc, or where the driver looks for it"
        )
    if scheme == "file":
        from urllib.request import url2pathname

        return Address(url2pathname(parts.path), archive_of(parts.path))
    return Address(url, archive_of(parts.path))


def archive_of(path: str) -> str:
    """ "zip" or "tar" by the suffix; else ""."""
    suffix = path.rpartition(".")[2].lower()
    return suffix if suffix in ARCHIVES and "." in path else ""


def allow_hosts(hosts: Iterable[str]) -> None:
    """Allow more hosts from here on: HOST, HOST:PORT, or the bucket of a store."""
    named = [host.strip().lower() for host in hosts if host.strip()]
    for host in named:
        if not re.fullmatch(r"[a-z0-9._\-]+(:\d+)?|\[[0-9a-f:]+\](:\d+)?", host):
            raise BenchError(f"--allow-host {host!r} is no host; write its name alone, for example images.example.org")
    if named:
        os.environ[HOSTS] = ",".join(dict.fromkeys([*_said(), *named]))


def _said() -> list[str]:
    return [host for part in os.environ.get(HOSTS, "").split(",") if (host := part.strip().lower())]


def is_allowed(address: Address, own: frozenset[str] = frozenset()) -> bool:
    """Whether the host of an address may be asked. own: hosts that are allowed beside those that the user named."""
    host = address.host
    return not address.scheme or host in own or not {host, host.rpartition(":")[0] or host}.isdisjoint(_said())
