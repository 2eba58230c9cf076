"""The run carried out by this process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.distributed.engine import WorkEngine, open_engine
from retrieval_bench.distributed.local import LocalEngine
from retrieval_bench.evaluation.uncertainty import comparisons
from retrieval_bench.experiment import sanity_checks
from retrieval_bench.experiment.device_choice import resolve_device
from retrieval_bench.experiment.executor import Controlled, MethodOutcome, Opened
from retrieval_bench.experiment.one_method import evaluate
from retrieval_bench.experiment.prepare import Plan, Trial, prepare
from retrieval_bench.experiment.recording import (
    blank_record,
    common_arrays,
    dataset_facts,
    loaded_libraries,
    ranking_arrays,
)
from retrieval_bench.experiment.reduced_decoding import reduced
from retrieval_bench.images.decoded_cache import PixelStore
from retrieval_bench.images.decoding import MAX_PIXELS
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import refuse_wrong_options
from retrieval_bench.plugins.loading import owners
from retrieval_bench.records.schema import Comparison, DatasetFacts, PluginFacts, Settings, Statistics
from retrieval_bench.registry import BACKENDS, CLASSIFIERS, METRICS
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.python_sources import short
from retrieval_bench.system.timing import pinned, steady_allocator

log = logging.getLogger("retrieval_bench")


def _load_what_all_need() -> None:
    """Before torch, which in a process that may have little memory can leave no room to load anything else."""
    for name in ("cv2", "scipy.linalg.blas", "retrieval_bench.search.kernels"):
        with contextlib.suppress(ImportError):  # told where it is needed
            importlib.import_module(name)


class InProcessExecutor:
    """Implements `Executor`. store: where decoded pixels wait; None: in a file of its own.

    The thresholds of the memory allocator are fixed for the life of the process (see `timing.steady_allocator`).
    """

    plan: Plan
    trial: Trial

    def __init__(self, store: PixelStore | None = None) -> None:
        self._store = store
        self._engine: WorkEngine = LocalEngine()

    def open(self, plan: Plan, progress: Progress) -> Opened:
        allocator = steady_allocator()
        _load_what_all_need()
        asked = plan.device == "auto" and any(method.deep for method in plan.methods)
        plan = replace(plan, device=resolve_device(plan.device, plan.methods, plan.backend))
        half_loaded = asked and "torch" not in sys.modules
        for method in plan.methods:
            refuse_wrong_options(method, plan.setup, plan.backend)
        self.close()
        self._engine = open_engine(plan.engine)  # where nobody answers, no image was looked at in vain
        plan, notices = reduced(plan)
        try:
            trial = prepare(plan, progress, self._store)
        except ImportError as error:
            raise BenchError(
                f"a library that reads images cannot be loaded ({short(error)}); install it again"
            ) from error
        if notices:
            trial = replace(trial, dataset=trial.dataset.with_splits({}, notices))
        self.plan, self.trial = plan, trial
        record = blank_record(_dataset_facts(plan, trial), _settings(plan, trial), trial, allocator)
        return Opened(record, common_arrays(trial), half_loaded)

    def evaluate(self, method: Method, progress: Progress) -> MethodOutcome:
        done = evaluate(method, self.plan, self.trial, progress, self._engine)
        libraries = loaded_libraries(self.plan.threads, self.plan.device)
        if done.ranking is None:
            return MethodOutcome(done.row, libraries=libraries)
        arrays = ranking_arrays(
            done.row, done.ranking, done.relevant, done.classifiers, done.unanswerable_distances, done.truncated
        )
        return MethodOutcome(done.row, arrays, done.per_query, libraries)

    def close(self) -> None:
        """End the engine of the run. What is evaluated afterwards is done by this process alone."""
        self._engine.close()
        self._engine = LocalEngine()

    def compare(
        self, values: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, how: Statistics, progress: Progress
    ) -> dict[str, Comparison]:
        return comparisons(values, labels, how)

    def controls(self, progress: Progress) -> Controlled:
        plan, trial = self.plan, self.trial
        scores: dict[str, dict[str, float]] = {}
        failure = ""
        try:
            with pinned(plan.threads):
                scores = sanity_checks.controls(trial, plan.seed, plan.backend, plan.device)
        except Exception as error:  # whatever it is, the methods' numbers come from the same search and judgement
            log.error("the controls failed", exc_info=True)
            failure = f"{type(error).__name__}: {error}"
        return Controlled(scores, failure, sanity_checks.sampled(trial, plan.seed), trial.train.content)


def _settings(plan: Plan, trial: Trial) -> Settings:
    return Settings(
        methods=tuple(map(str, plan.methods)),
        classifiers=plan.classifiers,
        k=trial.k,
        seed=plan.seed,
        weights=printable(plan.weights),
        device=plan.device,
        threads=plan.threads,
        limit=plan.limit,
        backend=plan.backend,
        depth=trial.depth,
        perturb=plan.perturb,
        severities=plan.severities if plan.perturb else (),
        relevance=plan.relevance,
        learn_from=plan.learn_from,
        concurrency=plan.concurrency,
        thresholds=plan.thresholds,
        engine=plan.engine,
        max_pixels=None if plan.decoding.max_pixels == MAX_PIXELS else plan.decoding.max_pixels,
        decoded_for=plan.decoding.wanted or None,
        plugins=_plugins(plan),
    )


def _plugins(plan: Plan) -> tuple[PluginFacts, ...]:
    """The plug-ins that anything in this run comes from; every metric that there is is computed."""
    classifiers = [CLASSIFIERS[name] for name in plan.classifiers]
    methods = [entry for method in plan.methods for entry in method.entries]
    used = owners([*methods, plan.dataset.entry, *classifiers, BACKENDS[plan.backend], *METRICS.own()])
    return tuple(
        PluginFacts(name=one.name, package=None if one.file else one.source, sha256=one.sha256) for one in used
    )


def _dataset_facts(plan: Plan, trial: Trial) -> DatasetFacts:
    return dataset_facts(
        trial.dataset,
        plan.dataset,
        plan.root,
        fingerprint=trial.fingerprint,
        left_out=trial.left_out,
        skipped=trial.skipped,
    )
