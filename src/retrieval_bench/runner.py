"""The whole experiment, top to bottom: prepare the data once, then walk every method the same way.

Quality and time are two passes. Quality runs over all queries at once and may take features from the cache; time goes
one query at a time after warm-up and never does.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench import extractors, guards, metrics, training
from retrieval_bench.cache import FeatureCache, code_version, library_versions, recipe_key
from retrieval_bench.classification import Classified, Learnable, classify_all, unseen
from retrieval_bench.core import BenchError, Extractor, Ranking, Rows, Searcher, Setup, Split
from retrieval_bench.device import check_device, gpu_is_there, gpus
from retrieval_bench.extraction import Extracted, Watched, checked, extract
from retrieval_bench.fusion import LEARN_FROM
from retrieval_bench.images import DECODER_VERSION
from retrieval_bench.judge import Relevant, judge, rank_gallery
from retrieval_bench.method import Method
from retrieval_bench.perturb import Perturbed, levels
from retrieval_bench.pipeline import Part, Pipeline
from retrieval_bench.pixels import fresh
from retrieval_bench.recording import blank_record, common_arrays, ranking_arrays, with_comparisons, with_row
from retrieval_bench.registry import BACKENDS, Spec
from retrieval_bench.report.table import derived
from retrieval_bench.results import (
    Failure,
    Features,
    Fitted,
    PartFacts,
    Record,
    Robustness,
    Row,
    Ties,
    TimeFigure,
    claimed,
    save,
)
from retrieval_bench.search.index import warm_up
from retrieval_bench.team import Team
from retrieval_bench.ties import tie_bounds
from retrieval_bench.timing import (
    PeakMemory,
    Stopwatch,
    Time,
    latencies,
    pinned,
    release_memory,
    steady_allocator,
    waiting,
)
from retrieval_bench.training.checkpoint import refuse_own_images
from retrieval_bench.trial import Plan, Progress, Trial, prepare, silent
from retrieval_bench.uncertainty import intervals_of, statistics

log = logging.getLogger("retrieval_bench")

DEFAULT_METHODS = ("sift", "hog", "phash", "color", "resnet18", "convnet", "random", "oracle")
TIMED_QUERIES = 128
"""Queries timed one by one: enough to carry a 99th percentile, few enough that timing costs seconds."""
FRESH_QUERIES = 4
"""Queries whose features are computed anew where they came from the cache, to see that they are the same."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished row and, where the method did not fail, what it found."""

    row: Row
    ranking: Ranking | None = None
    relevant: Relevant | None = None
    heads: Mapping[str, Classified] = field(default_factory=dict)
    per_query: Mapping[str, np.ndarray] = field(default_factory=dict)


