"""The whole experiment, top to bottom: prepare the data once, then walk every method the same way.

Quality and time are two passes. Quality runs over all queries at once and may take features from the cache; time goes
one query at a time after warm-up and never does.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench import extractors, metrics
from retrieval_bench.cache import FeatureCache, code_version, library_versions, recipe_key
from retrieval_bench.core import BenchError, Extractor, Ranking, Searcher, Setup, Split
from retrieval_bench.extraction import Extracted, Watched, checked, extract
from retrieval_bench.images import DECODER_VERSION
from retrieval_bench.judge import judge, rank_gallery
from retrieval_bench.pixels import fresh
from retrieval_bench.recording import blank_record, common_arrays, ranking_arrays, with_row
from retrieval_bench.registry import BACKENDS, Spec
from retrieval_bench.report.table import derived
from retrieval_bench.results import Failure, Features, Fitted, Record, Row, TimeFigure, claimed, save
from retrieval_bench.search.index import warm_up
from retrieval_bench.timing import PeakMemory, Stopwatch, Time, latencies, pinned, release_memory, steady_allocator
from retrieval_bench.trial import Plan, Progress, Trial, prepare, silent

log = logging.getLogger("retrieval_bench")

DEFAULT_METHODS = ("sift", "hog", "phash", "color", "resnet18", "random", "oracle")
TIMED_QUERIES = 128
"""Queries timed one by one: enough to carry a 99th percentile, few enough that timing costs seconds."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished row and, where the method did not fail, what it found."""

    row: Row
    ranking: Ranking | None = None
    relevant_ranks: np.ndarray | None = None


def run(
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Record:
    """Prepare, evaluate each method, and save after each; an interrupt leaves a record of what was finished.

    Fixes the allocator's thresholds for the life of the process (see timing.steady_allocator).
    """
    with claimed(out):
        allocator = steady_allocator()
        trial = prepare(plan, progress)
        record = blank_record(plan, trial, allocator)
        arrays = common_arrays(trial)
        keep_earlier = not overwrite
        try:
            for spec in plan.methods:
                log.info("%s: starting", spec)
                outcome = evaluate(spec, plan, trial, progress)
                if outcome.ranking is not None:
                    arrays |= ranking_arrays(outcome.row.method, outcome.ranking, outcome.relevant_ranks)
                record = with_row(record, outcome.row, plan.threads)
                record = save(record, out, arrays, derived(record), keep_earlier)
                keep_earlier = False
                on_row(outcome.row)
        except KeyboardInterrupt:
            if record.rows:
                record = record.model_copy(update={"status": "interrupted"})
                save(record, out, arrays, derived(record), keep_earlier)
            raise
        record = record.model_copy(update={"status": "finished"})
        return save(record, out, arrays, derived(record))


def evaluate(spec: Spec, plan: Plan, trial: Trial, progress: Progress = silent) -> Outcome:
    """One method, from building it to its row. Whatever goes wrong becomes a failed row, never the end of the run."""
    name = str(spec)
    try:
        release_memory()
        with PeakMemory() as memory:
            with Stopwatch() as loading:
                extractor: Extractor = spec.build(Setup(plan.seed, plan.weights, plan.device, plan.threads))
            name = display_name(spec, extractor)
            found = _quality(name, spec, extractor, plan, trial, progress)
        times = {
            "load": Time(loading.seconds, "s"),
            **found.times,
            "peak_memory": Time(memory.mib, "MiB"),
            "added_memory": Time(memory.added_mib, "MiB"),
            **_measure(name, extractor, found, plan, trial, progress),
        }
        row = Row(
            method=name,
            family=spec.entry.family,
            status="ok",
            scores=found.scores,
            times={what: TimeFigure(**asdict(figure)) for what, figure in times.items()},
            params=spec.resolved,
            weights=getattr(extractor, "weights", None),
            features=found.features,
        )
        return Outcome(row, found.ranking, found.relevant_ranks)
    except BenchError as error:
        failure = Failure(kind="BenchError", sentence=str(error))
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}"
        failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
    log.error("%s failed: %s", name, failure.sentence)
    return Outcome(Row(method=name, family=spec.entry.family, status="failed", params=spec.resolved, error=failure))


