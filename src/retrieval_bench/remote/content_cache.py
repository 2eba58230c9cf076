"""Files that were read from elsewhere, kept by their address: never trusted, safe to delete, written whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from retrieval_bench.core import printable
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.files import open_regular

log = logging.getLogger("retrieval_bench")

MOST_BYTES = 2**40
_HEAD = 8192
"""Bytes of the first line, at most."""

_told: set[str] = set()


@dataclass(frozen=True)
class KeptFile:
    """One file of the cache. stamp: the version of the original. digest: sha256 (hex) of the content."""

    stamp: str
    digest: str
    size: int


class ContentCache:
    """A folder with one file for each address: a line of JSON, and the content behind it.

    root: the folder; by default `remote` in the user's cache.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = cache_root() / "remote" if root is None else root

    def find(self, address: str) -> KeptFile | None:
        """What is kept of an address; its content has not been looked at."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), self._open(address) as file:
            return _head(file.readline(_HEAD), address)
        return None

    def content(self, address: str, kept: KeptFile) -> bytes | None:
        """The content, where it is whole and the one that `find` told of; else None."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError), self._open(address) as file:
            if _head(file.readline(_HEAD), address) == kept:
                found = file.read()
                if hashlib.sha256(found).hexdigest() == kept.digest:
                    return found
        return None

    def keep(self, address: str, stamp: str, content: bytes) -> KeptFile:
        """Write the content whole or not at all; says once that it cannot, then stays silent."""
        kept = KeptFile(stamp, hashlib.sha256(content).hexdigest(), len(content))
        path = self._path(address)
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        head = json.dumps({"address": address, "stamp": stamp, "sha256": kept.digest, "size": kept.size}).encode()
        if not stamp or len(head) >= _HEAD:
            return kept  # nothing would tell whether it is still the same
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                file.write(head + b"\n")
                file.write(content)
            os.replace(unfinished, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if "" not in _told:
                _told.add("")
                log.warning(
                    "cache: %s cannot be written (%s); files are read again each time", printable(path), error.strerror
                )
        return kept

    def _path(self, address: str) -> Path:
        name = hashlib.sha256(address.encode(errors="surrogatepass")).hexdigest()
        return self.root / name[:2] / name

    def _open(self, address: str) -> contextlib.AbstractContextManager:
        return open_regular(self._path(address), MOST_BYTES)


def _head(line: bytes, address: str) -> KeptFile:
    told = json.loads(line)
    if told["address"] != address:
        raise ValueError("another address")
    return KeptFile(str(told["stamp"]), str(told["sha256"]), int(told["size"]))