def run(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Record:
    """Prepare, evaluate each method, and save after each; an interrupt leaves a record of what was finished.

    Methods are held against each other at the end, or when it is interrupted.

    Fixes the allocator's thresholds for the life of the process (see timing.steady_allocator).
    """
    with claimed(out):
        allocator = steady_allocator()
        trial = prepare(plan, progress)
        record = blank_record(plan, trial, allocator)
        arrays = common_arrays(trial)
        keep_earlier = not overwrite
        compared: dict[str, Mapping[str, np.ndarray]] = {}
        try:
            for method in plan.methods:
                log.info("%s: starting", method)
                outcome = evaluate(method, plan, trial, progress)
                if outcome.ranking is not None:
                    arrays |= ranking_arrays(outcome.row, outcome.ranking, outcome.relevant, outcome.heads)
                if outcome.per_query and outcome.row.family != "control":
                    compared[outcome.row.method] = outcome.per_query
                record = with_row(record, outcome.row, plan.threads)
                record = save(record, out, arrays, derived(record), keep_earlier)
                keep_earlier = False
                on_row(outcome.row)
            # Once, after all rows: after each, the pairs of all before it would be resampled again.
            record = guarded(with_comparisons(record, compared, trial), arrays, plan, trial)
        except KeyboardInterrupt:
            if record.rows:
                record = with_comparisons(record, compared, trial).model_copy(update={"status": "interrupted"})
                save(record, out, arrays, derived(record), keep_earlier)
            raise
        return save(record, out, arrays, derived(record))


def guarded(record: Record, arrays: Mapping[str, np.ndarray], plan: Plan, trial: Trial) -> Record:
    """The record with its controls, finished, or failed where it breaks a rule.

    After all methods, so that nothing of theirs is compiled or loaded by the controls.
    """
    broken: tuple[str, ...] = ()
    try:
        with pinned(plan.threads):
            record = record.model_copy(
                update={"controls": guards.controls(trial, plan.seed, plan.backend, plan.device)}
            )
    except Exception as error:  # whatever it is, the methods' numbers were had by the same search and judgement
        log.error("the controls failed", exc_info=True)
        broken = (f"the controls cannot be had ({type(error).__name__}: {error}), so nothing vouches for the numbers",)
    broken += guards.violations(
        record, arrays, sample=guards.sampled(trial, plan.seed), learn_from=trial.dataset.train.content
    )
    for sentence in broken:
        log.error("%s", sentence)
    return record.model_copy(update={"violations": broken, "status": "failed" if broken else "finished"})


def evaluate(method: Method, plan: Plan, trial: Trial, progress: Progress = silent) -> Outcome:
    """One method, from building it to its row. Whatever goes wrong becomes a failed row, never the end of the run."""
    name = str(method)
    try:
        release_memory()
        with PeakMemory() as memory:
            with Stopwatch() as loading:
                pipeline = Pipeline(method, Setup(plan.seed, plan.weights, plan.device, plan.threads), plan.backend)
            name = pipeline.name
            found = _quality(pipeline, plan, trial, progress)
        times = {
            "load": Time(loading.seconds, "s"),
            **found.times,
            "peak_memory": Time(memory.mib, "MiB"),
            "added_memory": Time(memory.added_mib, "MiB"),
            **_measure(pipeline, found, plan, trial, progress),
        }
        heads = _heads(pipeline, found, plan, trial, progress)
        robustness = _robustness(pipeline, found, plan, trial, progress)
        products = trial.dataset.query.labels
        how = statistics(products, plan.seed)
        row = Row(
            method=name,
            family=method.family,
            status="ok",
            scores=found.scores,
            intervals=intervals_of(found.per_query, products, how),
            ties=found.ties,
            times={what: TimeFigure(**asdict(figure)) for what, figure in times.items()},
            params=method.resolved,
            weights=pipeline.weights,
            features=found.features,
            parts=found.parts,
            heads={head: done.facts for head, done in heads.items()},
            robustness=robustness,
        )
        return Outcome(row, found.ranking, found.relevant, heads, found.per_query)
    except BenchError as error:
        failure = Failure(kind="BenchError", sentence=str(error))
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}"
        failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
    log.error("%s failed: %s", name, failure.sentence)
    return Outcome(Row(method=name, family=method.family, status="failed", params=method.resolved, error=failure))


@dataclass(frozen=True, eq=False)
class _Found:
    """What the quality pass leaves behind; searcher holds what is known of the gallery.

    lessons: vectors of train and queries, where classifiers learn from the one and are judged on the other.
    """

    scores: dict[str, float]
    per_query: dict[str, np.ndarray]
    ties: dict[str, Ties]
    features: Features
    parts: tuple[PartFacts, ...]
    times: dict[str, Time]
    ranking: Ranking
    relevant: Relevant | None
    searcher: Searcher
    queries: Rows
    lessons: tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True, eq=False)
class _Extracted:
    """One part of a method on all splits that it was wanted on. fit_s None: nothing was learned now."""

    fitted: Fitted
    fit_s: float | None
    learned_from: str | None
    splits: dict[str, Extracted]

    @property
    def computed(self) -> int:
        return sum(split.computed for split in self.splits.values())

    @property
    def from_cache(self) -> int:
        return sum(split.from_cache for split in self.splits.values())


