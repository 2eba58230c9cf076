"""Files of a cache that are code: read back only where this very user wrote them.

A compiled kernel is machine code, and Numba keeps it as a pickle, which runs what it says as it is read. So its bytes
are believed only where folder and file are this user's and nobody else may write there, and where they begin with a
keyed checksum of themselves and of their name. The key is drawn once and lies outside the cache, with mode 600: who can
write to the cache alone cannot make a file that is believed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import hmac
import logging
import os
import secrets
import stat
from pathlib import Path

import platformdirs

from retrieval_bench.core import printable
from retrieval_bench.system.files import removed

log = logging.getLogger("retrieval_bench")

STATE_VARIABLE = "RETRIEVAL_BENCH_STATE"
KEY_FILE = "cache-key"
KEY_BYTES = 32
SEAL_BYTES = 32
MOST_BYTES = 64 << 20
"""Of a sealed file; the largest kernel is less than a tenth of it."""

_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class NotBelieved(Exception):
    """Why a file or folder is not believed, in a few words."""


class NoKey(Exception):
    """Why there is no key, in one clause with what to do."""


def state_root() -> Path:
    """RETRIEVAL_BENCH_STATE, else the user's folder for what programs keep; the key lies there."""
    return Path(os.environ.get(STATE_VARIABLE) or platformdirs.user_state_dir("retrieval_bench"))


class SealedFolder:
    """Sealed files in one folder. Whatever is wrong there is told in one warning, and never stops who asks.

    Args:
        folder: where they lie; made at the first write, for this user alone.
        again: what becomes of what cannot be read, for the warning, as "the kernel is compiled again".
    """

    def __init__(self, folder: Path, again: str) -> None:
        self._folder, self._again = folder, again
        self._told = False

    def read(self, name: str) -> bytes | None:
        """What was written under this name; None where nothing was, or where it is not believed and is now removed."""
        path = place = self._folder / name
        try:
            place = self._folder
            if why := _others(os.stat(place)):
                if not _made_private(place):
                    raise NotBelieved(why)
                self._tell(f"cache: {printable(place)} {why}; it is emptied, and {self._again}")
                return None
            place = path
            content = _content(path, SEAL_BYTES + MOST_BYTES)
            seal, body = content[:SEAL_BYTES], content[SEAL_BYTES:]
            if not hmac.compare_digest(seal, _seal(path, body)):
                raise NotBelieved("has a wrong checksum: it was cut or changed, or somebody else wrote it")
            return body
        except (FileNotFoundError, NotADirectoryError):
            return None
        except NotBelieved as why_not:
            fate = "removed" if place == path and removed(path) else "not used"
            self._tell(f"cache: {printable(place)} {why_not}; it is {fate}, and {self._again}")
        except NoKey as why_none:
            self._tell(f"cache: {printable(place)} is not used: {why_none}; {self._again}")
        except OSError as error:
            self._tell(f"cache: {printable(place)} cannot be read ({error.strerror}); {self._again}")
        return None

    def write(self, name: str, body: bytes) -> None:
        """Keep it for the next process, whole or not at all; where that cannot be, say so once."""
        path = self._folder / name
        unfinished = path.with_name(f".{secrets.token_hex(8)}")
        try:
            _make_private(self._folder)
            try:
                with os.fdopen(os.open(unfinished, _NEW, 0o600), "wb") as file:
                    file.write(_seal(path, body) + body)
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
        except NoKey as why:
            self._tell(f"cache: {printable(path)} is not kept: {why}; continuing without")
        except NotBelieved as why:
            self._tell(f"cache: {printable(path)} is not kept: its folder {why}; continuing without")
        except OSError as error:
            self._tell(f"cache: {printable(path)} is not kept ({error.strerror}); continuing without")

    def _tell(self, sentence: str) -> None:
        log.log(logging.DEBUG if self._told else logging.WARNING, "%s", sentence)
        self._told = True


