"""What a process that works for another one is: gone when that one is, with no word in its output, and easy to end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_FIRST_TO_GO = "500"
"""Of 1000: where memory runs out, Linux ends this process before the one that started it, and before the desktop."""

_working_for: list[int] = []


class CommandReached(BaseException):
    """A program that runs again in a worker has come to where it calls the command line, which is done elsewhere."""


def works_for_another() -> bool:
    """Has `begin` been called: is this a process that another one started to do its work?"""
    return bool(_working_for)


def started(code: str, arguments: Sequence[str], inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a Python process that runs `code`: with our sys.path and flags, in a session and process group of its own.

    Its stdin and stdout are pipes to this process. inherited: descriptors that it has, too, where the system can.
    """
    places = [place or os.getcwd() for place in sys.path]
    begin = f"import sys; sys.path[:] = {places!r}; from {__name__} import begin; begin({os.getpid()}); {code}"
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    posix = sys.platform != "win32"
    return subprocess.Popen(
        [sys.executable, *flags, "-c", begin, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=tuple(inherited) if posix else (),
        start_new_session=posix,  # Ctrl-C in the terminal asks the parent alone, which then ends the whole group
    )


def begin(parent: int) -> None:
    """To be called first in a process that works for `parent`."""
    _working_for.append(parent)
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # no Linux
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")


def end_with(parent: int) -> None:
    """Let the system end this process when its parent has ended, however that ended. Linux alone offers it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended a moment ago
            os._exit(1)


def own_streams() -> tuple[BinaryIO, BinaryIO]:
    """What stdin and stdout were, as binary streams that nobody else knows; stdout is stderr from now on.

    So whatever a library prints, in C too, is no part of what this process answers.
    """
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # replaced by something else, or closed
            stream.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    return asked, answers


def end_group() -> None:
    """End this process at once, and all that it started."""
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that `started` has begun, and all that it started; returns when it is gone. To be called once, as
    another process may have its number later."""
    with contextlib.suppress(OSError):  # gone already
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
    process.wait()


def own_bytes(pid: int) -> int:
    """Memory that a process holds for itself: resident, without the pages of files where the system tells them apart.

    Raises psutil.Error where there is no such process.
    """
    import psutil

    memory = psutil.Process(pid).memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def why_it_ended(returncode: int) -> str:
    """As the second half of a sentence: "was ended by SIGSEGV", "ended itself with exit code 3"."""
    if returncode >= 0:
        return f"ended itself with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    told = {"SIGKILL": "; nobody here did that, so memory may have run out", "SIGSEGV": " (an invalid memory access)"}
    return f"was ended by {name}{told.get(name, '')}"