def display_name(spec: Spec, extractor: Extractor) -> str:
    """The method's name with its mark: "resnet50[untrained]"."""
    mark = getattr(extractor, "mark", "")
    return f"{spec}[{mark}]" if mark else str(spec)


@dataclass(frozen=True, eq=False)
class _Found:
    """What the quality pass leaves behind. query_features: (q, d); searcher holds the gallery's."""

    scores: dict[str, float]
    features: Features
    times: dict[str, Time]
    ranking: Ranking
    relevant_ranks: np.ndarray | None
    searcher: Searcher
    query_features: np.ndarray


def _quality(name: str, spec: Spec, extractor: Extractor, plan: Plan, trial: Trial, progress: Progress) -> _Found:
    """Learn, extract, search for all queries at once, and judge; features may come from the cache."""
    data = trial.dataset
    with pinned(1):  # one thread a library, one worker a core: images are the unit of parallel work
        recipe = _recipe(spec, extractor, plan)
        fitted, fit_s = _fit(extractor, recipe, data.train, plan, name, progress)
        learned_from = data.train.content if fitted != "nothing to learn" else None
        key = recipe_key(recipe | {"kind": "features", "learned_from": learned_from})

        def extracted(split: Split, part: str) -> Extracted:
            def show(done: int, total: int) -> None:
                progress(f"{name}: {part}", done, total)

            return extract(extractor, split, threads=plan.threads, cache=plan.cache, key=key, progress=show)

        gallery, query = extracted(data.gallery, "gallery"), extracted(data.query, "queries")

    with Stopwatch() as compiling:  # before pinning, which leaves a library that is not loaded alone
        warm_up(extractor.distance)
    with pinned(plan.threads):
        with Stopwatch() as building:
            searcher: Searcher = BACKENDS[plan.backend].build(gallery.features, extractor.distance)
        ranking, relevant_ranks = rank_gallery(
            searcher,
            query.features,
            data.query.labels,
            data.gallery.labels,
            trial.depth,
            exclude=trial.exclude,
            progress=lambda done: progress(f"{name}: ranking", done, len(data.query)),
        )
    judged = judge(data.query.labels, data.gallery.labels, ranking, trial.n_relevant, relevant_ranks)
    bits = extractor.distance == "hamming"
    features = Features(
        distance=extractor.distance,
        dim=gallery.features.shape[1] * (8 if bits else 1),
        dtype="bit" if bits else str(gallery.features.dtype),
        bytes_per_image=int(gallery.features[0].nbytes),
        index_bytes=int(searcher.bytes),
        zero_rows=0 if bits else _zero_rows(gallery.features) + _zero_rows(query.features),
        computed=gallery.computed + query.computed,
        from_cache=gallery.from_cache + query.from_cache,
        fit=fitted,
        learned_from=learned_from,
    )
    times = {
        "fit": Time(fit_s, "s"),
        "jit": Time(compiling.seconds, "s"),
        "index_build": Time(building.seconds, "s"),
    }
    scores = metrics.scores(judged, trial.k)
    return _Found(scores, features, times, ranking, relevant_ranks, searcher, query.features)


def _recipe(spec: Spec, extractor: Extractor, plan: Plan) -> dict[str, Any]:
    """All that a feature depends on besides its image and what was learned."""
    own = Path(spec.entry.build.__code__.co_filename)
    sources = [*Path(extractors.__file__).parent.glob("*.py"), *([own] if own.is_file() else [])]
    return {
        "method": spec.entry.name,
        "options": spec.resolved,
        "seed": plan.seed,
        "device": plan.device,
        "distance": extractor.distance,
        "weights": getattr(extractor, "weights", None),
        "decoder": DECODER_VERSION,
        "code": code_version(*sources),
        "libraries": library_versions(),
    }


