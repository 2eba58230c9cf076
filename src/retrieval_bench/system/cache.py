"""The feature store: content-addressed, safe to delete, never trusted.

Features are filed per image under what they were made by (`recipe`): decoder, extractor code, options, library
versions, weights and the training set. One SQLite file holds the features of one recipe; one .npz holds what `fit`
learned, beside the recipe itself. Every value carries a checksum: a damaged entry is a miss, never a crash and never a
wrong number. A store that cannot be written serves what it has.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import secrets
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from retrieval_bench.core import printable
from retrieval_bench.system.files import open_regular, removed
from retrieval_bench.system.npz import read_arrays
from retrieval_bench.system.sealed import STATE_VARIABLE

log = logging.getLogger("retrieval_bench")

CACHE_VARIABLE = "RETRIEVAL_BENCH_CACHE"
LIBRARIES = (
    "numpy",
    "scipy",
    "numba",
    "opencv-python-headless",
    "opencv-python",
    "scikit-learn",
    "Pillow",
    "ImageHash",
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "onnxruntime",
    "onnx",
    "tokenizers",
    "bm25s",
)
_CHECKSUM_BYTES = 16
_PAGES_KIB = 32_768
_RECIPE = "made by"
"""Among the arrays of a fit, its recipe; no attribute is called so."""
_NOT_THE_FILES_FAULT = tuple(
    f"SQLITE_{word}" for word in ("BUSY", "LOCKED", "CANTOPEN", "READONLY", "FULL", "PERM", "IOERR")
)
_MOST_BYTES = 4 << 30
"""Of the file of a fit."""
_DTYPES = ("uint8", "int32", "float32", "float16", "int8")


def cache_root() -> Path:
    """RETRIEVAL_BENCH_CACHE, else the user's cache directory."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("retrieval_bench"))


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Read and write no cache of this user while the block runs, in this process and in those that it starts.

    What is kept for as long as the block runs, so that each kernel is compiled once for all these processes, lies in a
    temporary folder, and so does the key that kernels are sealed with.
    """
    named = (CACHE_VARIABLE, STATE_VARIABLE)
    before = {name: os.environ.get(name) for name in named}
    with tempfile.TemporaryDirectory(prefix="retrieval_bench-", ignore_cleanup_errors=True) as folder:
        os.environ.update({name: os.path.join(folder, name) for name in named})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def library_versions() -> dict[str, str]:
    """Installed versions of all that can change a feature or a time."""
    found = {name: _installed(name) for name in LIBRARIES}
    return {name: version for name, version in found.items() if version is not None}


@functools.cache
def _installed(name: str) -> str | None:
    """Its version does not change while a process runs, and reading it takes a millisecond or more."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def code_version(*files: str | os.PathLike[str]) -> str:
    """sha256 over these source files, so that a cache entry never outlives the code that made it."""
    digest = hashlib.sha256()
    for file in sorted({Path(file) for file in files}):
        digest.update(f"{file.name}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def recipe_key(recipe: Mapping[str, Any]) -> str:
    """sha256 of a recipe: a JSON-able mapping of everything that a feature depends on besides its image."""
    return hashlib.sha256(_canonical(recipe)).hexdigest()


def _canonical(recipe: Mapping[str, Any]) -> bytes:
    return json.dumps(recipe, sort_keys=True, allow_nan=False).encode()


class FeatureCache:
    """The store below one directory; `FeatureCache(None)` keeps nothing and finds nothing (`--recompute`)."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._told: set[str] = set()

    def get(self, key: str, digests: Iterable[str]) -> dict[str, np.ndarray]:
        """digest -> stored 1-D array, for those that are stored and whole."""
        found: dict[str, np.ndarray] = {}
        self.each(key, digests, found.__setitem__)
        return found

    def each(self, key: str, digests: Iterable[str], take: Callable[[str, np.ndarray], None]) -> None:
        """Hand over every stored 1-D array that is whole, one after the other, so that no two need be held.

        Args:
            key: of the recipe.
            digests: what is wanted.
            take: called with (digest, array), each once.
        """
        wanted = sorted(set(digests))
        damaged = 0

        def read(shelf: sqlite3.Connection) -> None:
            nonlocal damaged
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                marks = ",".join("?" * len(some))
                for digest, blob in shelf.execute(f"SELECT digest, blob FROM features WHERE digest IN ({marks})", some):
                    value = _unpack(digest, blob) if isinstance(digest, str) and isinstance(blob, bytes) else None
                    if value is not None:
                        take(digest, value)
                    else:
                        damaged += 1

        self._with_shelf(key, read, write=False)
        if damaged:
            place = printable(self._path("features", key, ".sqlite") or "")
            self._tell(f"cache: {damaged} features in {place} are damaged; they are computed again")

    def put(self, key: str, features: Mapping[str, np.ndarray]) -> None:
        """Store 1-D arrays by digest, all or none; says once that it cannot, then stays silent."""
        rows = [(digest, _pack(digest, value)) for digest, value in features.items()]

        def write(shelf: sqlite3.Connection) -> None:
            shelf.execute("CREATE TABLE IF NOT EXISTS features (digest TEXT PRIMARY KEY, blob BLOB)")
            with shelf:
                shelf.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", rows)

        self._with_shelf(key, write, write=True)

    def get_fit(self, key: str, recipe: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """What `fit` learned by this very recipe, by attribute name; None when it is not stored or not whole.

        The key alone is not believed: what was learned from other images, or by other libraries, gives rankings that
        nothing could tell from honest ones. So the file holds its recipe, and must hold the one that is asked for.
        """
        path = self._path("fits", key, ".npz")
        if path is None or not os.path.lexists(path):
            return None
        try:
            with open_regular(path, _MOST_BYTES) as file:
                arrays = read_arrays(file)
            made_by = json.loads(arrays.pop(_RECIPE).tobytes()) if _RECIPE in arrays else {}
            if not isinstance(made_by, dict):
                raise ValueError("it does not say what it was learned from")
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            self._tell(f"cache: {printable(path)} is damaged ({why}); it is learned again")
            removed(path)
            return None
        wanted = json.loads(_canonical(recipe))
        if made_by != wanted:
            other = sorted(name for name in {*made_by, *wanted} if made_by.get(name) != wanted.get(name))
            self._tell(f"cache: {printable(path)} was learned with another {', '.join(other)}; it is learned again")
            return None
        return arrays

    def put_fit(self, key: str, recipe: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        path = self._path("fits", key, ".npz")
        if path is None:
            return
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                made_by = np.frombuffer(_canonical(recipe), np.uint8)
                np.savez(file, **{_RECIPE: made_by, **arrays})  # type: ignore[arg-type]
            os.replace(unfinished, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self._not_written(path, error)

    def _path(self, kind: str, key: str, suffix: str) -> Path | None:
        return None if self.root is None else self.root / kind / key[:2] / f"{key}{suffix}"

    def _with_shelf(self, key: str, work: Callable[[sqlite3.Connection], None], *, write: bool) -> None:
        """Do something with the SQLite file of one recipe; whatever goes wrong there ends the work, not the run."""
        path = self._path("features", key, ".sqlite")
        if path is None or not (write or os.path.lexists(path)):
            return
        try:
            if write:
                path.parent.mkdir(parents=True, exist_ok=True)
            for file in (path, *(path.with_name(path.name + more) for more in ("-journal", "-wal", "-shm"))):
                if os.path.lexists(file) and not stat.S_ISREG(os.lstat(file).st_mode):  # SQLite would wait for a pipe
                    self._tell(f"cache: {printable(file)} is no file; its features are computed again")
                    if not removed(file) or not (write or file != path):
                        return
            mode = "rwc" if write else "ro"
            with contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)
            ) as shelf:
                # Digests come in no order: with SQLite's 2 MB, each of a million rows would read its page anew.
                shelf.execute(f"PRAGMA cache_size = -{_PAGES_KIB}")
                work(shelf)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "").startswith(_NOT_THE_FILES_FAULT):
                self._tell(f"cache: {printable(path)} cannot be reached ({error}); continuing without it")
                return
            self._tell(f"cache: {printable(path)} is damaged ({error}); its features are computed again")
            removed(path)
        except OSError as error:
            self._not_written(path, error)

    def _not_written(self, path: Path, error: OSError) -> None:
        """Once, whichever file was the first."""
        if "" not in self._told:
            self._told.add("")
            self._tell(f"cache: {printable(path)} cannot be written ({error.strerror}); continuing without storing")

    def _tell(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            log.warning("%s", sentence)


def _pack(digest: str, value: np.ndarray) -> bytes:
    if value.ndim != 1 or value.dtype.name not in _DTYPES:
        raise ValueError(f"the cache takes 1-D arrays of {', '.join(_DTYPES)}, not {value.dtype} {value.shape}")
    body = bytes([_DTYPES.index(value.dtype.name)]) + value.tobytes()
    return _checksum(digest, body) + body


def _unpack(digest: str, blob: bytes) -> np.ndarray | None:
    check, body = blob[:_CHECKSUM_BYTES], blob[_CHECKSUM_BYTES:]
    if not body or check != _checksum(digest, body) or body[0] >= len(_DTYPES):
        return None
    return np.frombuffer(body, _DTYPES[body[0]], offset=1)


def _checksum(digest: str, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=digest.encode()[:64]).digest()
