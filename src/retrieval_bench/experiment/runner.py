"""The whole experiment, top to bottom: prepare the data once, then walk every method the same way."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError
from retrieval_bench.experiment import sanity_checks
from retrieval_bench.experiment.executor import Controlled, Executor, MethodOutcome, Opened
from retrieval_bench.experiment.features import refuse_empty
from retrieval_bench.experiment.in_process import InProcessExecutor
from retrieval_bench.experiment.prepare import Plan, Trial, prepare
from retrieval_bench.experiment.resume import finished_before
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Pipeline, refuse_wrong_options
from retrieval_bench.plugins.loading import owners
from retrieval_bench.records.files import claimed, save
from retrieval_bench.records.schema import Record, Row
from retrieval_bench.report.table import derived
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.python_sources import short

log = logging.getLogger("retrieval_bench")

DEFAULT_METHODS = ("sift", "hog", "phash", "color", "efficientnet_lite0", "convnet", "random", "oracle")


def run(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress = silent,
    on_row: Callable[[Row], None] = lambda row: None,
    executor: Executor | None = None,
) -> Record:
    """Run an experiment: prepare the data, evaluate each method, and save the record after each method.

    Methods are compared with each other at the end, or when the run is interrupted.

    Args:
        plan: methods, dataset and settings.
        out: folder of the record.
        overwrite: replace an earlier record in `out`; else it is moved to `out`/earlier.
        resume: keep the finished rows of the record in `out`, which must be of the same run, and evaluate the others.
        progress: called often with (what is done, steps done, steps in all).
        on_row: called with the row of each method that was evaluated.
        executor: who prepares the data and evaluates methods. None: this process, where the thresholds of the memory
            allocator are then fixed for its life (see `timing.steady_allocator`).

    Returns:
        The record, as it was saved.

    Raises:
        BenchError: The data cannot be used, `out` cannot be written, or its record is of another run and cannot be
            resumed. A method that fails does not end the run.
        KeyboardInterrupt: The run was interrupted; the methods that were finished are saved.
    """
    out = Path(os.path.abspath(out))  # a method may change the working directory
    with claimed(out), contextlib.ExitStack() as at_end:
        if executor is None:
            executor = own = InProcessExecutor()
            at_end.callback(own.close)
        opened = executor.open(plan, progress)
        results = Results(plan.methods, opened)
        before = finished_before(out, opened, plan.methods) if resume else None
        if before is not None:
            results.go_on_from(*before)
        keep_earlier = not overwrite and before is None
        record = results.record
        try:
            for method in plan.methods:
                if str(method) in results:
                    log.info("%s: finished before", method)
                    continue
                log.info("%s: starting", method)
                outcome = executor.evaluate(method, progress)
                results.add(str(method), outcome)
                record = results.record
                record = save(record, out, results.arrays, derived(record), keep_earlier)
                keep_earlier = False
                on_row(outcome.row)
            # Once, after all rows: after each, the pairs of all before it would be resampled again.
            record = results.compared(record, executor, progress)
            record = guarded(record, results.arrays, executor.controls(progress))
        except KeyboardInterrupt:
            if record.rows:
                if not record.comparisons:
                    record = results.compared(record, InProcessExecutor(), silent)  # no other has time for it
                record = record.model_copy(update={"status": "interrupted"})
                save(record, out, results.arrays, derived(record), keep_earlier)
            raise
        return save(record, out, results.arrays, derived(record))


class Results:
    """What is known of each method by now, in the order of the plan, whatever order it came in."""

    def __init__(self, methods: tuple[Method, ...], opened: Opened) -> None:
        self._order = [str(method) for method in methods]
        self._blank, self._common = opened.record, opened.arrays
        self._done: dict[str, MethodOutcome] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def go_on_from(self, record: Record, finished: Mapping[str, MethodOutcome]) -> None:
        """Keep what an earlier record of the same run holds, and when and by which command that run began."""
        self._blank = self._blank.model_copy(update={"created": record.created, "command": record.command})
        for name, outcome in finished.items():
            self.add(name, outcome)

    def add(self, name: str, outcome: MethodOutcome) -> None:
        """Keep what became of the method of this name."""
        self._done[name] = outcome
        if outcome.libraries:
            where = self._blank.environment.model_copy(update=dict(outcome.libraries))
            self._blank = self._blank.model_copy(update={"environment": where})

    @property
    def _outcomes(self) -> list[MethodOutcome]:
        return [self._done[name] for name in self._order if name in self._done]

    @property
    def record(self) -> Record:
        """The record with a row for each method that is known."""
        return self._blank.model_copy(update={"rows": tuple(outcome.row for outcome in self._outcomes)})

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Those of rankings.npz: what methods share, then method by method."""
        arrays = dict(self._common)
        for outcome in self._outcomes:
            arrays |= outcome.arrays
        return arrays

    def compared(self, record: Record, executor: Executor, progress: Progress) -> Record:
        """The record with every two methods compared that are no controls."""
        values: dict[str, Mapping[str, np.ndarray]] = {
            outcome.row.method: outcome.per_query
            for outcome in self._outcomes
            if outcome.per_query and outcome.row.family != "control"
        }
        if record.statistics is None:
            return record
        found = executor.compare(values, self._common["query_labels"], record.statistics, progress)
        return record.model_copy(update={"comparisons": found})


def guarded(record: Record, arrays: Mapping[str, np.ndarray], controlled: Controlled) -> Record:
    """The record with its controls, finished, or failed where it breaks a rule."""
    broken: tuple[str, ...] = ()
    if controlled.failure:
        broken = (f"the controls cannot be computed ({controlled.failure}), so nothing vouches for the numbers",)
    record = record.model_copy(update={"controls": {name: dict(one) for name, one in controlled.scores.items()}})
    broken += sanity_checks.violations(record, arrays, sample=controlled.sample, learn_from=controlled.learned_from)
    for sentence in broken:
        log.error("%s", sentence)
    return record.model_copy(update={"violations": broken, "status": "failed" if broken else "finished"})


def check(plan: Plan, progress: Progress = silent) -> Trial:
    """All that can go wrong before the first feature: the data, and every method but networks, which may download."""
    for method in plan.methods:
        refuse_wrong_options(method, plan.setup, plan.backend)
    trial = prepare(plan, progress)
    check_on(plan, trial)
    return trial


def check_on(plan: Plan, trial: Trial) -> None:
    """The part of `check` that looks at data which are prepared already. BenchError where a method cannot use them."""
    for method in plan.methods:
        if not method.deep:
            try:
                pipeline = Pipeline(method, plan.setup, plan.backend)
                pipeline.meet(trial.dataset)
            except BenchError:
                raise
            except (Exception, SystemExit) as error:
                if not owners(method.entries):
                    raise
                raise BenchError(f"{method}, which is of a plug-in, failed: {short(error)}") from error
            if pipeline.learns:
                refuse_empty(trial.train, str(method))


def unique(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """The methods without repeats, in order."""
    return tuple({str(method): method for method in methods}.values())