def _quality(pipeline: Pipeline, plan: Plan, trial: Trial, progress: Progress) -> _Found:
    """Learn, extract, search for all queries at once, and judge; features may come from the cache."""
    data, name = trial.dataset, pipeline.name
    for part in pipeline.parts:
        asked = (data.query.images.digest(row) for row in range(len(data.query)))
        refuse_own_images(getattr(part.extractor, "trained_on", None), asked, part.name)
    wanted = {"gallery": data.gallery, "query": data.query}
    learning = bool(plan.heads) and pipeline.unclassifiable is None and len(data.train) > 0
    with pinned(1):  # one thread a library, one worker a core: images are the unit of parallel work
        extracted = []
        for part in pipeline.parts:
            lessons = {"train": data.train} if learning and part in pipeline.members else {}
            extracted.append(_extracted(part, pipeline, wanted | lessons, plan, data.train, progress))
        joined_s = None
        if pipeline.join_learns:
            joined_s = _fit_join(pipeline, extracted, plan, data.train, progress)
    with Stopwatch() as compiling:  # before pinning, which leaves a library that is not loaded alone
        warm_up(pipeline.distance)
    with pinned(plan.threads):
        gallery, queries = (
            pipeline.rows([part.splits[split].features for part in extracted]) for split in ("gallery", "query")
        )
        with Stopwatch() as building:
            searcher = pipeline.searcher(gallery)
        ranking, relevant = rank_gallery(
            searcher,
            queries,
            data.query.labels,
            data.gallery.labels,
            trial.depth,
            exclude=trial.exclude,
            progress=lambda done: progress(f"{name}: ranking", done, len(data.query)),
        )
    judged = judge(
        data.query.labels, data.gallery.labels, ranking, trial.n_relevant, None if relevant is None else relevant.ranks
    )
    fits = [part.fit_s for part in extracted] + [joined_s]
    if any(part.fitted == "from cache" for part in extracted):
        fits = []  # what one part learned earlier is missing from the sum
    times = {
        "fit": Time(None if all(spent is None for spent in fits) else sum(spent or 0.0 for spent in fits), "s"),
        "jit": Time(compiling.seconds, "s"),
        "index_build": Time(building.seconds, "s"),
    }
    return _Found(
        metrics.scores(judged, trial.k),
        metrics.per_query(judged, trial.k),
        _ties(trial, relevant),
        _features(pipeline, gallery, queries, searcher, extracted, data.train),
        _parts(pipeline, extracted),
        times,
        ranking,
        relevant,
        searcher,
        queries,
        _lessons(pipeline, extracted) if learning else None,
    )


def _lessons(pipeline: Pipeline, extracted: list[_Extracted]) -> tuple[np.ndarray, np.ndarray]:
    members = extracted[: len(pipeline.members)]
    train, query = (pipeline.vectors([part.splits[split].features for part in members]) for split in ("train", "query"))
    return train, query


def _ties(trial: Trial, relevant: Relevant | None) -> dict[str, Ties]:
    """What equal distances leave open; empty where they decide nothing."""
    if relevant is None:
        return {}
    bounds = tie_bounds(trial.n_relevant, relevant.tie_starts, relevant.tie_sizes, trial.k)
    if all(bound.best - bound.worst < 1e-9 for bound in bounds.values()):
        return {}
    return {name: Ties(**bound._asdict()) for name, bound in bounds.items()}


