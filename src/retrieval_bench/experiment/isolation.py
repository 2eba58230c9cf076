"""The run carried out by a worker process, so that a method can crash, hang or eat all memory and end its own row only.

One worker goes on from method to method, since libraries, kernels and pixels would cost more a second time. Where it
ends, the row that it was busy with has failed, and a new worker takes the next.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.experiment.executor import Controlled, Executor, MethodOutcome, Opened
from retrieval_bench.experiment.in_process import InProcessExecutor
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.worker import packed
from retrieval_bench.experiment.worker_messages import Compare, Control, Evaluate, Open
from retrieval_bench.experiment.worker_process import NotKnownThere, WorkerEnded, WorkerProcess, pixel_file
from retrieval_bench.images.decoded_cache import PixelIndex
from retrieval_bench.methods.parse import Method
from retrieval_bench.plugins.loading import files, owner
from retrieval_bench.records.schema import Comparison, DatasetFacts, Failure, ImageCounts, Row, Statistics
from retrieval_bench.registry import ALL, Entry
from retrieval_bench.system.memory_limit import usable_memory
from retrieval_bench.system.progress import Progress

log = logging.getLogger("retrieval_bench")

LEAST_TIMEOUT_S = 3600.0
S_AN_IMAGE = 1.0
"""By default a method may take an hour, and a second more for each image that it describes."""
SHARE_OF_MEMORY = 0.9
"""By default a worker may hold this share of the memory that there is."""
_LEAVE_HALF_A_LIBRARY = ("ImportError", "MemoryError", "OSError")
"""Kinds of failures after which a part of what was to be loaded stays in the process."""


class IsolatedExecutor:
    """Implements `Executor`; `with IsolatedExecutor() as executor: ...` ends its worker at last.

    Args:
        timeout_s: how long a method may take. None: LEAST_TIMEOUT_S, and S_AN_IMAGE for each image.
        most_bytes: memory that the worker may hold. None: SHARE_OF_MEMORY of what this process may use.
        worker: one that was started before. None: it is started now.
    """

    def __init__(
        self, timeout_s: float | None = None, most_bytes: int | None = None, worker: WorkerProcess | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._most_bytes = int(SHARE_OF_MEMORY * usable_memory()) if most_bytes is None else most_bytes
        self._worker: WorkerProcess | None = WorkerProcess(pixel_file()) if worker is None else worker
        self._pixels = self._worker.pixels
        self._index = PixelIndex()
        self._here: Executor | None = None
        self._plan: Plan | None = None
        self._facts: DatasetFacts | None = None
        self._changed = False

    def __enter__(self) -> IsolatedExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._worker is not None:
            self._worker.end()
        if self._pixels is not None:
            self._pixels.close()

    def open(self, plan: Plan, progress: Progress) -> Opened:
        if (there := _only_here(plan)) is not None:
            return self._open_here(plan, progress, f"{there} is defined in this process alone")
        try:
            opened = self._opened(plan, progress)
        except NotKnownThere as error:
            return self._open_here(plan, progress, str(error))
        except WorkerEnded as ended:
            if ended.kind == "Bug":
                raise RuntimeError(f"in the worker process:\n{ended.traceback}") from None
            if plan.device != "auto":
                raise BenchError(f"the data cannot be made ready: the process that did it {ended}") from None
            log.warning("looking for a GPU, or making the data ready, %s; once more on the CPU", ended)
            try:
                opened = self._opened(replace(plan, device="cpu"), progress)
            except WorkerEnded as again:
                raise BenchError(f"the data cannot be made ready: the process that did it {again}") from None
        self._facts = opened.record.dataset
        # Another worker, should one be needed, shall do as this one did.
        self._plan = replace(self._plan or plan, device=opened.record.settings.device)
        if opened.half_loaded:
            self._leave_the_worker()
        return opened

    def _open_here(self, plan: Plan, progress: Progress, reason: str) -> Opened:
        log.warning("methods run in this process, where a crash of one ends all: %s", reason)
        if self._worker is not None:
            self._worker.end()
        self._here = InProcessExecutor()
        return self._here.open(plan, progress)

    def _opened(self, plan: Plan, progress: Progress) -> Opened:
        """A worker that has the data ready."""
        worker = self._worker = self._worker or WorkerProcess(self._pixels)
        self._plan = plan
        modules, script = _registering()
        request = Open(
            packed(plan),
            files(),
            modules,
            script,
            sys.argv,
            dict(os.environ),
            log.getEffectiveLevel(),
            self._index,
        )
        try:
            return self._asked(worker, request, progress)  # type: ignore[no-any-return]
        except (WorkerEnded, BenchError):
            self._worker = None
            worker.end()
            raise

    def _asked(self, worker: WorkerProcess, request: Any, progress: Progress, seconds: float | None = None) -> Any:
        done = worker.ask(request, progress, seconds, self._most_bytes)
        if done.pixels is not None:
            self._index = done.pixels
        return done.result

    def _ready(self, progress: Progress) -> WorkerProcess:
        """The worker, or a new one that has the same data ready."""
        if self._worker is None and self._plan is not None and not self._changed:
            opened = self._opened(self._plan, progress)
            self._changed = self._facts is None or opened.record.dataset.fingerprint != self._facts.fingerprint
        if self._changed:
            raise BenchError("the images or labels are no longer those that the run began with")
        if self._worker is None:
            raise ValueError("not opened")
        return self._worker

    def evaluate(self, method: Method, progress: Progress) -> MethodOutcome:
        if self._here is not None:
            return self._here.evaluate(method, progress)
        failure = self._tried(method, progress)
        if isinstance(failure, WorkerEnded) and failure.kind == "Ended" and failure.after_others:
            log.warning(
                "%s: its process %s, after code of others had run in it; once more in a new one", method, failure
            )
            failure = self._tried(method, progress)
        if isinstance(failure, MethodOutcome):
            error = failure.row.error
            if error is not None and error.kind in _LEAVE_HALF_A_LIBRARY:
                self._leave_the_worker()
            return failure
        sentence = f"its process {failure}" if isinstance(failure, WorkerEnded) else f"no process for it: {failure}"
        log.error("%s failed: %s", method, sentence)
        return MethodOutcome(_failed_row(method, failure, sentence))

    def _leave_the_worker(self) -> None:
        """The next method gets a new one: half a library stays in this one, and may leave no room for others."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _tried(self, method: Method, progress: Progress) -> MethodOutcome | WorkerEnded | BenchError:
        try:
            worker = self._ready(progress)
        except (BenchError, WorkerEnded) as error:
            return error if isinstance(error, BenchError) else BenchError(f"the one that made the data ready {error}")
        before = worker.ran_code_of_others
        worker.ran_code_of_others = before or any(not _ours(entry) for entry in method.entries)
        try:
            return self._asked(worker, Evaluate(str(method)), progress, self._seconds)  # type: ignore[no-any-return]
        except WorkerEnded as ended:
            self._worker = None
            ended.after_others = before
            return ended

    @property
    def _seconds(self) -> float:
        if self._timeout_s is not None or self._plan is None or self._facts is None:
            return self._timeout_s or LEAST_TIMEOUT_S
        return default_timeout_s(self._facts.images, len(self._plan.perturb) * len(self._plan.severities))

    def compare(
        self, values: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, how: Statistics, progress: Progress
    ) -> dict[str, Comparison]:
        if self._here is None and self._worker is not None:  # where scipy is loaded already
            try:
                return self._asked(self._worker, Compare(values, labels, how), progress)  # type: ignore[no-any-return]
            except WorkerEnded as ended:
                self._worker = None
                log.debug("the worker %s", ended)
        return (self._here or InProcessExecutor()).compare(values, labels, how, progress)

    def controls(self, progress: Progress) -> Controlled:
        if self._here is not None:
            return self._here.controls(progress)
        reason = ""
        for _ in range(2):  # what a method left behind in the first may end it
            try:
                return self._asked(self._ready(progress), Control(), progress, self._seconds)  # type: ignore[no-any-return]
            except WorkerEnded as ended:
                self._worker = None
                reason = f"their process {ended}"
            except BenchError as error:
                reason = str(error)
        return Controlled({}, reason, None, None)


