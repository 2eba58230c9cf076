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
from retrieval_bench.extraction import Watched, checked, extract
from retrieval_bench.images import DECODER_VERSION
from retrieval_bench.judge import judge, rank_gallery
from retrieval_bench.recording import blank_record, common_arrays, ranking_arrays, with_row
from retrieval_bench.registry import BACKENDS, Spec
from retrieval_bench.results import Failure, Features, Record, Row, TimeFigure, save, set_aside
from retrieval_bench.search.index import warm_up
from retrieval_bench.timing import PeakMemory, Stopwatch, Time, latencies, pinned
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
    """Prepare, evaluate each method, and save after each; an interrupt leaves a record of what was finished."""
    trial = prepare(plan, progress)
    record = blank_record(plan, trial)
    arrays = common_arrays(trial)
    fresh = not overwrite
    try:
        for spec in plan.methods:
            log.info("%s: starting", spec)
            outcome = evaluate(spec, plan, trial, progress)
            if outcome.ranking is not None:
                arrays |= ranking_arrays(outcome.row.method, outcome.ranking, outcome.relevant_ranks)
            record = with_row(record, outcome.row, plan.threads)
            if fresh:
                earlier = set_aside(out)
                if earlier is not None:
                    log.info("the earlier record of %s is kept in %s", out, earlier)
                fresh = False
            record = save(record, out, arrays)
            on_row(outcome.row)
    except KeyboardInterrupt:
        if record.rows:
            save(record.model_copy(update={"status": "interrupted"}), out, arrays)
        raise
    return save(record.model_copy(update={"status": "finished"}), out, arrays)


def evaluate(spec: Spec, plan: Plan, trial: Trial, progress: Progress = silent) -> Outcome:
    """One method, from building it to its row. Whatever goes wrong becomes a failed row, never the end of the run."""
    name, extractor = str(spec), None
    try:
        with Stopwatch() as loading:
            extractor = spec.build(Setup(plan.seed, plan.weights, plan.device))
        name = _display_name(spec, extractor)
        return _evaluate(name, spec, extractor, loading.seconds, plan, trial, progress)
    except BenchError as error:
        failure = Failure(kind="BenchError", sentence=str(error))
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}"
        failure = Failure(kind=type(error).__name__, sentence=sentence, traceback=traceback.format_exc())
    log.error("%s failed: %s", name, failure.sentence)
    row = Row(method=name, family=spec.entry.family, status="failed", params=dict(spec.options), error=failure)
    return Outcome(row)


def _display_name(spec: Spec, extractor: Extractor) -> str:
    mark = getattr(extractor, "mark", "")
    return f"{spec}[{mark}]" if mark else str(spec)


def _evaluate(
    name: str, spec: Spec, extractor: Extractor, load_s: float, plan: Plan, trial: Trial, progress: Progress
) -> Outcome:
    data = trial.dataset
    times: dict[str, Time] = {"load": Time(load_s, "s")}

    with PeakMemory() as memory:
        with pinned(1):  # one thread a library, one worker a core: images are the unit of parallel work
            recipe = _recipe(spec, extractor, plan)
            fitted, fit_s = _fit(extractor, recipe, data.train, plan, name, progress)
            times["fit"] = Time(fit_s, "s")
            learned_from = data.train.content if fitted != "nothing to learn" else None
            key = recipe_key(recipe | {"kind": "features", "learned_from": learned_from})

            def features_of(split: Split, part: str) -> Any:
                def show(done: int, total: int) -> None:
                    progress(f"{name}: {part}", done, total)

                return extract(extractor, split, threads=plan.threads, cache=plan.cache, key=key, progress=show)

            gallery, query = features_of(data.gallery, "gallery"), features_of(data.query, "queries")
        with pinned(plan.threads):
            with Stopwatch() as compiling:
                warm_up(extractor.distance)
            with Stopwatch() as building:
                searcher: Searcher = BACKENDS[plan.backend].build(gallery.features, extractor.distance)
            times |= {"jit": Time(compiling.seconds, "s"), "index_build": Time(building.seconds, "s")}
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
            scores = metrics.scores(judged, trial.k)
    times["peak_memory"] = Time(memory.mib, "MiB")

    times |= _measure(extractor, searcher, query.features, plan, trial, name, progress)
    features = Features(
        distance=extractor.distance,
        dim=gallery.features.shape[1] * (8 if extractor.distance == "hamming" else 1),
        dtype="bit" if extractor.distance == "hamming" else str(gallery.features.dtype),
        bytes_per_image=int(gallery.features[0].nbytes),
        index_bytes=int(searcher.bytes),
        zero_rows=0 if extractor.distance == "hamming" else _zero_rows(gallery.features) + _zero_rows(query.features),
        computed=gallery.computed + query.computed,
        from_cache=gallery.from_cache + query.from_cache,
        fit=fitted,  # type: ignore[arg-type]
        learned_from=learned_from,
    )
    row = Row(
        method=name,
        family=spec.entry.family,
        status="ok",
        scores=scores,
        times={what: TimeFigure(**asdict(figure)) for what, figure in times.items()},
        params=dict(spec.options),
        weights=getattr(extractor, "weights", None),
        features=features,
    )
    return Outcome(row, ranking, relevant_ranks)