def _extracted(
    part: Part, pipeline: Pipeline, wanted: Mapping[str, Split], plan: Plan, train: Split, progress: Progress
) -> _Extracted:
    """What one part makes of these splits, after learning what it has to learn."""
    name = part.name if pipeline.method.plain else f"{pipeline.name}: {part.name}"
    recipe = _recipe(part, plan)
    try:
        fitted, fit_s = _fit(part, recipe, train, plan, name, progress)
        learned_from = train.content if fitted != "nothing to learn" else None
        key = recipe_key(recipe | {"kind": "features", "learned_from": learned_from})
        devices = gpus(plan.device) if part.spec.entry.family == "deep" else []
        setup = Setup(plan.seed, plan.weights, plan.device, plan.threads)
        team = Team(str(part.spec), setup, devices) if len(devices) > 1 else None

        def extracted(split: Split, what: str) -> Extracted:
            for other, done in splits.items():
                if wanted[other].content == split.content:
                    return Extracted(done.features, 0, 0)

            def show(done: int, total: int) -> None:
                progress(f"{name}: {what}", done, total)

            return extract(
                part.extractor, split, threads=plan.threads, cache=plan.cache, key=key, progress=show, chunks=team
            )

        splits: dict[str, Extracted] = {}
        for what, split in wanted.items():
            splits[what] = extracted(split, "queries" if what == "query" else what)
    except BenchError as error:
        if pipeline.method.plain:
            raise
        raise BenchError(f"{part.name}, which is part of it, failed: {error}") from None
    return _Extracted(fitted, fit_s, learned_from, splits)


def described(
    method: Method, plan: Plan, train: Split, wanted: Mapping[str, Split], progress: Progress = silent
) -> tuple[Pipeline, dict[str, np.ndarray]]:
    """One vector of each image of these splits, by a method that has learned from `train`.

    Raises BenchError where the method keeps no single vector, or learns and train is empty.
    """
    pipeline = Pipeline(method, Setup(plan.seed, plan.weights, plan.device, plan.threads), plan.backend)
    if pipeline.unclassifiable is not None or pipeline.steps:
        raise BenchError(f"{pipeline.name} does not keep one vector an image to compare; name a method such as color")
    with pinned(1):
        done = [_extracted(part, pipeline, wanted, plan, train, progress) for part in pipeline.members]
        if pipeline.join_learns:
            _fit_join(pipeline, done, plan, train, progress)
    return pipeline, {name: pipeline.vectors([part.splits[name].features for part in done]) for name in wanted}


def fitted(spec: Spec, plan: Plan, train: Split, progress: Progress = silent) -> Extractor:
    """One extractor after it has learned from `train`, or with what the cache has of that."""
    part = Part(spec, spec.build(Setup(plan.seed, plan.weights, plan.device, plan.threads)))
    with pinned(1):
        _fit(part, _recipe(part, plan), train, plan, part.name, progress)
    return part.extractor


def _fit_join(
    pipeline: Pipeline, extracted: list[_Extracted], plan: Plan, train: Split, progress: Progress
) -> float | None:
    """Let the join learn from a sample of train; the seconds that took, without extracting what others know already."""
    _refuse_empty(train, pipeline.name)
    rows = np.sort(np.random.default_rng(plan.seed).permutation(len(train))[:LEARN_FROM])
    sample = train.take(rows)
    features = []
    for part, done in zip(pipeline.members, extracted, strict=False):
        if "train" in done.splits:
            features.append(done.splits["train"].features[rows])
        else:
            done.splits.update(_extracted(part, pipeline, {"train": sample}, plan, train, progress).splits)
            features.append(done.splits["train"].features)
    with pinned(plan.threads), Stopwatch() as joining:
        pipeline.fit_join(features, sample.labels)
    return joining.seconds