def default_timeout_s(images: ImageCounts, perturbed: int = 0) -> float:
    """How long a method may take where nobody says it. perturbed: how often all queries are described once more."""
    described = images.train + images.gallery + images.query * (1 + perturbed)
    return LEAST_TIMEOUT_S + S_AN_IMAGE * described


def _failed_row(method: Method, failure: Exception, sentence: str) -> Row:
    kind = failure.kind if isinstance(failure, WorkerEnded) else "BenchError"
    trace = failure.traceback if isinstance(failure, WorkerEnded) else None
    return Row(
        method=str(method),
        family=method.family,
        status="failed",
        params=method.resolved,
        error=Failure(kind=kind, sentence=sentence, traceback=trace),
    )


def _module(entry: Entry) -> str:
    return getattr(inspect.unwrap(entry.build), "__module__", None) or ""


def _ours(entry: Entry) -> bool:
    return _module(entry).partition(".")[0] == "retrieval_bench"


def _foreign(entry: Entry) -> str | None:
    """The module that registered an entry which is neither this package's nor a plug-in's; None for all others."""
    return None if _ours(entry) or owner(entry) is not None else _module(entry)


def _importable(module: str) -> bool:
    if module == "__main__":
        return _script() != ""
    return getattr(sys.modules.get(module), "__spec__", None) is not None


def _script() -> str:
    """The file of the program that runs; "" where it has none."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.abspath(file) if file and os.path.isfile(file) else ""


def _only_here(plan: Plan) -> str | None:
    """A name of the plan that another process cannot learn, such as one of a notebook."""
    methods = [entry for method in plan.methods for entry in method.entries]
    for entry in (*methods, plan.dataset.entry):
        module = _foreign(entry)
        if module is not None and not _importable(module):
            return entry.name
    return None


def _registering() -> tuple[list[str], str]:
    """The user's modules that have registered names, and the program itself if it has."""
    found = dict.fromkeys(
        module
        for every in ALL.values()
        for entry in every.own()
        if (module := _foreign(entry)) is not None and _importable(module)
    )
    return [module for module in found if module != "__main__"], _script() if "__main__" in found else ""
