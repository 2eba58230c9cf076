"""A folder of a store's own that is gone when we are, whatever ended us."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO

from retrieval_bench.core import BenchError
from retrieval_bench.search.stores import keeper_process

_LONGEST = 90
"""Characters of a folder in which a socket of a unix domain still has a name that the system takes (107 in all)."""


class KeptFolder:
    """A new folder below the system's for temporary files, and the process that removes it (see keeper_process.py).

    The process waits at the end of a pipe whose other end is ours. When we close it, end, or are killed, the pipe ends,
    and the process stops what runs in the folder and removes it.

    Args:
        name: what the folder's name begins with.
        server: what the process is told of the server that it shall keep; empty for none.

    Raises:
        BenchError: No folder can be made.
    """

    def __init__(self, name: str, server: tuple[str, ...] = ()) -> None:
        try:
            made = tempfile.mkdtemp(prefix=f"{name}-")
            if server and len(made) > _LONGEST:
                shutil.rmtree(made)
                made = tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp")
        except OSError as error:
            raise BenchError(
                f"no folder for the store can be made below {tempfile.gettempdir()} ({error.strerror}); set TMPDIR "
                "to a place with room"
            ) from None
        self.path = Path(made)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper_process.__file__, made, *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _end, self._process)

    def ask(self, command: str) -> str:
        """Give a command to the process -> its answer; "" where the process is gone."""
        pipe: IO[str] | None = self._process.stdin
        answers: IO[str] | None = self._process.stdout
        if pipe is None or answers is None or pipe.closed:
            return ""
        with contextlib.suppress(OSError):
            pipe.write(f"{command}\n")
            pipe.flush()
            return answers.readline().strip()
        return ""

    def close(self) -> None:
        """End the server and remove the folder; returns when both are gone."""
        self._end()


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait(60)