def _features(
    pipeline: Pipeline,
    gallery: Rows,
    queries: Rows,
    searcher: Searcher,
    extracted: list[_Extracted],
    train: Split,
) -> Features:
    """What the method keeps of an image, all parts together; zero rows are those in which no part saw anything."""
    arrays = [gallery] if isinstance(gallery, np.ndarray) else list(gallery.arrays.values())
    one = len(arrays) == 1
    bits = pipeline.distance == "hamming" and one
    learned = {part.learned_from for part in extracted if part.learned_from is not None}
    if pipeline.join_learns:
        learned.add(train.content)
    fits = {part.fitted for part in extracted}
    return Features(
        distance=pipeline.distance,
        dim=sum(array.shape[1] * (8 if array.dtype == np.uint8 and (bits or not one) else 1) for array in arrays),
        dtype=" + ".join(dict.fromkeys("bit" if array.dtype == np.uint8 else str(array.dtype) for array in arrays)),
        bytes_per_image=sum(int(array[0].nbytes) for array in arrays),
        index_bytes=int(searcher.bytes),
        zero_rows=0 if pipeline.distance == "hamming" else _zero_rows(gallery) + _zero_rows(queries),
        computed=sum(part.computed for part in extracted),
        from_cache=sum(part.from_cache for part in extracted),
        fit="learned"
        if "learned" in fits or pipeline.join_learns
        else "from cache"
        if "from cache" in fits
        else "nothing to learn",
        learned_from=min(learned, default=None),
    )


def _parts(pipeline: Pipeline, extracted: list[_Extracted]) -> tuple[PartFacts, ...]:
    """Nothing for a method of one part, which its row describes already."""
    if pipeline.method.plain:
        return ()
    weights = {} if pipeline.join is None else pipeline.join.weights
    facts = []
    for part, done in zip(pipeline.parts, extracted, strict=True):
        both = [done.splits[split].features for split in ("gallery", "query")]
        facts.append(
            PartFacts(
                name=part.name,
                weight=weights.get(part.name),
                bytes_per_image=int(both[0][0].nbytes),
                zero_rows=sum(_zero_rows(features) for features in both),
                fit=done.fitted,
                weights=getattr(part.extractor, "weights", None),
            )
        )
    return tuple(facts)


def _recipe(part: Part, plan: Plan) -> dict[str, Any]:
    """All that a feature depends on besides its image and what was learned."""
    own = Path(part.spec.entry.build.__code__.co_filename)
    packages = [Path(folder) for package in (extractors, training) for folder in package.__path__]
    sources = [*(file for folder in packages for file in folder.glob("*.py")), *([own] if own.is_file() else [])]
    return {
        "method": part.spec.entry.name,
        "options": part.spec.resolved,
        "seed": plan.seed,
        "device": plan.device,
        "distance": part.extractor.distance,
        "weights": getattr(part.extractor, "weights", None),
        "decoder": DECODER_VERSION,
        "code": code_version(*sources),
        "libraries": library_versions(),
    }


def _fit(
    part: Part, recipe: Mapping[str, Any], train: Split, plan: Plan, name: str, progress: Progress
) -> tuple[Fitted, float | None]:
    """Learn from train, or take from the cache what was learned from the same images; (how, seconds it took now)."""
    extractor = part.extractor
    learned: tuple[str, ...] = getattr(extractor, "learned", ())
    if not learned:
        extractor.fit(train)
        return "nothing to learn", None
    _refuse_empty(train, part.name)
    if all(hasattr(extractor, attribute) for attribute in learned):
        return "from cache", None  # learned a moment ago, for another split
    recipe = dict(recipe) | {"kind": "fit", "learned_from": train.content}
    key = recipe_key(recipe)
    stored = plan.cache.get_fit(key, recipe)
    if stored is not None and set(stored) == set(learned):
        for attribute, array in stored.items():
            setattr(extractor, attribute, array)
        return "from cache", None
    expected = min(len(train), getattr(extractor, "fit_images", len(train)))
    watched = Watched(train.images, lambda seen: progress(f"{name}: learning", min(seen, expected), expected))
    if hasattr(extractor, "progress"):
        extractor.progress = lambda what, done, total: progress(f"{name}: {what}", done, total)
    with Stopwatch() as fitting:
        extractor.fit(replace(train, images=watched))
    plan.cache.put_fit(key, recipe, {attribute: np.asarray(getattr(extractor, attribute)) for attribute in learned})
    return "learned", fitting.seconds


