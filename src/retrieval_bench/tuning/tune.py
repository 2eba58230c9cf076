"""Tune: choose methods on data that no query takes part in, then ask the queries once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval_bench import __version__
from retrieval_bench.core import BenchError, Dataset
from retrieval_bench.evaluation.metrics import GRADED
from retrieval_bench.experiment.one_method import evaluate
from retrieval_bench.experiment.prepare import Plan, Trial, decoded_once, load, ready
from retrieval_bench.images.decoded_cache import PixelStore
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.records.files import claimed
from retrieval_bench.records.tunings import Tried, TuningFile, TuningOf
from retrieval_bench.registry import METRICS, unknown
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.tuning.halving import CostLimits, TrialBoard, clock, indistinguishable, search
from retrieval_bench.tuning.validation import Validation, of_other, of_train, parts

FOR_THE_END = 0.15
"""Share of the budget that is kept for asking the queries."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What the search ends with.

    whole: trials on all of the validation data that keep the limits, the best first. best: these that no test tells
    from the first. over: trials on all of it that break a limit, with the sentences. methods: to ask the queries with:
    the best, the cheapest that no test tells from it, and the best of those that the search began with.
    """

    validation: Validation
    tried: tuple[Tried, ...]
    whole: tuple[Tried, ...]
    best: tuple[Tried, ...]
    over: tuple[tuple[Tried, tuple[str, ...]], ...]
    methods: tuple[Method, ...]


def tune(
    plan: Plan,
    val: Plan | None,
    out: Path,
    metric: str,
    limits: CostLimits,
    budget_s: float,
    progress: Progress = silent,
    on_trial: Callable[[Tried], None] = lambda tried: None,
) -> Chosen:
    """Try methods until the budget is spent; nothing of it sees a query of the dataset.

    Args:
        plan: the dataset, the settings, and the methods to begin with.
        val: of the data to choose by. None: a part of train.
        out: the folder that keeps every trial; a search that was ended there goes on.
        metric: a metric of rankings to prefer methods by, such as map@r.
        limits: what a method may cost.
        budget_s: seconds for all of it, with what an earlier search in `out` has spent and what the queries will take.
        progress: called often.
        on_trial: called with each trial that is done.

    Returns:
        What was chosen, and why.

    Raises:
        BenchError: There is nothing to choose by, or no method keeps the limits.
    """
    dataset = load(plan)
    validation = of_train(dataset, plan.seed) if val is None else of_other(dataset, load(val))
    plan = plan if val is None else replace(plan, dataset=val.dataset, root=val.root)
    trials = _trials(validation.dataset, plan, progress)
    _refuse_unknown(metric, trials[0].k)
    of = TuningOf(
        version=__version__,
        dataset=dataset.name,
        validation=validation.told,
        fingerprint=trials[-1].fingerprint,
        metric=metric,
        seed=plan.seed,
        weights=plan.weights,
        threads=plan.threads,
        start=tuple(sorted({str(method) for method in plan.methods})),
    )
    with claimed(out):
        file = TuningFile(out, of)
        board = TrialBoard(file.tried, len(trials), limits)
        left = clock(budget_s * (1 - FOR_THE_END), sum(one.seconds for one in file.tried))
        count = len(file.tried)

        def shown(what: str, done: int, total: int) -> None:
            progress(f"{count} trials, {max(left(), 0) / 60:.0f} min left, {what}", done, total)

        def try_one(method: Method, part: int) -> Tried:
            nonlocal count
            blank = Tried(
                method=str(method),
                family=method.family,
                part=part,
                whole=part + 1 == len(trials),
                queries=len(trials[part].dataset.query),
                score=None,
                seconds=0.0,
            )
            with file.begun(blank):
                tried = _tried(blank, method, plan, trials[part], metric, shown)
            file.add(tried)
            count += 1
            on_trial(tried)
            return tried

        search(plan.methods, len(trials), board, try_one, plan.setup, left)
    return _chosen(validation, trials[-1], file.tried, board, plan, metric, limits)


def _refuse_unknown(metric: str, ks: Sequence[int]) -> None:
    names: list[str] = []
    for entry in METRICS.fill():
        if entry.facts["per_query"] and entry.name not in GRADED:
            names += [f"{entry.name}@{k}" for k in ks] if entry.facts["at_k"] else [entry.name]
    if metric not in names:
        raise BenchError(unknown("metric", metric, names, hint=f"those with a value a query are {', '.join(names)}"))


def _trials(validation: Dataset, plan: Plan, progress: Progress) -> list[Trial]:
    store = PixelStore()
    whole = decoded_once(validation, plan.decoding, store)
    return [ready(part, plan, progress, store) for part in parts(whole, plan.seed)]


def _tried(blank: Tried, method: Method, plan: Plan, trial: Trial, metric: str, progress: Progress) -> Tried:
    started = time.monotonic()
    result = evaluate(method, plan, trial, progress, timed=blank.whole)
    row = result.row
    done = blank.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
    if row.error is not None or metric not in result.per_query:
        why = f"has no {metric}" if row.error is None else row.error.sentence
        return done.model_copy(update={"failed": why[:1000]})
    values = result.per_query[metric]
    p95, fit = row.times.get("end_to_end_p95"), row.times.get("fit")
    return done.model_copy(
        update={
            "score": float(values.mean()),
            "values": tuple(np.round(values, 6).tolist()) if blank.whole else (),
            "bytes": None if row.features is None else row.features.bytes_per_image,
            "p95_ms": None if p95 is None else p95.value,
            "fit_s": None if fit is None else fit.value,
        }
    )


def _chosen(
    validation: Validation,
    trial: Trial,
    tried: Sequence[Tried],
    board: TrialBoard,
    plan: Plan,
    metric: str,
    limits: CostLimits,
) -> Chosen:
    whole = board.whole
    over = tuple((one, tuple(limits.broken(one))) for one in board.over)
    if not whole:
        if over:
            one, broken = min(over, key=lambda pair: len(pair[1]))
            raise BenchError(
                f"no method keeps the limits; the nearest is {one.method}: {', '.join(broken)}; loosen them"
            )
        failed = next((one for one in tried if one.failed), None)
        why = "the time was over; raise --budget" if failed is None else f"{failed.method}: {failed.failed}"
        raise BenchError(f"no method came as far as all of the validation data: {why}")
    best = indistinguishable(whole, trial.dataset.query.labels, metric, plan.seed)
    cheapest = min(best, key=lambda one: (one.p95_ms is None, one.p95_ms or 0.0, one.bytes or 0))
    began = {str(method) for method in plan.methods}
    first = [one for one in whole if one.method in began and one.family != "control"][:1]
    names = dict.fromkeys(one.method for one in (whole[0], cheapest, *first))
    return Chosen(
        validation, tuple(tried), tuple(whole), tuple(best), over, tuple(parse_method(name) for name in names)
    )