def _recipe(spec: Spec, extractor: Extractor, plan: Plan) -> dict[str, Any]:
    """All that a feature depends on besides its image and what was learned."""
    own = Path(spec.entry.build.__code__.co_filename)
    sources = [*Path(extractors.__file__).parent.glob("*.py"), *([own] if own.is_file() else [])]
    return {
        "method": str(spec),
        "seed": plan.seed,
        "device": plan.device,
        "distance": extractor.distance,
        "weights": (getattr(extractor, "weights", None) or {}).get("sha256"),
        "decoder": DECODER_VERSION,
        "code": code_version(*sources),
        "libraries": library_versions(),
    }


def _fit(
    extractor: Extractor, recipe: Mapping[str, Any], train: Split, plan: Plan, name: str, progress: Progress
) -> tuple[str, float | None]:
    """Learn from train, or take from the cache what was learned from the same images; (how, seconds it took now)."""
    learned: tuple[str, ...] = getattr(extractor, "learned", ())
    if not learned:
        extractor.fit(train)
        return "nothing to learn", None
    if not len(train):
        raise BenchError(f"{name} learns from train images and this dataset has none; add a train split or drop {name}")
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


def _measure(
    extractor: Extractor,
    searcher: Searcher,
    features: np.ndarray,
    plan: Plan,
    trial: Trial,
    name: str,
    progress: Progress,
) -> dict[str, Time]:
    """The time pass: single queries one after the other, then throughput. Nothing here comes from the cache."""
    query, k = trial.dataset.query, max(trial.k)
    n = min(TIMED_QUERIES, len(query))
    sample = np.random.default_rng(plan.seed).permutation(len(query))[:n]
    own = None if trial.exclude is None else trial.exclude[sample]
    times: dict[str, Time] = {}

    with pinned(plan.threads):
        with Stopwatch() as searching:
            searcher(features, k, trial.exclude)
        times["search_throughput"] = Time(len(features) / searching.seconds, "queries/s", len(features))
        if hasattr(extractor, "transform_split"):
            return times  # it looks at labels: there is nothing to time

        def find(feature: np.ndarray, item: int = 0) -> Ranking:
            return searcher(feature, k, None if own is None else own[item : item + 1])

        phases = (
            ("decode", lambda item: query.images[int(sample[item])]),
            ("extract", lambda image: checked(extractor.transform([image]), 1, extractor.distance)),
            ("search", find),
        )
        times |= latencies(phases, n, progress=lambda done, total: progress(f"{name}: timing", done, total))

    with pinned(1), Stopwatch() as extracting:
        extract(
            extractor,
            query.take(sample),
            threads=plan.threads,
            cache=FeatureCache(None),
            key="",
            progress=lambda done, total: None,
        )
    times["extract_throughput"] = Time(n / extracting.seconds, "images/s", n)
    return times


def _zero_rows(features: np.ndarray) -> int:
    return int((~features.any(axis=1)).sum())


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