def _fit(
    extractor: Extractor, recipe: Mapping[str, Any], train: Split, plan: Plan, name: str, progress: Progress
) -> tuple[Fitted, float | None]:
    """Learn from train, or take from the cache what was learned from the same images; (how, seconds it took now)."""
    learned: tuple[str, ...] = getattr(extractor, "learned", ())
    if not learned:
        extractor.fit(train)
        return "nothing to learn", None
    _refuse_empty(train, name)
    key = recipe_key(dict(recipe) | {"kind": "fit", "learned_from": train.content})
    stored = plan.cache.get_fit(key)
    if stored is not None and set(stored) == set(learned):
        for attribute, array in stored.items():
            setattr(extractor, attribute, array)
        return "from cache", None
    expected = min(len(train), getattr(extractor, "fit_images", len(train)))
    watched = Watched(train.images, lambda seen: progress(f"{name}: learning", min(seen, expected), expected))
    with Stopwatch() as fitting:
        extractor.fit(replace(train, images=watched))
    plan.cache.put_fit(key, {attribute: np.asarray(getattr(extractor, attribute)) for attribute in learned})
    return "learned", fitting.seconds


def _refuse_empty(train: Split, name: str) -> None:
    if not len(train):
        raise BenchError(f"{name} learns from train images and this dataset has none; add a train split or drop {name}")


def _measure(
    name: str, extractor: Extractor, found: _Found, plan: Plan, trial: Trial, progress: Progress
) -> dict[str, Time]:
    """The time pass: single queries one after the other, then throughput. Nothing here comes from the cache."""
    query, k, exclude = trial.dataset.query, max(trial.k), trial.exclude
    query = replace(query, images=fresh(query.images))
    n = min(TIMED_QUERIES, len(query))
    sample = np.random.default_rng(plan.seed).permutation(len(query))[:n]
    times: dict[str, Time] = {}

    with pinned(plan.threads, 1 if getattr(extractor, "serial", False) else None):
        with Stopwatch() as searching:
            found.searcher(found.query_features, k, exclude)
        times["search_throughput"] = Time(len(query) / searching.seconds, "queries/s", len(query))
        if hasattr(extractor, "transform_split"):
            return times  # it looks at labels: there is nothing to time

        def decode(item: int) -> tuple[int, np.ndarray]:
            row = int(sample[item])
            return row, query.images[row]

        def describe(decoded: tuple[int, np.ndarray]) -> tuple[int, np.ndarray]:
            row, image = decoded
            return row, checked(extractor.transform([image]), 1, extractor.distance)

        def find(described: tuple[int, np.ndarray]) -> Ranking:
            row, feature = described
            return found.searcher(feature, k, None if exclude is None else exclude[row : row + 1])

        phases = (("decode", decode), ("extract", describe), ("search", find))
        times |= latencies(phases, n, progress=lambda done, total: progress(f"{name}: timing", done, total))

    with pinned(1), Stopwatch() as extracting:
        extract(
            extractor,
            query.take(sample),
            threads=plan.threads,
            cache=FeatureCache(None),
            key="",
            progress=lambda done, total: progress(f"{name}: throughput", done, total),
        )
    times["extract_throughput"] = Time(n / extracting.seconds, "images/s", n)
    return times


def _zero_rows(features: np.ndarray) -> int:
    return int((~features.any(axis=1)).sum())


def check(plan: Plan, progress: Progress = silent) -> Trial:
    """All that can go wrong before the first feature: the data, and every method but networks, which may download."""
    trial = prepare(plan, progress)
    for spec in plan.methods:
        if spec.entry.family != "deep":
            extractor = spec.build(Setup(plan.seed, plan.weights, plan.device, plan.threads))
            if getattr(extractor, "learned", ()):
                _refuse_empty(trial.dataset.train, str(spec))
    return trial


def resolve_device(wanted: str, methods: tuple[Spec, ...]) -> str:
    """ "auto" is the GPU where there is one and a network to run on it; torch is not loaded for anything else."""
    if wanted == "cpu" or (wanted == "auto" and not any(spec.entry.family == "deep" for spec in methods)):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise BenchError("--device cuda: torch sees no CUDA device here; use --device cpu or auto")
    return "cpu"


def unique(specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """The methods without repeats, in order."""
    return tuple({str(spec): spec for spec in specs}.values())
