"""The whole experiment, top to bottom: prepare the data once, then walk every method the same way.

Quality and time are two passes. Quality runs over all queries at once and may take features from the cache; time goes
one query at a time after warm-up and never does.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Ranking, printable
from retrieval_bench.evaluation.relevance import Relevant
from retrieval_bench.evaluation.uncertainty import class_mean_intervals_of, intervals_of, statistics
from retrieval_bench.experiment import sanity_checks
from retrieval_bench.experiment.classification import Classified, Learnable, classify_all, unseen
from retrieval_bench.experiment.features import refuse_empty
from retrieval_bench.experiment.latency import TIMED_QUERIES, measure
from retrieval_bench.experiment.prepare import FROM_GALLERY, Plan, Trial, prepare
from retrieval_bench.experiment.quality import QualityResult, quality
from retrieval_bench.experiment.recording import (
    blank_record,
    common_arrays,
    dataset_facts,
    ranking_arrays,
    with_comparisons,
    with_row,
)
from retrieval_bench.experiment.reduced_decoding import reduced
from retrieval_bench.experiment.robustness import evaluate_perturbed
from retrieval_bench.images.decoding import MAX_PIXELS
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.plugins.loading import owners
from retrieval_bench.records.files import claimed, save
from retrieval_bench.records.schema import DatasetFacts, Failure, PluginFacts, Record, Row, Settings, TimeFigure
from retrieval_bench.registry import BACKENDS, CLASSIFIERS, METRICS
from retrieval_bench.report.table import derived
from retrieval_bench.system.device import check_device, gpu_is_there
from retrieval_bench.system.other_processes import OtherProcesses
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.python_sources import short
from retrieval_bench.system.timing import PeakMemory, Stopwatch, Time, pinned, release_memory, steady_allocator

log = logging.getLogger("retrieval_bench")

DEFAULT_METHODS = ("sift", "hog", "phash", "color", "efficientnet_lite0", "convnet", "random", "oracle")


@dataclass(frozen=True, eq=False)
class MethodResult:
    """The result of one method: its row of the record and, if it did not fail, what it found.

    Args:
        row: the row of the record.
        ranking: the nearest gallery rows of each query. None: the method failed.
        relevant: the ranks of the relevant items. None: the method failed.
        classifiers: name -> what this classifier predicted.
        per_query: metric -> (q,) float64, a value for each query.
        unanswerable_distances: (u,) float32, of each query without an answer to its nearest gallery image. None: there
            are none, or the distances of two queries cannot be compared.
        truncated: rankings may end before the gallery does.
    """

    row: Row
    ranking: Ranking | None = None
    relevant: Relevant | None = None
    classifiers: Mapping[str, Classified] = field(default_factory=dict)
    per_query: Mapping[str, np.ndarray] = field(default_factory=dict)
    unanswerable_distances: np.ndarray | None = None
    truncated: bool = False


def run(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Record:
    """Run an experiment: prepare the data, evaluate each method, and save the record after each method.

    Methods are compared with each other at the end, or when the run is interrupted. The thresholds of the memory
    allocator are fixed for the life of the process (see `timing.steady_allocator`).

    Args:
        plan: methods, dataset and settings.
        out: folder of the record.
        overwrite: replace an earlier record in `out`; else it is moved to `out`/earlier.
        progress: called often with (what is done, steps done, steps in all).
        on_row: called with the row of each finished method.

    Returns:
        The record, as it was saved.

    Raises:
        BenchError: The data cannot be used, or `out` cannot be written. A method that fails does not end the run.
        KeyboardInterrupt: The run was interrupted; the methods that were finished are saved.
    """
    out = Path(os.path.abspath(out))  # a method may change the working directory
    with claimed(out):
        allocator = steady_allocator()
        plan, notices = reduced(plan)
        trial = prepare(plan, progress)
        if notices:
            trial = replace(trial, dataset=trial.dataset.with_splits({}, notices))
        record = blank_record(_dataset_facts(plan, trial), _settings(plan, trial), trial, allocator)
        arrays = common_arrays(trial)
        keep_earlier = not overwrite
        compared: dict[str, Mapping[str, np.ndarray]] = {}
        try:
            for method in plan.methods:
                log.info("%s: starting", method)
                outcome = evaluate(method, plan, trial, progress)
                if outcome.ranking is not None:
                    arrays |= ranking_arrays(
                        outcome.row,
                        outcome.ranking,
                        outcome.relevant,
                        outcome.classifiers,
                        outcome.unanswerable_distances,
                        outcome.truncated,
                    )
                if outcome.per_query and outcome.row.family != "control":
                    compared[outcome.row.method] = outcome.per_query
                record = with_row(record, outcome.row, plan.threads)
                record = save(record, out, arrays, derived(record), keep_earlier)
                keep_earlier = False
                on_row(outcome.row)
            # Once, after all rows: after each, the pairs of all before it would be resampled again.
            record = guarded(with_comparisons(record, compared, trial.dataset.query.labels), arrays, plan, trial)
        except KeyboardInterrupt:
            if record.rows:
                record = with_comparisons(record, compared, trial.dataset.query.labels).model_copy(
                    update={"status": "interrupted"}
                )
                save(record, out, arrays, derived(record), keep_earlier)
            raise
        return save(record, out, arrays, derived(record))


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


def guarded(record: Record, arrays: Mapping[str, np.ndarray], plan: Plan, trial: Trial) -> Record:
    """The record with its controls, finished, or failed where it breaks a rule.

    After all methods, so that nothing of theirs is compiled or loaded by the controls.
    """
    broken: tuple[str, ...] = ()
    try:
        with pinned(plan.threads):
            record = record.model_copy(
                update={"controls": sanity_checks.controls(trial, plan.seed, plan.backend, plan.device)}
            )
    except Exception as error:  # whatever it is, the methods' numbers come from the same search and judgement
        log.error("the controls failed", exc_info=True)
        broken = (
            f"the controls cannot be computed ({type(error).__name__}: {error}), so nothing vouches for the numbers",
        )
    broken += sanity_checks.violations(
        record, arrays, sample=sanity_checks.sampled(trial, plan.seed), learn_from=trial.train.content
    )
    for sentence in broken:
        log.error("%s", sentence)
    return record.model_copy(update={"violations": broken, "status": "failed" if broken else "finished"})


def evaluate(method: Method, plan: Plan, trial: Trial, progress: Progress = silent) -> MethodResult:
    """One method, from building it to its row. Whatever goes wrong becomes a failed row, never the end of the run."""
    name = str(method)
    try:
        release_memory()
        with PeakMemory() as memory:
            with Stopwatch() as loading:
                pipeline = Pipeline(method, plan.setup, plan.backend)
            notices = pipeline.meet(trial.dataset)
            name = pipeline.name + (FROM_GALLERY if plan.learn_from == "gallery" and pipeline.learns else "")
            found = quality(pipeline, trial, plan.setup, plan.cache, progress, for_classifiers=bool(plan.classifiers))
        with OtherProcesses() as others:
            timed = measure(
                *(pipeline, found, trial.dataset.query, max(trial.k), trial.exclude, plan.setup, progress),
                plan.concurrency,
            )
        times = {
            "load": Time(loading.seconds, "s"),
            **found.times,
            "peak_memory": Time(memory.mib, "MiB"),
            "added_memory": Time(memory.added_mib, "MiB"),
            **timed,
        }
        classifiers = _classified(pipeline, found, plan, trial, progress)
        robustness = evaluate_perturbed(
            pipeline, found.searcher, trial, plan.perturb, plan.severities, plan.setup, plan.cache, progress
        )
        labels = trial.dataset.query.labels
        how = statistics(labels, plan.seed)
        row = Row(
            method=name,
            family=method.family,
            status="ok",
            scores=found.scores,
            intervals=intervals_of(found.per_query, labels, how)
            | class_mean_intervals_of(found.per_query, labels, how),
            ties=found.ties,
            times={what: TimeFigure(**asdict(figure)) for what, figure in times.items()},
            other_processes=None if others.share is None else round(others.share, 4),
            params=method.resolved,
            weights=pipeline.weights,
            features=found.features,
            parts=found.parts,
            classifiers={name: done.facts for name, done in classifiers.items()},
            robustness=robustness,
            open_set=found.open_set,
            stated={}
            if pipeline.stated_ms is None
            else {"end_to_end_p50": TimeFigure(value=pipeline.stated_ms, unit="ms")},
            notices=(*notices, *_not_done(pipeline, plan)),
        )
        return MethodResult(
            row,
            found.ranking,
            found.relevant,
            classifiers,
            found.per_query,
            found.unanswerable_distances,
            pipeline.truncated,
        )
    except BenchError as error:
        failure = Failure(kind="BenchError", sentence=str(error))
    except (Exception, SystemExit) as error:  # whatever the code of others raises
        sentence = f"{type(error).__name__}: {error}"
        failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
    log.error("%s failed: %s", name, failure.sentence)
    return MethodResult(Row(method=name, family=method.family, status="failed", params=method.resolved, error=failure))


def _not_done(pipeline: Pipeline, plan: Plan) -> list[str]:
    """What was asked for and means nothing where features come from a file."""
    if not pipeline.by_id:
        return []
    sentences = ["its vectors do not change with the pixels, so no perturbed query was asked"] if plan.perturb else []
    if plan.concurrency:
        sentences.append("nobody knows what its vectors cost, so several queries at once were not timed")
    return sentences


def _classified(
    pipeline: Pipeline, found: QualityResult, plan: Plan, trial: Trial, progress: Progress
) -> dict[str, Classified]:
    """What each classifier learns from this method's features of train."""
    train, query = trial.train, trial.dataset.query
    if not plan.classifiers or pipeline.sees_labels:
        return {}

    def learn() -> tuple[Learnable, Learnable]:
        if pipeline.unclassifiable is not None:
            raise BenchError(pipeline.unclassifiable)
        if found.train_and_query is None:
            raise BenchError(
                f"classifiers learn from train and {trial.dataset.name} has none; add a train split, or let them learn "
                "from the gallery by --learn-from gallery"
            )
        rows = unseen(train, query)
        if not len(rows):
            raise BenchError(
                f"classifiers learn from {plan.learn_from} and each of its images is a query; they would know the "
                "answers"
            )
        bits = pipeline.distance == "hamming"
        known, asked = found.train_and_query
        return Learnable(known[rows], train.labels[rows], bits), Learnable(asked, query.labels, bits)

    return classify_all(
        plan.classifiers,
        learn,
        seed=plan.seed,
        threads=plan.threads,
        timed=np.random.default_rng(plan.seed).permutation(len(query))[:TIMED_QUERIES].tolist(),
        progress=lambda classifier, done, total: progress(f"{pipeline.name}: {classifier}", done, total),
    )


def check(plan: Plan, progress: Progress = silent) -> Trial:
    """All that can go wrong before the first feature: the data, and every method but networks, which may download."""
    trial = prepare(plan, progress)
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
    return trial


def resolve_device(wanted: str, methods: tuple[Method, ...], backend: str = "exact") -> str:
    """Resolve "auto" to a device. torch is loaded only if a method or the backend can use a GPU.

    Args:
        wanted: "auto", "cpu" or "cuda".
        methods: the methods that will run.
        backend: name of the search backend.

    Returns:
        "cpu" or "cuda".

    Raises:
        BenchError: "cuda" is wanted and there is no such device.
    """
    useful = "device" in BACKENDS[backend].options or any(method.deep for method in methods)
    if wanted == "cpu" or (wanted == "auto" and not useful):
        return "cpu"
    if wanted == "auto":
        return "cuda" if gpu_is_there() else "cpu"
    return check_device(wanted)


def unique(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """The methods without repeats, in order."""
    return tuple({str(method): method for method in methods}.values())