def doubts(path: Path) -> str:
    """Why a sealed file would not be believed, "" where it would; looks only, and changes nothing."""
    try:
        if why := _others(os.stat(path.parent)):
            return f"its folder {why}"
        if key_doubts():
            return "there is no key to check it by"
        content = _content(path, SEAL_BYTES + MOST_BYTES)
    except NotBelieved as why_not:
        return str(why_not)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    seal, body = content[:SEAL_BYTES], content[SEAL_BYTES:]
    return "" if hmac.compare_digest(seal, _seal(path, body)) else "has a wrong checksum"


def key_doubts() -> str:
    """Why the key of this user would not be used as it is, "" where it would; looks only, and draws none."""
    try:
        if why := _others(os.stat(state_root())):
            return f"its folder {why}"
        whole = len(_content(state_root() / KEY_FILE, KEY_BYTES, 0o077)) == KEY_BYTES
    except FileNotFoundError:
        return "is not there yet"
    except NotBelieved as why_not:
        return str(why_not)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if whole else "is cut"


def _make_private(folder: Path) -> None:
    """A folder that is this user's alone; one of his that others could write to is emptied first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    why = _others(os.stat(folder))
    if why and not _made_private(folder):
        raise NotBelieved(why)


def _made_private(folder: Path) -> bool:
    """Empty a folder and close it to others; whether it was this user's, so that this could be."""
    if os.stat(folder).st_uid != _user():
        return False
    for entry in sorted(folder.iterdir()):
        removed(entry)
    os.chmod(folder, 0o700)
    return not _others(os.stat(folder))


def _seal(path: Path, body: bytes) -> bytes:
    """Of the content, and of folder and name, so that no file stands in for another."""
    name = os.fsencode(path.parent.name) + b"/" + os.fsencode(path.name) + b"\0"
    return hmac.new(_key(state_root()), name + body, hashlib.sha256).digest()


@functools.cache
def _key(folder: Path) -> bytes:
    """This user's key; drawn at the first call on a machine. Raises NoKey where it cannot be kept there."""
    place = folder / KEY_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if why := _others(os.stat(folder)):  # and it is left as it is: it may be a folder of other things
            raise NotBelieved(why)
        return _kept_or_drawn(place)
    except NotBelieved as why_not:
        reason = f"{printable(folder)} {why_not}"
    except OSError as error:
        reason = f"{printable(place)} cannot be written ({error.strerror})"
    raise NoKey(f"there is no key for it, as {reason}; RETRIEVAL_BENCH_STATE may name another folder")


def _kept_or_drawn(place: Path) -> bytes:
    try:
        found = _content(place, KEY_BYTES, 0o077)
    except FileNotFoundError:
        found = b""
    except NotBelieved as why:  # others may have read it, so that it protects nothing
        found = b""
        log.warning("%s %s; a new key is drawn, and what the old one protected is made again", printable(place), why)
    if len(found) == KEY_BYTES:
        return found
    removed(place)
    unfinished = place.with_name(f".{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(unfinished, _NEW, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
        try:
            os.link(unfinished, place)
        except FileExistsError:
            pass  # another process was faster, and its key is as good
        except OSError:  # a file system without links
            os.replace(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)
    return _content(place, KEY_BYTES, 0o077)


def _content(path: Path, most: int, closed: int = 0o022) -> bytes:
    """The bytes of a regular file of this user. closed: bits that its mode must not have. Waits for nothing."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno == errno.ELOOP:  # as O_NOFOLLOW has it
            raise NotBelieved("is a link") from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotBelieved("is no regular file")
        if why := _others(status, closed):
            raise NotBelieved(why)
        if status.st_size > most:
            raise NotBelieved(f"has {status.st_size:,} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)


def _others(status: os.stat_result, closed: int = 0o022) -> str:
    """How others come near it; "" where they do not, and on Windows, where a mode says nothing."""
    if _user() is None:
        return ""
    if status.st_uid != _user():
        return f"belongs to another user (number {status.st_uid})"
    if status.st_mode & closed:
        return f"can be {'written' if closed == 0o022 else 'read'} by others (mode {stat.S_IMODE(status.st_mode):03o})"
    return ""


def _user() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None
