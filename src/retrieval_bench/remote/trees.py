"""Files below one root that lies elsewhere, each by its name there; what is read of them is kept in the cache."""

from __future__ import annotations

import hashlib
import posixpath
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

from retrieval_bench.core import BenchError, printable
from retrieval_bench.remote import drivers, web
from retrieval_bench.remote.archives import Archive
from retrieval_bench.remote.content_cache import ContentCache, KeptFile
from retrieval_bench.remote.place import PACKED, Address, RemotePlace, address_of, archive_of, is_allowed
from retrieval_bench.remote.store import LocalSource, source_of


class Tree(ABC):
    """Files by name. Several threads may read at once.

    shown: the root as the user wrote it. own: hosts that its files may lie on beside those that the user allowed.
    """

    def __init__(self, shown: str, own: frozenset[str]) -> None:
        self.shown, self.own = shown, own
        self._cache: ContentCache | None = ContentCache()
        self._kept: dict[str, KeptFile] = {}

    def names(self) -> list[str]:
        """Every file, sorted; BenchError where nobody lists them."""
        raise BenchError(
            f"{self.shown}: a web server does not list its files; name a manifest there, or an archive of the folder"
        )

    def version(self) -> str:
        """What tells versions of the whole apart; BenchError where nothing does."""
        raise BenchError(f"{self.shown}: nothing tells its versions apart")

    def read(self, name: str) -> bytes:
        """The content of a file; BadImage where it cannot be used, BenchError where nobody answers."""
        kept = self._kept.get(name)
        if kept is not None and self._cache is not None:
            found = self._cache.content(self._address(name), kept)
            if found is not None:
                return found
        return self._load(name)

    def digest(self, name: str) -> str:
        """sha256 (hex) of the content; it is not read where the cache knows it of this version."""
        kept = self._kept.get(name)
        if kept is None and self._cache is not None and (held := self._cache.find(self._address(name))) is not None:
            content, stamp = self._fetch(name, held.stamp)
            kept = held if content is None else self._cache.keep(self._address(name), stamp, content)
            self._kept[name] = kept
        return kept.digest if kept is not None else hashlib.sha256(self.read(name)).hexdigest()

    def _load(self, name: str) -> bytes:
        cache, address = self._cache, self._address(name)
        held = None if cache is None else cache.find(address)
        content, stamp = self._fetch(name, "" if held is None else held.stamp)
        if content is None and held is not None and cache is not None:
            content = cache.content(address, held)
            if content is not None:
                self._kept[name] = held
                return content
            content, stamp = self._fetch(name, "")  # what was kept is damaged
        if content is None:
            raise BenchError(f"{address}: the server says that nothing has changed, and was asked for everything")
        if cache is not None:
            self._kept[name] = cache.keep(address, stamp, content)
        return content

    @abstractmethod
    def _address(self, name: str) -> str:
        """The whole address of a file."""

    @abstractmethod
    def _fetch(self, name: str, known: str) -> tuple[bytes | None, str]:
        """The content, None where it is the known version; and what its version is."""


class ArchiveTree(Tree):
    """The members of a zip or tar file below a folder in it."""

    def __init__(self, address: Address, shown: str, own: frozenset[str], below: str = "") -> None:
        super().__init__(shown, own)
        source = source_of(address, own)
        self._archive = Archive(source, address.archive, ContentCache())
        self._kind, self._below = address.archive, below
        if not source.remote:
            self._cache = None  # its bytes are here already

    def names(self) -> list[str]:
        top = f"{self._below}/" if self._below else ""
        return sorted(name[len(top) :] for name in self._archive.members if name.startswith(top))

    def version(self) -> str:
        return self._archive.source.stamp or super().version()

    def _inside(self, name: str) -> str:
        return posixpath.normpath(f"{self._below}/{name}") if self._below else name

    def _address(self, name: str) -> str:
        return f"{self._kind}://{self._inside(name)}::{self._archive.source.url}"

    def _fetch(self, name: str, known: str) -> tuple[bytes | None, str]:
        stamp = self._archive.source.stamp
        return (None if known and known == stamp else self._archive.read(self._inside(name))), stamp


