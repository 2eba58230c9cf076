"""The cache and the places of records: size, damage, key, room and locks. Everything is looked at and left as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from retrieval_bench.core import printable
from retrieval_bench.diagnosis.condition import Condition
from retrieval_bench.search.jit import directory
from retrieval_bench.system.cache import cache_root
from retrieval_bench.system.locks import supported
from retrieval_bench.system.sealed import KEY_FILE, doubts, key_doubts, state_root

PATIENCE_S = 5.0
"""Seconds for which files of the cache are checked; a large one takes longer than anybody waits."""
LITTLE_ROOM = 1 << 30
SHOWN = 3


def storage(results: Path) -> dict[str, Condition]:
    """What is to be said of the cache, its key, and the file systems of the cache and of `results`."""
    return {
        "cache health": _cache(cache_root()),
        "cache key": _key(),
        "cache's disk": _disk(cache_root()),
        "results' disk": _disk(results),
    }


def _cache(root: Path) -> Condition:
    place = printable(root)
    if not root.exists():
        return Condition(f"{place}: not there yet; the first run makes it")
    if not root.is_dir():
        return Condition(
            f"{place}: is no folder", "nothing is cached; remove it, or name another by RETRIEVAL_BENCH_CACHE"
        )
    # Those that are code first, then the smallest, so that most are looked at.
    files = sorted(_files(root), key=lambda one: (one[0].suffix != ".nbc", one[1].st_size, one[0]))
    kernels, read = root / "kernels", directory()
    unread = [one for one in files if one[0].is_relative_to(kernels) and not one[0].is_relative_to(read)]
    left = {path for path, _ in unread}
    files = [one for one in files if one[0] not in left]
    size = sum(status.st_size for _, status in files)
    end = time.monotonic() + PATIENCE_S
    looked, damaged = 0, []
    for path, status in files:
        if time.monotonic() > end:
            break
        looked += 1
        if why := _damage(path, status):
            damaged.append(f"{printable(path.relative_to(root))} {why}")
    checked = "all checked" if looked == len(files) else f"{looked:,} checked in {PATIENCE_S:.0f} s"
    others = f"{len(unread):,} of kernels of other versions, which this one never reads; besides " if unread else ""
    count = f"{len(files):,} {'file' if len(files) == 1 else 'files'}"
    state = f"{place}: {others}{count}, {_in_words(size)}, {checked}"
    if damaged:
        more = "" if len(damaged) <= SHOWN else f", and {len(damaged) - SHOWN} more"
        return Condition(
            f"{state}, {len(damaged)} damaged: {'; '.join(damaged[:SHOWN])}{more}",
            "each is removed and computed again by the run that wants it; or delete them now",
        )
    if not os.access(root, os.W_OK):
        return Condition(
            state, "it cannot be written, so nothing new is kept; make it yours, or set RETRIEVAL_BENCH_CACHE"
        )
    return Condition(f"{state}, none damaged")


def _files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # gone meanwhile
                yield path, os.lstat(path)


def _damage(path: Path, status: os.stat_result) -> str:
    """What is wrong with a file of the cache; "" for nothing, and for a kind of file that says nothing of itself."""
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if path.suffix == ".nbc":
        return doubts(path)
    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return "" if archive.testzip() is None else "is damaged"
        if path.suffix == ".sqlite":
            with contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
            ) as shelf:
                (told,) = shelf.execute("PRAGMA quick_check(1)").fetchone()
                return "" if told == "ok" else "is damaged"
    except sqlite3.OperationalError as error:
        locked = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        return "" if locked else f"cannot be read ({error})"  # a run writes there just now
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except Exception as error:  # damage shows itself in many ways
        return f"is damaged ({type(error).__name__})"
    return ""


def _key() -> Condition:
    place = printable(state_root() / KEY_FILE)
    doubt = key_doubts()
    if not doubt:
        return Condition(f"{place}: there, and yours alone")
    if doubt == "is not there yet":
        return Condition(f"{place}: {doubt}; drawn when the first kernel is compiled")
    return Condition(
        f"{place}: {doubt}",
        "compiled kernels are not believed and are compiled again; close folder and file to others (chmod go-rwx), or "
        "name another folder by RETRIEVAL_BENCH_STATE",
    )


def _disk(folder: Path) -> Condition:
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    shown = printable(place)
    try:
        free = shutil.disk_usage(place).free
        without_locks = supported(place)
    except OSError as error:
        return Condition(f"{shown}: cannot be looked at ({error.strerror})", "name another folder")
    state = f"{shown}: {_in_words(free)} free, {'no locks' if without_locks else 'has locks'}"
    advice = []
    if without_locks:
        advice.append(f"see to it that no two runs write there at once ({without_locks})")
    if not os.access(place, os.W_OK):
        advice.append("it cannot be written; name another folder")
    if free < LITTLE_ROOM:
        advice.append("make room: a run may need more")
    return Condition(state, "; ".join(advice))


def _in_words(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
