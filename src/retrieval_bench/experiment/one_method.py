"""One method, from building it to its row of the record.

Quality and time are two passes. Quality runs over all queries at once and may take features from the cache; time goes
one query at a time after warm-up and never does.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.datasets.splits import some
from retrieval_bench.distributed.engine import WorkEngine
from retrieval_bench.evaluation.relevance import Relevant
from retrieval_bench.evaluation.uncertainty import class_mean_intervals_of, intervals_of, statistics
from retrieval_bench.experiment.approximation import let_go
from retrieval_bench.experiment.classification import Classified, Learnable, classify_all, unseen
from retrieval_bench.experiment.latency import TIMED_QUERIES, measure
from retrieval_bench.experiment.prepare import FROM_GALLERY, Plan, Trial
from retrieval_bench.experiment.quality import QualityResult, quality
from retrieval_bench.experiment.robustness import evaluate_perturbed
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.schema import Failure, Row, TimeFigure
from retrieval_bench.system.other_processes import OtherProcesses
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import PeakMemory, Stopwatch, Time, release_memory

log = logging.getLogger("retrieval_bench")


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


def evaluate(
    method: Method,
    plan: Plan,
    trial: Trial,
    progress: Progress = silent,
    engine: WorkEngine | None = None,
    *,
    timed: bool = True,
) -> MethodResult:
    """One method, from building it to its row. Whatever goes wrong becomes a failed row, never the end of the run.

    timed: let the time pass follow that of quality.
    """
    name, found = str(method), None
    try:
        release_memory()
        with PeakMemory() as memory:
            with Stopwatch() as loading:
                pipeline = Pipeline(method, plan.setup, plan.backend, engine)
            notices = pipeline.meet(trial.dataset)
            name = pipeline.name
            if plan.learn_from == "gallery" and pipeline.learns:
                name = name.removesuffix(method.backend_mark) + FROM_GALLERY + method.backend_mark
            found = quality(
                *(pipeline, trial, plan.setup, plan.cache, progress),
                for_classifiers=bool(plan.classifiers),
                thresholds=plan.thresholds,
            )
        with OtherProcesses() as others:
            figures = {}
            if timed:
                figures = measure(
                    *(pipeline, found, trial.dataset.query, max(trial.k), trial.exclude, plan.setup, progress),
                    plan.concurrency,
                    one_thread=any(one.backend is not None for one in plan.methods),
                )
        times = {
            "load": Time(loading.seconds, "s"),
            **found.times,
            "peak_memory": Time(memory.mib, "MiB"),
            "added_memory": Time(memory.added_mib, "MiB"),
            **figures,
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
            by_threshold=found.by_threshold,
            approximation=found.approximation,
            stated={}
            if pipeline.stated_ms is None
            else {"end_to_end_p50": TimeFigure(value=pipeline.stated_ms, unit="ms")},
            notices=(*notices, *pipeline.said_of_learning, *_not_done(pipeline, plan)),
            inconsistent=found.inconsistent,
            query=pipeline.sides.query,
            gallery=pipeline.sides.gallery,
        )
        return MethodResult(
            row,
            found.ranking,
            found.relevant,
            classifiers,
            found.per_query,
            found.unanswerable_distances,
            pipeline.ends_early,
        )
    except BenchError as error:
        failure = Failure(kind="BenchError", sentence=str(error))
    except (Exception, SystemExit) as error:  # whatever the code of others raises
        sentence = f"{type(error).__name__}: {error}"
        failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
    finally:
        if found is not None:
            let_go(found.searcher)
    log.error("%s failed: %s", name, failure.sentence)
    asked = method.sides._asdict()
    row = Row(method=name, family=method.family, status="failed", params=method.resolved, error=failure, **asked)
    return MethodResult(row)


def _not_done(pipeline: Pipeline, plan: Plan) -> list[str]:
    """What was asked for and means nothing for this method."""
    return [*_not_classified(pipeline, plan), *_not_asked(pipeline, plan)]


def _not_classified(pipeline: Pipeline, plan: Plan) -> list[str]:
    """Why the columns of classifiers are empty, where no classifier is asked."""
    if not plan.classifiers:
        return []
    if pipeline.sees_labels:
        return ["it sees the labels of the queries, so no classifier learns from it"]
    method = pipeline.method
    if method.backend is not None and str(plain := method.without_backend) not in map(str, plan.methods):
        return [f"classifiers learn in the row of {plain}, which this run does not have; search with exact, too"]
    return []


def _not_asked(pipeline: Pipeline, plan: Plan) -> list[str]:
    """What means nothing where features come from a file."""
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
    if not plan.classifiers or pipeline.sees_labels or pipeline.method.backend is not None:
        return {}  # what searches is nothing to a classifier: the row of the method itself has it

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
        labels = np.unique(train.labels[rows])
        if len(labels) < 2:  # said once for all classifiers, each of which would refuse it
            which = "all of its images" if len(rows) == len(train) else "all of its images that are no query"
            raise BenchError(
                f"classifiers learn from {plan.learn_from} and {which} have one label, "
                f"{some(trial.dataset.label_names[label] for label in labels)}; add images of another label"
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
