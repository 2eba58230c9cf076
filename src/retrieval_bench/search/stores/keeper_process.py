"""The process beside ours that ends a store's server and removes its folder, whatever becomes of us.

It is run as a file, knows the standard library alone, and reads commands from its standard input, one a line:

- `start`: make the database if there is none, start the server; the answer is `ready PID FOLDER`, where FOLDER has the
  server's socket, or `failed WHY`.
- `stop`: stop the server in peace; the answer is `stopped`.

Where the input ends (we have closed it, or we are dead, by whatever signal), it stops the server, removes the folder
and ends. Its first argument is the folder; the others, if any: the folder of PostgreSQL's programs, the user that the
server runs as ("" for our own), a home of data that last ("" for none), and settings as `name=value`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO

_NOT_HERE = "no server of ours is started on this system; name one by its address"
_START_S, _STOP_S = 60.0, 10.0
_EMPTY = (
    *("pg_commit_ts", "pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp"),
    *("pg_tblspc", "pg_twophase", "pg_logical/mappings", "pg_logical/snapshots", "pg_wal/archive_status"),
)
"""Folders of PostgreSQL's that hold no file, which archives and stores of objects forget."""


class _Server:
    """PostgreSQL in the folder: its data in data/, its socket in the folder itself, its log in server.log."""

    def __init__(self, folder: str, programs: str, user: str, settings: list[str]) -> None:
        self.folder = folder
        self.programs = programs
        self.data = os.path.join(folder, "data")
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.as_user: dict[str, object] = {}
        self.environment = {key: text for key, text in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
        if user and sys.platform != "win32":
            import pwd

            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            self.as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            if not self._runs():
                self._copy_programs()

    def _runs(self) -> bool:
        """Whether the user may run the programs where they lie; a folder of root's may be closed to others."""
        program = os.path.join(self.programs, "postgres")
        try:
            return subprocess.run([program, "--version"], capture_output=True, **self._how()).returncode == 0  # type: ignore[call-overload,no-any-return]
        except OSError:
            return False

    def _copy_programs(self) -> None:
        """Copy them, with the libraries beside the package, into our folder, rather than change modes of others'."""
        installed = os.path.dirname(self.programs)
        package = os.path.dirname(installed)
        here = os.path.join(self.folder, "programs")
        shutil.copytree(installed, os.path.join(here, os.path.basename(package), os.path.basename(installed)))
        if os.path.isdir(libraries := f"{package}.libs"):
            shutil.copytree(libraries, os.path.join(here, os.path.basename(libraries)))
        self.programs = os.path.join(here, os.path.basename(package), os.path.basename(installed), "bin")

    def _how(self) -> dict[str, object]:
        return {"stdin": subprocess.DEVNULL, "env": self.environment, "cwd": self.folder, **self.as_user}

    def start(self) -> str:
        if self.process is not None:
            self.process.wait(_STOP_S)
        log_file = os.path.join(self.folder, "server.log")
        with open(log_file, "ab") as log:
            if not os.path.exists(os.path.join(self.data, "PG_VERSION")):
                words = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--username=postgres", "--no-instructions"]
                make = [os.path.join(self.programs, "initdb"), "-D", self.data, *words, "--no-sync"]
                if subprocess.run(make, stdout=log, stderr=log, **self._how()).returncode:  # type: ignore[call-overload]
                    return f"failed {_last_line(log_file)}"
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline:
                words = [word for setting in self.settings for word in ("-c", setting)]
                line = [os.path.join(self.programs, "postgres"), "-D", self.data, "-k", self.folder, *words]
                # A session of its own: Ctrl-C in a terminal is ours, not the server's.
                self.process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True, **self._how())  # type: ignore[call-overload]
                while self.process.poll() is None and time.monotonic() < deadline:
                    if self._ready():
                        return f"ready {self.process.pid} {self.folder}"
                    time.sleep(0.01)
                if "still in use" not in _last_line(log_file):  # by processes of a killed server that are ending
                    break
                time.sleep(0.1)
        return f"failed {_last_line(log_file)}"

    def _pid_file(self) -> list[str]:
        with contextlib.suppress(OSError), open(os.path.join(self.data, "postmaster.pid"), encoding="utf-8") as file:
            return file.read().splitlines()
        return []

    def _ready(self) -> bool:
        lines = self._pid_file()
        return self.process is not None and len(lines) > 7 and lines[0] == str(self.process.pid) and "ready" in lines[7]

    def stop(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is not None and self._pid_file():  # it was killed: a new one clears its memory away
            self.start()
        for number in map(signal.Signals, (2, 3, 9)):  # SIGINT in peace, SIGQUIT at once, SIGKILL by force
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_S)
                break
        self.process = None

    def remove(self) -> None:
        """Remove the folder."""
        _remove(self.folder)


