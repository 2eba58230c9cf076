"""Compiling the kernels: once per machine, kept on disk under a key that cannot go stale, and nothing by surprise.

Numba's own cache (`cache=True`) watches one source file and writes beside it. The kernels are made of several files and
for several vector widths, so here the cache directory is named after everything that the machine code depends on: the
sources of this package, the versions of Python, Numba and llvmlite, Numba's settings, the processor and its caches. A
change of any of them is another directory. Where no directory can be written, nothing is cached. What lies there is
code, so Numba is given no file: it reads and writes through `system.sealed`, which believes only what this user wrote.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import pickle
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator

from retrieval_bench.search.caches import caches
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.sealed import SealedFolder

log = logging.getLogger("retrieval_bench")
NOTICE_AFTER = 2.0  # seconds of compiling before it is said what takes so long

# One thread compiles at a time; a fork waits for it, so that no child is born with the lock held.
lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def directory() -> Path:
    """Where the compiled kernels of this machine belong; it need not exist."""
    return cache_root() / "kernels" / _fingerprint()


@functools.cache
def _fingerprint() -> str:
    sources = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    try:
        features = str(sorted(llvmlite.binding.get_host_cpu_features().items()))
    except RuntimeError:
        features = "unknown"
    settings = sorted(
        (name, value) for name, value in os.environ.items() if name.startswith("NUMBA_") and "THREAD" not in name
    )
    parts = (
        *(sources.hexdigest(), platform.python_version(), numba.__version__, llvmlite.__version__),
        *(platform.machine(), llvmlite.binding.get_host_cpu_name(), features, str(caches()), str(settings)),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


@functools.cache
def _folder(place: Path) -> SealedFolder:
    """One a process, so that what is wrong with it is told once."""
    return SealedFolder(place, "the kernel is compiled again")


def compiled(function: Callable, signature: Any, variant: str = "") -> Any:
    """Numba-compile for one signature, without the GIL; from the cache on disk where it is there.

    variant: tells apart functions that one factory makes, e.g. "avx512". Later calls with other types are errors:
    nothing is ever compiled in passing. No fast-math: what is written is what is computed, in that order.
    """
    with announced():
        dispatcher = lazily(function, variant)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def lazily(function: Callable, variant: str = "") -> Any:
    """The same, compiled at the first call for the types that it is called with."""
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    source = Path(function.__code__.co_filename)
    foreign = source.parent != Path(__file__).parent  # not part of the directory's name
    stamp = hashlib.sha256(source.read_bytes()).hexdigest()[:16] if foreign and source.is_file() else ""
    function.__qualname__ = "-".join(part for part in (function.__name__, variant, stamp) if part)
    dispatcher._cache = _Cache(function)  # noqa: SLF001 - Numba has no public word for it
    return dispatcher


def part(variant: str) -> Callable[[Callable], Any]:
    """Mark a function that a factory makes, and that is compiled as a part of those who call it.

    Numba names what it compiles by the function's own name and by a number that each process counts from the beginning.
    Two variants that two processes have kept on disk could bear the same name, and whoever loads both would run one of
    them in place of the other. variant: tells them apart.
    """

    def mark(function: Callable) -> Any:
        function.__qualname__ = f"{function.__qualname__}-{variant}"
        return numba.njit(nogil=True, error_model="numpy")(function)

    return mark


@contextmanager
def announced() -> Iterator[None]:
    """Hold the compiler, and say so where it takes long; what is compiled together goes into one `with`."""
    with lock:
        if _depth:  # already timed by a `with` around this one
            yield
            return
        _depth.append(1)
        timer = threading.Timer(NOTICE_AFTER, _tell)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            _depth.pop()


def _tell() -> None:
    """Once a process: a run compiles for each kind of features, and the reader needs to know once why he waits."""
    if not _told.is_set():
        _told.set()
        log.info("compiling the search kernels (once per machine)")


_depth: list[int] = []
_told = threading.Event()


class _Locator(_CacheLocator):  # type: ignore[misc]
    """Our directory; its name is the stamp."""

    def __init__(self, name: str) -> None:
        self._name = name

    @classmethod
    def from_function(cls, function: Callable, file: str) -> _Locator:
        return cls(function.__qualname__)

    def get_cache_path(self) -> str:
        return str(directory())

    def ensure_cache_path(self) -> None:
        """The folder is made where it is written to, for this user alone."""

    def get_source_stamp(self) -> str:
        return _fingerprint()

    def get_disambiguator(self) -> str:
        return "1"


class _CacheFiles(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _SealedCacheFile(IndexDataCacheFile):  # type: ignore[misc]
    """Numba's index and data files, of which no byte is unpickled before it is believed."""

    def __init__(self, cache_path: str, filename_base: str, source_stamp: str) -> None:
        super().__init__(cache_path, filename_base, source_stamp)
        self._files = _folder(Path(cache_path))

    def _load_index(self) -> dict[Any, str]:
        content = self._files.read(self._index_name)
        version, stamp, overloads = (None, None, {}) if content is None else pickle.loads(content)
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._files.write(self._index_name, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        content = self._files.read(name)
        return None if content is None else pickle.loads(content)

    def _save_data(self, name: str, data: Any) -> None:
        self._files.write(name, self._dump(data))


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one function, except that nothing on disk, broken or full, can stop a search."""

    _impl_class = _CacheFiles

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file = _SealedCacheFile(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        # Numba would add a hash of the closure, which differs in each process where it holds intrinsics.
        return signature, codegen.magic_tuple(), self._py_func.__qualname__

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return super().load_overload(signature, target)
        except Exception as error:
            log.debug("compiled kernel in %s cannot be used: %r", self.cache_path, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        try:
            super().save_overload(signature, result)
        except OSError as error:
            log.debug("compiled kernel not kept in %s: %r", self.cache_path, error)
