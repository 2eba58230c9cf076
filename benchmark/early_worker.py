"""The worker process of `run`, started before this process has loaded anything, so that both load at the same time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_bench.experiment.worker_process import WorkerProcess

_ahead: list[WorkerProcess] = []
_NEEDS_NONE = ("off", "--isolate=off", "--dry-run", "--help", "-h")


@contextlib.contextmanager
def started_early() -> Iterator[None]:
    """Start it if the words of the command line ask for it, without reading them closely; unused, it ends here."""
    if sys.argv[1:2] == ["run"] and not any(word in _NEEDS_NONE for word in sys.argv):
        from retrieval_bench.experiment.worker_process import WorkerProcess, pixel_file

        _ahead.append(WorkerProcess(pixel_file()))
    try:
        yield
    finally:
        while _ahead:
            _ahead.pop().end()


def taken() -> WorkerProcess | None:
    """The worker, which is the caller's from now on; None where none was started."""
    return _ahead.pop() if _ahead else None
