"""Ctrl-C and a polite kill: the work ends at its next step, and what was finished is kept."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_stopping = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A polite kill keeps what was finished, as Ctrl-C does."""
    before = {number: signal.signal(number, _stop_once) for number in _polite()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _polite() -> list[signal.Signals]:
    """The signals that ask a program to end; SIGBREAK is Ctrl-Break of Windows."""
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


def _stop_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the run, once: what comes after the first signal must not break the saving that it starts.

    Python prints and drops an exception that is raised in a destructor. There only the event is set, and the run ends
    at its next step.
    """
    for each in _polite():
        signal.signal(each, signal.SIG_IGN)
    _stopping.set()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.endswith(("weakref.py", "_weakrefset.py")):
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def stoppable(shown: Callable[..., None]) -> Callable[..., None]:
    """The same callback, which the run calls often, and which ends the run when a signal has come."""

    def call(*args: Any) -> None:
        if _stopping.is_set():
            raise KeyboardInterrupt
        shown(*args)

    return call