def _refuse_empty(train: Split, name: str) -> None:
    if not len(train):
        raise BenchError(f"{name} learns from train images and this dataset has none; add a train split or drop {name}")


def _measure(pipeline: Pipeline, found: _Found, plan: Plan, trial: Trial, progress: Progress) -> dict[str, Time]:
    """The time pass: single queries one after the other, then throughput. Nothing here comes from the cache."""
    name, query, k, exclude = pipeline.name, trial.dataset.query, max(trial.k), trial.exclude
    query = replace(query, images=fresh(query.images))
    n = min(TIMED_QUERIES, len(query))
    sample = np.random.default_rng(plan.seed).permutation(len(query))[:n]
    times: dict[str, Time] = {}

    with pinned(plan.threads, 1 if pipeline.serial else None):
        some = sample if hasattr(found.searcher, "queries_at_once") else np.arange(len(query))
        with Stopwatch() as searching:
            found.searcher(found.queries[some], k, None if exclude is None else exclude[some])
        times["search_throughput"] = Time(len(some) / searching.seconds, "queries/s", len(some))
        if pipeline.sees_labels:
            return times  # there is nothing to time

        def decode(item: int) -> tuple[int, np.ndarray]:
            row = int(sample[item])
            return row, query.images[row]

        def describe(decoded: tuple[int, np.ndarray]) -> tuple[int, Rows]:
            row, image = decoded
            return row, pipeline.rows(
                [checked(part.extractor.transform([image]), 1, part.extractor.distance) for part in pipeline.parts]
            )

        def find(described: tuple[int, Rows]) -> Ranking:
            row, features = described
            return found.searcher(features, k, None if exclude is None else exclude[row : row + 1])

        _refuse_stale(pipeline, found, [describe(decode(item))[::-1] for item in range(min(n, FRESH_QUERIES))])
        phases = (("decode", decode), ("extract", describe), ("search", find))
        times |= latencies(
            phases,
            n,
            progress=lambda done, total: progress(f"{name}: timing", done, total),
            wait=waiting(plan.device),
        )

    with pinned(1), Stopwatch() as extracting:
        for part in pipeline.parts:
            extract(
                part.extractor,
                query.take(sample),
                threads=plan.threads,
                cache=FeatureCache(None),
                key="",
                progress=lambda done, total: progress(f"{name}: throughput", done, total),
            )
    times["extract_throughput"] = Time(n / extracting.seconds, "images/s", n)
    return times


def _refuse_stale(pipeline: Pipeline, found: _Found, described: list[tuple[Rows, int]]) -> None:
    """Features that came from the cache are what would be computed now; described: fresh ones and their rows.

    Room for the last bits, in which a network's rows may depend on what stood beside them; none for bit codes.
    """
    if not found.features.from_cache:
        return
    for features, row in described:
        kept = found.queries[row : row + 1]
        pairs = (
            [(features, kept)]
            if isinstance(features, np.ndarray) and isinstance(kept, np.ndarray)
            else [(array, kept.arrays[name]) for name, array in features.arrays.items()]  # type: ignore[union-attr]
        )
        for fresh_one, stored in pairs:
            scale = float(np.abs(fresh_one).max(initial=0))
            room = 0.0 if fresh_one.dtype == np.uint8 else 0.01 * scale
            if not np.allclose(fresh_one, stored, rtol=0, atol=room):
                raise BenchError(
                    f"{pipeline.name}: its features in the cache are not those that it computes now; "
                    "run with --no-cache, or remove the cache"
                )


