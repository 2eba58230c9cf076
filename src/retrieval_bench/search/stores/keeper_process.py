"""The process beside ours that ends a store's server and removes its folder, whatever becomes of us.

It is run as a file, knows the standard library alone, and reads commands from its standard input, one a line:

- `start`: make the database if there is none, start the server; the answer is `ready PID` or `failed WHY`.
- `stop`: stop the server in peace; the answer is `stopped`.

Where the input ends (we have closed it, or we are dead, by whatever signal), it stops the server, removes the folder
and ends. Its first argument is the folder; the others, if any: the folder of PostgreSQL's programs, the user that the
server runs as ("" for our own), and settings as `name=value`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

_START_S, _STOP_S = 60.0, 10.0


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
                        return f"ready {self.process.pid}"
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


def _last_line(file: str) -> str:
    """The last line of a log that says what went wrong."""
    with open(file, encoding="utf-8", errors="replace") as log:
        lines = [line.strip() for line in log if line.strip()]
    full = [line for line in lines if "No space left" in line]
    wrong = [line for line in lines if any(word in line for word in ("error:", "FATAL:", "PANIC:", "could not"))]
    return (full or wrong or lines or ["it said nothing"])[-1]


def main(folder: str, *server: str) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    postgres: _Server | None = None
    try:
        for line in sys.stdin:
            try:
                postgres = postgres or _Server(folder, server[0], server[1], list(server[2:]))
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
        for _ in range(50):
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main(*sys.argv[1:])