def _lock(file: IO[bytes], *how: str) -> None:
    """flock with these of its flags, by their names."""
    if sys.platform == "win32":
        raise OSError(_NOT_HERE)
    import fcntl

    flags = 0
    for one in how:
        flags |= getattr(fcntl, one)
    fcntl.flock(file, flags)


class _SharedServer(_Server):
    """PostgreSQL over data that last, in HOME/data: one server for all processes that use them at the same time.

    Each of these has a keeper. Whose program comes first starts the server, in its own folder; whose program goes last
    stops it. Locks say who is there, which the system takes from the dead: a shared one of HOME/users is held by each,
    and one of HOME/turn by who starts or stops.
    """

    def __init__(self, folder: str, programs: str, user: str, home: str, settings: list[str]) -> None:
        super().__init__(folder, programs, user, settings)
        self.data = os.path.realpath(os.path.join(home, "data"))
        os.makedirs(self.data, 0o700, exist_ok=True)
        self._users, self._turn = (open(os.path.join(home, name), "ab") for name in ("users", "turn"))  # noqa: SIM115
        self._left_to_others = False

    def start(self) -> str:
        with self._in_turn():
            _lock(self._users, "LOCK_SH")
            if (running := self._running()) is not None:
                return f"ready {running[0]} {running[1]}"
            self._take_over()
            return super().start()

    def stop(self) -> None:
        with self._in_turn():
            _lock(self._users, "LOCK_UN")
            running = self._running()
            try:
                _lock(self._users, "LOCK_EX", "LOCK_NB")
            except BlockingIOError:
                self._left_to_others = running is not None and running[1] == self.folder
                return
            if running is not None and self.process is None:
                self._stop_anothers(*running)
            super().stop()

    def remove(self) -> None:
        if not self._left_to_others:
            super().remove()

    @contextlib.contextmanager
    def _in_turn(self) -> Iterator[None]:
        _lock(self._turn, "LOCK_EX")
        try:
            yield
        finally:
            _lock(self._turn, "LOCK_UN")

    def _running(self) -> tuple[int, str] | None:
        """The number of the server's process and the folder of its socket; None where none runs."""
        if sys.platform == "win32":
            raise OSError(_NOT_HERE)
        lines = self._pid_file()
        if len(lines) <= 7 or "ready" not in lines[7]:
            return None
        if lines[1] != self.data:  # the data were copied beside a server that ran: this says where that is
            os.unlink(os.path.join(self.data, "postmaster.pid"))
            return None
        with socket.socket(socket.AF_UNIX) as asked:
            try:
                asked.connect(os.path.join(lines[4], f".s.PGSQL.{lines[3]}"))
            except OSError:
                return None
        return int(lines[0]), lines[4]

    def _take_over(self) -> None:
        """PostgreSQL takes data that are its user's alone, and in which no folder is missing; a copy may differ."""
        if sys.platform == "win32":
            raise OSError(_NOT_HERE)
        if os.path.exists(os.path.join(self.data, "PG_VERSION")):
            for name in _EMPTY:
                os.makedirs(os.path.join(self.data, name), 0o700, exist_ok=True)
        if self.as_user:
            for home, _, names in os.walk(self.data):
                for place in (home, *(os.path.join(home, name) for name in names)):
                    if os.lstat(place).st_uid != self.as_user["user"]:
                        os.lchown(place, self.as_user["user"], self.as_user["group"])  # type: ignore[arg-type]
        os.chmod(self.data, 0o700)

    def _stop_anothers(self, number: int, folder: str) -> None:
        for one in map(signal.Signals, (2, 3, 9)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, one)
            deadline = time.monotonic() + _STOP_S
            while self._pid_file() and time.monotonic() < deadline:
                time.sleep(0.01)
            if not self._pid_file():
                break
        _remove(folder)


def _last_line(file: str) -> str:
    """The last line of a log that says what went wrong."""
    with open(file, encoding="utf-8", errors="replace") as log:
        lines = [line.strip() for line in log if line.strip()]
    full = [line for line in lines if "No space left" in line]
    wrong = [line for line in lines if any(word in line for word in ("error:", "FATAL:", "PANIC:", "could not"))]
    return (full or wrong or lines or ["it said nothing"])[-1]


def _remove(folder: str) -> None:
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            break
        time.sleep(0.1)


def _made(folder: str, programs: str, user: str, home: str, *settings: str) -> _Server:
    if home:
        return _SharedServer(folder, programs, user, home, list(settings))
    return _Server(folder, programs, user, list(settings))


def main(folder: str, *server: str) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    postgres: _Server | None = None
    try:
        for line in sys.stdin:
            try:
                postgres = postgres or _made(folder, *server)
                if line.strip() == "start":
                    answer = postgres.start()
                else:
                    postgres.stop()
                    answer = "stopped"
            except (OSError, LookupError, subprocess.SubprocessError) as error:
                answer = f"failed {error}"
            with contextlib.suppress(OSError):
                print(answer, flush=True)
    finally:
        if postgres is not None:
            postgres.stop()
            postgres.remove()
        else:
            _remove(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
