"""What runs in a worker process: requests come in by a pipe and are carried out here, one after the other.

Nothing that a method does is felt outside: not what it prints, nor where it changes the working directory or the
environment. Where the process that asks is gone, this one ends, too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import pickle
import queue
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, BinaryIO

from retrieval_bench import registry
from retrieval_bench.core import BenchError
from retrieval_bench.experiment.executor import MethodOutcome
from retrieval_bench.experiment.in_process import InProcessExecutor
from retrieval_bench.experiment.prepare import Plan
from retrieval_bench.experiment.worker_messages import (
    Broken,
    Compare,
    Control,
    Done,
    Evaluate,
    LogLine,
    Open,
    ProgressTold,
    Refused,
    Unknown,
)
from retrieval_bench.images.decoded_cache import PixelStore
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.plugins.loading import load_files
from retrieval_bench.records.schema import Failure, Row
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.child_process import CommandReached, end_group, own_streams

PROGRESS_EVERY_S = 0.1


def packed(plan: Plan) -> dict[str, Any]:
    """A plan as another process can read it: methods and dataset as one writes them."""
    facts = {field.name: getattr(plan, field.name) for field in fields(plan)}
    return facts | {
        "methods": tuple(map(str, plan.methods)),
        "dataset": str(plan.dataset),
        "cache": plan.cache.root,
    }


def unpacked(facts: dict[str, Any]) -> Plan:
    """The plan again. BenchError where a name is not known in this process."""
    methods = tuple(parse_method(text) for text in facts["methods"])
    dataset = parse(DATASETS, facts["dataset"])
    for name in facts["classifiers"]:
        registry.CLASSIFIERS[name]
    registry.BACKENDS[facts["backend"]]
    return Plan(**facts | {"methods": methods, "dataset": dataset, "cache": FeatureCache(facts["cache"])})


class _Answers:
    """The way back to the process that asks; several threads may use it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._what = ""
        self._told_at = 0.0

    def send(self, answer: Any) -> None:
        content = pickle.dumps(answer, 5)
        with self._lock:
            self._stream.write(content)
            self._stream.flush()

    def progress(self, what: str, done: int, total: int) -> None:
        """Each step of its own at once, and of its count as much as anyone can see."""
        now = time.monotonic()
        if what != self._what or now - self._told_at > PROGRESS_EVERY_S:
            self._what, self._told_at = what, now
            self.send(ProgressTold(what, done, total))


class _Forwarded(logging.Handler):
    """Log lines go to the process that asks, which shows them."""

    def __init__(self, answers: _Answers) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.levelno <= logging.DEBUG:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._answers.send(LogLine(record.levelno, text))


def main() -> None:
    """Carry out requests until nobody asks any more."""
    pixels, faults = map(int, sys.argv[1:3])  # descriptors; -1: there is none
    asked, answers = own_streams()
    _tell_of_faults(faults)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, requests), name="requests", daemon=True).start()
    work = _Work(_Answers(answers), PixelStore(file=None if pixels < 0 else pixels))
    registry.fill()  # while the process that asks does the same
    while True:
        work.carry_out(requests.get())


def _listen(asked: BinaryIO, requests: queue.SimpleQueue[Any]) -> None:
    """Whatever the work is doing, notice that nobody waits for it any more."""
    while True:
        try:
            requests.put(pickle.load(asked))
        except (EOFError, OSError, pickle.UnpicklingError):
            end_group()


def _tell_of_faults(faults: int) -> None:
    """Where a crash happened, or what goes on when the parent asks before it ends this process, into that file."""
    if faults < 0 or sys.platform == "win32":
        faulthandler.enable()
        return
    faulthandler.enable(file=faults)
    faulthandler.register(signal.SIGUSR1, file=faults)


class _Work:
    def __init__(self, answers: _Answers, store: PixelStore) -> None:
        self._answers, self._store = answers, store
        self._stored = 0
        self._executor = InProcessExecutor(store)
        self._methods: dict[str, Method] = {}

    def carry_out(self, request: Any) -> None:
        try:
            self._answers.send(self._answer(request))
        except BenchError as error:
            self._answers.send(Refused(str(error)))
        except Exception:
            self._answers.send(Broken(traceback.format_exc()))

    def _answer(self, request: Any) -> Any:
        match request:
            case Open():
                sys.argv = list(request.argv)
                _set_environment(request.variables)  # options may have changed it after this process was started
                self._store.go_on_from(request.pixels)
                self._stored = len(self._store)
                try:
                    plan = self._plan_of(request)
                except Exception as error:  # the scripts and modules of others raise nearly anything
                    return Unknown(f"{type(error).__name__}: {error}")
                logger = logging.getLogger("retrieval_bench")
                logger.addHandler(_Forwarded(self._answers))
                logger.setLevel(request.level)
                self._methods = {str(method): method for method in plan.methods}
                return self._done(self._executor.open(plan, self._answers.progress))
            case Evaluate():
                with _left_as_found():
                    outcome = self._evaluated(self._methods[request.method])
                return self._done(outcome)
            case Compare():
                progress = self._answers.progress
                return Done(self._executor.compare(request.values, request.labels, request.how, progress))
            case Control():
                return self._done(self._executor.controls(self._answers.progress))
        raise TypeError(f"no request: {request!r}")

    def _plan_of(self, request: Open) -> Plan:
        if request.script:
            _run_up_to_its_command(request.script)
        for module in request.modules:
            importlib.import_module(module)
        registry.fill()
        load_files(request.plugins)
        return unpacked(request.plan)

    def _evaluated(self, method: Method) -> MethodOutcome:
        try:
            return self._executor.evaluate(method, self._answers.progress)
        except BaseException as error:  # a KeyboardInterrupt is the method's own here: nobody interrupts this process
            sentence = f"{type(error).__name__}: {error}"
            failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
        logging.getLogger("retrieval_bench").error("%s failed: %s", method, failure.sentence)
        row = Row(method=str(method), family=method.family, status="failed", params=method.resolved, error=failure)
        return MethodOutcome(row)

    def _done(self, result: Any) -> Done:
        if len(self._store) == self._stored:
            return Done(result)
        self._stored = len(self._store)
        return Done(result, self._store.index)


def _run_up_to_its_command(script: str) -> None:
    """Run the user's program again, for what it registers, up to where it calls the command line."""
    with contextlib.suppress(CommandReached):
        runpy.run_path(script, run_name="__mp_main__")


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """The working directory and the environment are, for the next method, what they were before this one."""
    home, variables = os.getcwd(), dict(os.environ)
    try:
        yield
    finally:
        os.chdir(home)
        _set_environment(variables)


def _set_environment(variables: Mapping[str, str]) -> None:
    if dict(os.environ) != variables:
        os.environ.clear()
        os.environ.update(variables)