def _heads(pipeline: Pipeline, found: _Found, plan: Plan, trial: Trial, progress: Progress) -> dict[str, Classified]:
    """What each classifier learns from this method's features of train."""
    train, query = trial.dataset.train, trial.dataset.query
    if not plan.heads or pipeline.sees_labels:
        return {}

    def learn() -> tuple[Learnable, Learnable]:
        if pipeline.unclassifiable is not None:
            raise BenchError(pipeline.unclassifiable)
        if found.lessons is None:
            raise BenchError(f"classifiers learn from train and {trial.dataset.name} has none; add a train split")
        rows = unseen(train, query)
        bits = pipeline.distance == "hamming"
        known, asked = found.lessons
        return Learnable(known[rows], train.labels[rows], bits), Learnable(asked, query.labels, bits)

    return classify_all(
        plan.heads,
        learn,
        seed=plan.seed,
        threads=plan.threads,
        timed=np.random.default_rng(plan.seed).permutation(len(query))[:TIMED_QUERIES].tolist(),
        progress=lambda head, done, total: progress(f"{pipeline.name}: {head}", done, total),
    )


def _robustness(
    pipeline: Pipeline, found: _Found, plan: Plan, trial: Trial, progress: Progress
) -> tuple[Robustness, ...]:
    """The same gallery and all that was learned, asked with perturbed queries."""
    if pipeline.sees_labels:
        return ()  # the pixels of its queries do not matter to it
    data = trial.dataset
    kept = ("accuracy", "map@r", f"recall@{max(trial.k)}")
    how = statistics(data.query.labels, plan.seed)
    measured = []
    for name in plan.perturb:
        for severity in levels(name, plan.severities):
            images = Perturbed(data.query.images, name, severity, plan.seed)
            asked = {f"{name} {severity}": replace(data.query, images=images)}
            with pinned(1):
                features = [
                    next(iter(_extracted(part, pipeline, asked, plan, data.train, progress).splits.values())).features
                    for part in pipeline.parts
                ]
            with pinned(plan.threads):
                ranking, relevant = rank_gallery(
                    found.searcher,
                    pipeline.rows(features),
                    data.query.labels,
                    data.gallery.labels,
                    trial.depth,
                    exclude=trial.exclude,
                )
            ranks = None if relevant is None else relevant.ranks
            judged = judge(data.query.labels, data.gallery.labels, ranking, trial.n_relevant, ranks)
            values = {what: value for what, value in metrics.per_query(judged, trial.k).items() if what in kept}
            measured.append(
                Robustness(
                    perturbation=name,
                    severity=severity,
                    scores={what: float(value.mean()) for what, value in values.items()},
                    intervals=intervals_of(values, data.query.labels, how),
                )
            )
    return tuple(measured)


def _zero_rows(rows: Rows) -> int:
    """Rows in which there is nothing, in none of the arrays."""
    arrays = [rows] if isinstance(rows, np.ndarray) else list(rows.arrays.values())
    seen = np.zeros(len(rows), bool)
    for array in arrays:
        seen |= array.any(axis=1)
    return int((~seen).sum())


def check(plan: Plan, progress: Progress = silent) -> Trial:
    """All that can go wrong before the first feature: the data, and every method but networks, which may download."""
    trial = prepare(plan, progress)
    for method in plan.methods:
        if not method.deep:
            pipeline = Pipeline(method, Setup(plan.seed, plan.weights, plan.device, plan.threads), plan.backend)
            if pipeline.learns:
                _refuse_empty(trial.dataset.train, str(method))
    return trial


def resolve_device(wanted: str, methods: tuple[Method, ...], backend: str = "exact") -> str:
    """ "auto" is the GPU where there is one and something to run on it; torch is not loaded for anything else."""
    useful = "device" in BACKENDS[backend].options or any(method.deep for method in methods)
    if wanted == "cpu" or (wanted == "auto" and not useful):
        return "cpu"
    if wanted == "auto":
        return "cuda" if gpu_is_there() else "cpu"
    return check_device(wanted)


def unique(methods: tuple[Method, ...]) -> tuple[Method, ...]:
    """The methods without repeats, in order."""
    return tuple({str(method): method for method in methods}.values())
