"""One option of an approximate backend over several values: what each finds, what that costs the task, how fast it is.

The index is the one of a run: the gallery of a record, in the features of one of its methods. Training items ask it
first, and what they find decides which values are on the front and which is chosen; the queries of the record, which
decide nothing, are what is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Ranking, Rows, Searcher
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.exact_recall import recall_of_exact
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.experiment.approximation import CutOff, beside_exact, depth_of, let_go, vectors
from retrieval_bench.experiment.kept_rows import kept_rows
from retrieval_bench.experiment.prepare import Plan, Trial
from retrieval_bench.methods.parse import Method
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.schema import Environment
from retrieval_bench.records.sweeps import OptionSweep, Point
from retrieval_bench.registry import Spec
from retrieval_bench.system.progress import Progress, silent
from retrieval_bench.system.timing import pinned

ROUNDS = 5
"""Turns of all searches, one after the other; medians are kept."""
SINGLES = 100
"""Queries that are asked alone, at most."""
MOST_TRAIN = 2_000
"""Training items that ask, at most, drawn by the seed."""


@dataclass(frozen=True, eq=False)
class _Askers:
    """Vectors that search. own: (q,) gallery rows that each must not find, -1 for none; None: any may be found."""

    rows: Rows
    own: np.ndarray | None

    def by(self, search: Searcher, k: int) -> Ranking:
        return search(self.rows, k, self.own)


def sweep(
    method: Method,
    plan: Plan,
    trial: Trial,
    backend: Spec,
    option: str,
    values: Sequence[Any],
    *,
    wanted: float,
    environment: Environment,
    progress: Progress = silent,
) -> OptionSweep:
    """Search with every value.

    Args:
        method: of one vector an item.
        plan: of the record, with a cache.
        trial: the data that it was made ready from.
        backend: an approximate one, with the options that stay.
        option: one of its options.
        values: of that option, ascending.
        wanted: share of what exact search finds that the chosen value must find on train.
        environment: where this takes place.
        progress: called with (what, done, total).

    Returns:
        All points, measured in turns.

    Raises:
        BenchError: There is no training item, or the method keeps no single vector.
    """
    if not len(trial.train):
        raise BenchError("a sweep is tuned on training items, and this dataset has none; add a train split")
    own = replace(method, backend=replace(backend, options={**backend.options, option: values[0]}))
    pipeline = Pipeline(own, plan.setup, plan.backend)
    gallery, queries, train, own_rows = _rows(pipeline, plan, trial, progress)
    k, depth = max(trial.k), depth_of(trial)
    with pinned(plan.threads):
        exact = pipeline.exact_searcher(gallery)
        indexes = _indexes(pipeline, gallery, backend, option, values, progress)
        asked, known = _Askers(queries, trial.exclude), _Askers(train, own_rows)
        near = known.by(exact, k)
        times = _times([exact, *(index for _, index in indexes)], asked, known, k, progress)
        exact_scores = _scores(CutOff(exact, depth), queries, trial)
        points = []
        for (spec, index), (rate, rate_on_train, p50) in zip(indexes, times[1:], strict=True):
            cut = CutOff(index, depth)
            reached = _scores(cut, queries, trial)
            facts = beside_exact(cut, exact, queries, gallery, pipeline.distance, trial, reached, plan.seed)
            on_train = recall_of_exact(
                known.by(index, k).indices, near, vectors(train), vectors(gallery), pipeline.distance
            )
            points.append(
                Point(
                    backend=str(spec),
                    value=spec.options[option],
                    build_s=round(getattr(index, "build_seconds", 0.0), 4),
                    index_bytes=index.bytes,
                    found_on_train=float(on_train.mean()),
                    rate_on_train=rate_on_train,
                    found=facts.found,
                    found_interval=facts.found_interval,
                    scores={name: float(reached[name].mean()) for name in facts.exact},
                    differences=facts.differences,
                    rate=rate,
                    p50_ms=p50,
                )
            )
    for _, index in indexes:
        let_go(index)
    good = [point for point in points if point.found_on_train >= wanted]
    return OptionSweep(
        method=pipeline.name.removesuffix(own.backend_mark),
        backend=str(backend),
        option=option,
        fingerprint=trial.fingerprint,
        gallery=len(trial.dataset.gallery),
        queries=len(trial.dataset.query),
        train=len(train),
        k=k,
        depth=depth,
        threads=plan.threads,
        wanted=wanted,
        chosen=max(good, key=lambda point: point.rate_on_train).value if good else None,
        exact_scores={name: float(exact_scores[name].mean()) for name in ("accuracy", "map@r")},
        exact_rate=times[0][0],
        exact_p50_ms=times[0][2],
        points=_with_front(points),
        environment=environment,
    )


def front(points: Sequence[Point]) -> set[float]:
    """The values that no other beats on train: none finds as much in less time, or more in as much."""
    best: set[float] = set()
    for one in points:
        beaten = any(
            (other.found_on_train, other.rate_on_train) != (one.found_on_train, one.rate_on_train)
            and other.found_on_train >= one.found_on_train
            and other.rate_on_train >= one.rate_on_train
            for other in points
        )
        if not beaten:
            best.add(one.value)
    return best


def _with_front(points: Sequence[Point]) -> tuple[Point, ...]:
    best = front(points)
    return tuple(point.model_copy(update={"on_front": point.value in best}) for point in points)


def _rows(pipeline: Pipeline, plan: Plan, trial: Trial, progress: Progress) -> tuple[Rows, Rows, Rows, np.ndarray]:
    """What the method keeps of gallery and queries, and of some training items; and where these are in the gallery."""
    drawn = np.sort(np.random.default_rng(plan.seed).permutation(len(trial.train))[:MOST_TRAIN])
    gallery, queries, train = kept_rows(pipeline, plan, trial, ("gallery", "query", "train"), progress).values()
    place = {digest: row for row, digest in enumerate(map(trial.dataset.gallery.images.digest, range(len(gallery))))}
    own = np.array([place.get(trial.train.images.digest(int(row)), -1) for row in drawn])
    return gallery, queries, train[drawn], own


def _indexes(
    pipeline: Pipeline, gallery: Rows, backend: Spec, option: str, values: Sequence[Any], progress: Progress
) -> list[tuple[Spec, Searcher]]:
    """One for each value; where the option is one of the search, all of them are one index."""
    found: list[tuple[Spec, Searcher]] = []
    for place, value in enumerate(values):
        progress(f"{pipeline.name}: building", place, len(values))
        spec = replace(backend, options={**backend.options, option: value})
        if found and option in backend.entry.facts.get("at_search", ()):
            found.append((spec, found[0][1].with_search_options(**{option: value})))  # type: ignore[attr-defined]
        else:
            found.append((spec, spec.build(vectors(gallery), pipeline.distance)))
    return found


def _scores(search: CutOff, queries: Rows, trial: Trial) -> Mapping[str, np.ndarray]:
    """Metric -> (q,) values of the queries."""
    data = trial.dataset
    labels = data.query.label_sets, data.gallery.label_sets
    ranking, relevant = rank_gallery(search, queries, *labels, trial.depth, exclude=trial.exclude)
    ranks = None if relevant is None else relevant.ranks
    judged = judge(*labels, ranking, trial.n_relevant, ranks, trial.categories, truncated=True)
    return metrics.per_query(judged, trial.k)


def _times(
    searchers: Sequence[Searcher], asked: _Askers, known: _Askers, k: int, progress: Progress
) -> list[tuple[float, float, float]]:
    """(queries/s, queries/s of training items, ms of one query) of each, in turns; the first turn warms up."""
    rates: list[list[float]] = [[] for _ in searchers]
    on_train: list[list[float]] = [[] for _ in searchers]
    alone: list[list[float]] = [[] for _ in searchers]
    singles = [asked.rows[row : row + 1] for row in range(min(SINGLES, len(asked.rows)))]
    for turn in range(ROUNDS + 1):
        progress("timing", turn, ROUNDS + 1)
        for place, search in enumerate(searchers):
            spent, spent_on_train = (_seconds(one.by, search, k) for one in (asked, known))
            each = [_seconds(search, one, k) for one in singles]
            if turn:
                rates[place].append(len(asked.rows) / spent)
                on_train[place].append(len(known.rows) / spent_on_train)
                alone[place].append(median(each) * 1e3)
    return [(median(a), median(b), median(c)) for a, b, c in zip(rates, on_train, alone, strict=True)]


def _seconds(work: Callable[..., object], *args: Any) -> float:
    started = time.perf_counter()
    work(*args)
    return time.perf_counter() - started