class DriverTree(Tree):
    """The files below a folder of a store of objects."""

    def __init__(self, url: str, own: frozenset[str]) -> None:
        super().__init__(url, own)
        self._top = url.rstrip("/")
        self._listed: dict[str, drivers.Stored] = {}

    def names(self) -> list[str]:
        if not self._listed:
            self._listed = drivers.listed(self._top)
        return sorted(self._listed)

    def version(self) -> str:
        return "\n".join(f"{name} {self._listed[name]}" for name in self.names())

    def _address(self, name: str) -> str:
        return f"{self._top}/{name}"

    def _fetch(self, name: str, known: str) -> tuple[bytes | None, str]:
        url = self._address(name)
        size, stamp = self._listed.get(name) or drivers.look(url)
        return (None if known and known == stamp else drivers.content(url, 0, size)), stamp


class WebTree(Tree):
    """Files of a web server below the folder of a URL."""

    def __init__(self, url: str, own: frozenset[str]) -> None:
        super().__init__(url, own)
        self._top = url.partition("?")[0].rstrip("/") + "/"

    def _address(self, name: str) -> str:
        return urljoin(self._top, quote(name, safe="/"))

    def _fetch(self, name: str, known: str) -> tuple[bytes | None, str]:
        answer = web.fetch(self._address(name), known=known, own=self.own)
        return answer.content, answer.stamp


class Anywhere(Tree):
    """Files by their whole URLs; those that lie in one archive share its list."""

    def __init__(self, shown: str, own: frozenset[str]) -> None:
        super().__init__(shown, own)
        self._archives: dict[str, ArchiveTree] = {}
        self._lock = threading.Lock()

    def allows(self, url: str) -> str:
        """The host of a URL that may not be asked; "" where it may. BenchError for what is no address."""
        address = address_of(url)
        return "" if is_allowed(address, self.own) else address.host

    def read(self, name: str) -> bytes:
        address = address_of(name)
        return super().read(name) if not address.archive else self._archive(address).read(address.member)

    def digest(self, name: str) -> str:
        address = address_of(name)
        return super().digest(name) if not address.archive else self._archive(address).digest(address.member)

    def _archive(self, address: Address) -> ArchiveTree:
        with self._lock:
            key = f"{address.archive} {address.url}"
            if key not in self._archives:
                self._archives[key] = ArchiveTree(address, address.url, self.own)
            return self._archives[key]

    def _address(self, name: str) -> str:
        return name

    def _fetch(self, name: str, known: str) -> tuple[bytes | None, str]:
        address = address_of(name)
        if address.scheme in ("http", "https"):
            answer = web.fetch(name, known=known, own=self.own)
            return answer.content, answer.stamp
        if not address.scheme:
            here = LocalSource(Path(address.url))
            return here.part(0, here.size), ""
        size, stamp = drivers.look(name)
        return (None if known and known == stamp else drivers.content(name, 0, size)), stamp


def lies_elsewhere(root: Path) -> bool:
    """Whether a root is a URL or an archive, and no folder or file that is read as it is."""
    return isinstance(root, RemotePlace) or (bool(archive_of(root.name)) and root.is_file())


def tree_of(root: Path) -> Tree:
    """All below a root that lies elsewhere: a folder, or an archive.

    Raises:
        BenchError: It cannot be read, or is of no kind that is read by parts.
    """
    address = address_of(str(root))
    shown = printable(root)
    if any(address.url.partition("?")[0].lower().endswith(suffix) for suffix in PACKED):
        raise BenchError(f"{shown}: no part of a packed tar file can be read without all before it; unpack it to .tar")
    own = frozenset((address.host,)) - {""}
    if address.archive:
        return ArchiveTree(address, shown, own, address.member)
    return WebTree(shown, own) if address.scheme in ("http", "https") else DriverTree(shown, own)


def parted(root: Path, suffixes: tuple[str, ...]) -> tuple[Path, str]:
    """A root that may be a file, as the folder around it and its name there; "" where it is no file of these suffixes.

    root: lies elsewhere.
    """
    text = str(root)
    address = address_of(text)
    path = address.member if address.archive else urlsplit(address.url).path
    if not path.lower().endswith(suffixes):
        return root, ""
    name = posixpath.basename(path)
    if address.archive:
        above = posixpath.dirname(path)
        kind = address.archive
        return RemotePlace(f"{kind}://{above}::{address.url}" if above else f"{kind}://::{address.url}"), name
    return RemotePlace(text.partition("?")[0][: -len(name)].rstrip("/")), name
