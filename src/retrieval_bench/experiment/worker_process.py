"""A worker process as the one that started it sees it: asked, listened to, and ended when it takes too much."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import signal
import sys
import tempfile
import threading
import time
from typing import IO, Any

import psutil

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.worker_messages import Broken, Done, LogLine, ProgressTold, Refused, Unknown
from retrieval_bench.system.child_process import end, own_bytes, started, why_it_ended
from retrieval_bench.system.progress import Progress

log = logging.getLogger("retrieval_bench")

LOOK_EVERY_S = 0.2
"""How often the worker's memory and its being there are looked at."""

_CODE = "from retrieval_bench.experiment.worker import main; main()"
_CLOSED = object()


class WorkerEnded(Exception):
    """The worker is gone; the message says why, as the second half of a sentence.

    Args:
        kind: "Ended", "Timeout", "Memory" or "Bug".
        sentence: the message.
        trace: where in Python it was.
    """

    after_others = False
    """Code that is not this package's had run in the same process before, for another method."""

    def __init__(self, kind: str, sentence: str, trace: str | None = None) -> None:
        super().__init__(sentence)
        self.kind, self.traceback = kind, trace


class NotKnownThere(Exception):
    """Names of the plan are not known in the worker; the message says why."""


def pixel_file() -> IO[bytes] | None:
    """A file without a name, where one worker after the other keeps decoded pixels; None where there can be none."""
    if not hasattr(os, "preadv"):
        return None
    try:
        return tempfile.TemporaryFile(prefix="retrieval_bench-pixels-")
    except OSError as error:
        log.debug("pixels are not kept: %s", error)
        return None


class WorkerProcess:
    """Started at once. pixels: where it keeps decoded pixels; None: in a file of its own, if it can."""

    def __init__(self, pixels: IO[bytes] | None) -> None:
        self.pixels = pixels
        self.ran_code_of_others = False
        self._gone = False
        self._faults = tempfile.TemporaryFile() if sys.platform != "win32" else None  # noqa: SIM115 - see `end`
        faults = -1 if self._faults is None else self._faults.fileno()
        descriptors = [-1 if pixels is None else pixels.fileno(), faults]
        self._process = started(_CODE, [*map(str, descriptors)], [one for one in descriptors if one >= 0])
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="worker's answers", daemon=True).start()

    def _listen(self) -> None:
        stream = self._process.stdout
        while stream is not None:
            try:
                self._answers.put(pickle.load(stream))
            except Exception:  # its end; or what it left unfinished in its last moment, which raises nearly anything
                break
        self._answers.put(_CLOSED)

    def ask(
        self, request: Any, progress: Progress, seconds: float | None = None, most_bytes: int | None = None
    ) -> Done:
        """Send a request and wait for its last answer; log lines and progress are passed on meanwhile.

        Args:
            request: one of the requests of `worker`.
            progress: called for every step that the worker tells of.
            seconds: how long that may take. None: as long as it takes.
            most_bytes: memory that the worker may hold. None: as much as it gets.

        Returns:
            What was asked for.

        Raises:
            BenchError: The worker refused, by the same sentence.
            NotKnownThere: The worker does not know a name of the plan.
            WorkerEnded: The worker ended, or was ended here because of its limits.
        """
        stage = ""
        began = time.monotonic()
        try:
            with contextlib.suppress(OSError):  # it is gone, as the first look at the answers will show
                pickle.dump(request, self._process.stdin, 5)  # type: ignore[arg-type]
                self._process.stdin.flush()  # type: ignore[union-attr]
            looked = began
            while True:
                try:
                    answer = self._answers.get(timeout=LOOK_EVERY_S)
                except queue.Empty:
                    answer = None
                match answer:
                    case ProgressTold():
                        stage = answer.what
                        progress(answer.what, answer.done, answer.total)
                    case LogLine():
                        log.log(answer.level, "%s", answer.text)
                    case Done():
                        return answer
                    case Refused():
                        raise BenchError(answer.sentence)
                    case Unknown():
                        raise NotKnownThere(answer.sentence)
                    case Broken():
                        raise WorkerEnded("Bug", "met a bug of this program", answer.traceback)
                now = time.monotonic()
                if answer is _CLOSED:
                    raise self._ended(stage)
                if now - looked >= LOOK_EVERY_S:
                    looked = now
                    self._look(stage, now - began, seconds, most_bytes)
        except BaseException as error:
            if not isinstance(error, BenchError):
                self.end()
            raise

    def _look(self, stage: str, spent: float, seconds: float | None, most_bytes: int | None) -> None:
        if seconds is not None and spent > seconds:
            raise WorkerEnded(
                "Timeout",
                f"was not done after {seconds:g} s and was ended{_in(stage)}; give it more by --timeout",
                self._what_goes_on(),
            )
        try:
            held = own_bytes(self._process.pid)
        except psutil.Error:  # gone
            held = 0
        if most_bytes is not None and held > most_bytes:
            raise WorkerEnded(
                "Memory",
                f"took {held / 2**30:.1f} GiB of memory where {most_bytes / 2**30:.1f} are allowed, and was ended"
                f"{_in(stage)}; allow more by --max-memory",
                self._what_goes_on(),
            )
        if self._process.poll() is not None and self._answers.empty():  # a child of its own may hold the pipe open
            raise self._ended(stage)

    def _ended(self, stage: str) -> WorkerEnded:
        returncode = self._process.wait()
        return WorkerEnded("Ended", f"{why_it_ended(returncode)}{_in(stage)}", self._read_faults())

    def _what_goes_on(self) -> str | None:
        """Where each thread of the worker is; asked for with a signal, as it may be in the middle of anything."""
        if self._faults is None or sys.platform == "win32":
            return None
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and not os.fstat(self._faults.fileno()).st_size:
            time.sleep(0.01)
        return self._read_faults()

    def _read_faults(self) -> str | None:
        if self._faults is None:
            return None
        self._faults.seek(0)
        return self._faults.read(20_000).decode("utf-8", "replace") or None

    def end(self) -> None:
        """End the worker, and all that it started, wherever it is."""
        if self._gone:
            return
        self._gone = True
        end(self._process)
        if self._faults is not None:
            self._faults.close()


def _in(stage: str) -> str:
    return f", in its step {stage!r}" if stage else ", before its first step"
