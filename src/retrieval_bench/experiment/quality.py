"""The quality pass of one method: learn, extract, search for all queries at once, and judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Ranking, Rows, Searcher, Setup, Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.open_set import open_set
from retrieval_bench.evaluation.relevance import Relevant, judge, rank_gallery
from retrieval_bench.evaluation.thresholds import chosen, curve, pairs_of, scores_at, thinned
from retrieval_bench.evaluation.ties import tie_bounds
from retrieval_bench.experiment.approximation import CutOff, beside_exact, depth_of
from retrieval_bench.experiment.described_again import inconsistency
from retrieval_bench.experiment.features import PartFeatures, fit_together, part_features
from retrieval_bench.experiment.prepare import RetrievalTask, Unanswerable
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.schema import Approximation, Features, Interval, OpenSet, PartFacts, ThresholdFacts, Ties
from retrieval_bench.search.index import warm_up
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.checkpoint import refuse_own_images
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch, Time, pinned

_NO_ANSWER = -2
"""A label that nothing has: -1 is that of the padding behind a ranking."""


@dataclass(frozen=True, eq=False)
class QualityResult:
    """What the quality pass leaves behind; searcher holds what is known of the gallery.

    features: None where a part has none, but a ranking.
    train_and_query: vectors of train and queries, where classifiers learn from the one and are judged on the other.
    open_set: how well the queries without an answer can be told; None where there are none. unanswerable_distances:
        (u,) float32, of each of them to its nearest gallery image; None where these cannot be compared.
    by_threshold: how search by a threshold does; None where nobody asked.
    inconsistent: what is wrong where images that are described again have other features; "" where they have the same.
    """

    scores: dict[str, float]
    per_query: dict[str, np.ndarray]
    ties: dict[str, Ties]
    features: Features | None
    parts: tuple[PartFacts, ...]
    times: dict[str, Time]
    ranking: Ranking
    relevant: Relevant | None
    searcher: Searcher
    queries: Rows
    train_and_query: tuple[np.ndarray, np.ndarray] | None
    open_set: OpenSet | None
    unanswerable_distances: np.ndarray | None
    inconsistent: str
    by_threshold: ThresholdFacts | None = None
    approximation: Approximation | None = None


def quality(
    pipeline: Pipeline,
    task: RetrievalTask,
    setup: Setup,
    cache: FeatureCache,
    progress: Progress,
    *,
    for_classifiers: bool = False,
    thresholds: bool = False,
) -> QualityResult:
    """Learn, extract, search for all queries at once, and judge; features may come from the cache.

    for_classifiers: keep the vectors of train and queries, from which classifiers learn. thresholds: judge search by a
    threshold, too.
    """
    data, name = task.dataset, pipeline.name
    aside = task.unanswerable
    queried = [data.query] if aside is None else [data.query, aside.query]
    for part in pipeline.parts:
        asked = (split.images.digest(row) for split in queried for row in range(len(split)))
        refuse_own_images(getattr(part.extractor, "trained_on", None), asked, part.name)
    wanted = {"gallery": data.gallery, "query": data.query}
    if aside is not None and not pipeline.incomparable:
        wanted["unanswerable"] = aside.query
    no_threshold = _no_threshold(pipeline, task) if thresholds else "not asked for"
    learning = for_classifiers and pipeline.unclassifiable is None and len(task.train) > 0
    with pinned(1):  # one thread a library, one worker a core: images are the unit of parallel work
        extracted = []
        for part in pipeline.parts:
            wants_train = (learning and part in pipeline.members) or not no_threshold
            more = {"train": task.train} if wants_train else {}
            some = wanted | more
            extracted.append(part_features(part, pipeline, some, task.train, setup, task.decoder, cache, progress))
        joined_s = None
        if pipeline.learns_together:
            joined_s = fit_together(pipeline, extracted, task.train, setup, task.decoder, cache, progress)
    with Stopwatch() as compiling:  # before pinning, which leaves a library that is not loaded alone
        warm_up(pipeline.distance)
    with pinned(setup.threads):
        gallery, queries = (
            pipeline.rows([part.splits[split].features for part in extracted]) for split in ("gallery", "query")
        )
        with Stopwatch() as building:
            searcher = pipeline.searcher(gallery)
        if pipeline.approximate:
            searcher = CutOff(searcher, depth_of(task))
        ranking, relevant = rank_gallery(
            searcher,
            queries,
            data.query.label_sets,
            data.gallery.label_sets,
            task.depth,
            exclude=task.exclude,
            progress=lambda done: progress(f"{name}: ranking", done, len(data.query)),
        )
        unanswerable_distances = None
        if aside is not None and "unanswerable" in wanted:
            unanswerable_distances = _nearest_distances(pipeline, searcher, extracted, aside, task, progress)
        by_threshold = ThresholdFacts(unavailable=no_threshold) if thresholds else None
        if not no_threshold:
            by_threshold = _by_threshold(pipeline, searcher, queries, extracted, task, setup.seed)
    with pinned(1):
        inconsistent = _inconsistent(pipeline, extracted, data.gallery, setup)
    judged = judge(
        data.query.label_sets,
        data.gallery.label_sets,
        ranking,
        task.n_relevant,
        None if relevant is None else relevant.ranks,
        task.categories,
        pipeline.ends_early,
    )
    per_query = metrics.per_query(judged, task.k)
    approximation = None
    if isinstance(searcher, CutOff):
        with pinned(setup.threads):
            exact = pipeline.exact_searcher(gallery)
            approximation = beside_exact(
                searcher, exact, queries, gallery, pipeline.distance, task, per_query, setup.seed
            )
    fits = [part.fit_s for part in extracted] + [joined_s]
    if any(part.fitted == "from cache" for part in extracted):
        fits = []  # what one part learned earlier is missing from the sum
    times = {
        "fit": Time(None if all(spent is None for spent in fits) else sum(spent or 0.0 for spent in fits), "s"),
        "jit": Time(compiling.seconds, "s"),
        "index_build": Time(building.seconds, "s"),
    }
    return QualityResult(
        metrics.scores(judged, task.k),
        per_query,
        _ties(task, relevant, pipeline.ends_early),
        None if pipeline.truncated else _features(pipeline, gallery, queries, searcher, extracted, task.train),
        _parts(pipeline, extracted),
        times,
        ranking,
        relevant,
        searcher,
        queries,
        _train_and_query(pipeline, extracted) if learning else None,
        None if aside is None else _open_set(pipeline, task, aside, ranking.distances[:, 0], unanswerable_distances),
        unanswerable_distances,
        inconsistent,
        by_threshold,
        approximation,
    )


def _no_threshold(pipeline: Pipeline, task: RetrievalTask) -> str:
    """Why no threshold can be chosen; "" where one can."""
    if pipeline.sees_labels:
        return f"{pipeline.name} sees the labels"
    if pipeline.incomparable:
        return pipeline.incomparable
    if pipeline.approximate:
        return f"{pipeline.name} may miss what is within it"
    if not len(task.train):
        return "a threshold is chosen on train, and there are no training items"
    return ""


def _by_threshold(
    pipeline: Pipeline,
    searcher: Searcher,
    queries: Rows,
    extracted: list[PartFeatures],
    task: RetrievalTask,
    seed: int,
) -> ThresholdFacts:
    """Choose the largest distance that is near enough on train, and judge it on the queries."""
    data, train = task.dataset, task.train
    items = pipeline.rows([part.splits["train"].features for part in extracted])
    known = pairs_of(pipeline.searcher(items), items, train.label_sets, train.label_sets, np.arange(len(train)), seed)
    learned = curve(known)
    if not len(learned.thresholds) or not known.n_right.any():
        return ThresholdFacts(unavailable="no training item has another of its label")
    place = chosen(learned)
    threshold = float(learned.thresholds[place])
    asked = pairs_of(searcher, queries, data.query.label_sets, data.gallery.label_sets, task.exclude, seed)
    scores, ends = scores_at(asked, threshold, seed)
    at = {name: float(getattr(learned, name)[place]) for name in ("precision", "recall", "f1")}
    return ThresholdFacts(
        threshold=threshold,
        train=at,
        scores=scores,
        intervals={name: Interval(low=low, high=high) for name, (low, high) in ends.items()},
        curve=tuple(thinned(curve(asked))),
        queries=len(asked.labels),
    )


def _inconsistent(pipeline: Pipeline, extracted: list[PartFeatures], gallery: Split, setup: Setup) -> str:
    for part, done in zip(pipeline.parts, extracted, strict=True):
        side = part.side(pipeline.sides.gallery)
        sentence = inconsistency(part, gallery, done.splits["gallery"].features, setup, side)
        if sentence:
            return sentence if pipeline.method.plain else f"of {part.name}, {sentence}"
    return ""


def _nearest_distances(
    pipeline: Pipeline,
    searcher: Searcher,
    extracted: list[PartFeatures],
    aside: Unanswerable,
    task: RetrievalTask,
    progress: Progress,
) -> np.ndarray:
    """(u,) float32, to the nearest gallery image, by the same search to the same depth as for all other queries."""
    ranking, _ = rank_gallery(
        searcher,
        pipeline.rows([part.splits["unanswerable"].features for part in extracted]),
        np.full(len(aside.query), _NO_ANSWER),
        task.dataset.gallery.label_sets,
        task.depth,
        exclude=aside.exclude,
        progress=lambda done: progress(f"{pipeline.name}: unanswerable queries", done, len(aside.query)),
    )
    return ranking.distances[:, 0].copy()


def _open_set(
    pipeline: Pipeline,
    task: RetrievalTask,
    aside: Unanswerable,
    answerable_distances: np.ndarray,
    unanswerable_distances: np.ndarray | None,
) -> OpenSet:
    query = task.dataset.query
    if unanswerable_distances is None:
        return OpenSet(answerable=len(query), unanswerable=len(aside.query), unavailable=pipeline.incomparable)
    return open_set(answerable_distances, unanswerable_distances, query.labels, aside.query.labels)


def _train_and_query(pipeline: Pipeline, extracted: list[PartFeatures]) -> tuple[np.ndarray, np.ndarray]:
    members = extracted[: len(pipeline.members)]
    train, query = (pipeline.vectors([part.splits[split].features for part in members]) for split in ("train", "query"))
    return train, query


def _ties(task: RetrievalTask, relevant: Relevant | None, truncated: bool) -> dict[str, Ties]:
    """What equal distances leave open; empty where they decide nothing."""
    if relevant is None:
        return {}
    bounds = tie_bounds(task.n_relevant, relevant.tie_starts, relevant.tie_sizes, task.k, truncated)
    if all(bound.best - bound.worst < 1e-9 for bound in bounds.values()):
        return {}
    return {name: Ties(**bound._asdict()) for name, bound in bounds.items()}


def _features(
    pipeline: Pipeline,
    gallery: Rows,
    queries: Rows,
    searcher: Searcher,
    extracted: list[PartFeatures],
    train: Split,
) -> Features:
    """What the method keeps of an image, all parts together; zero rows are those in which no part saw anything."""
    arrays = [gallery] if isinstance(gallery, np.ndarray) else list(gallery.arrays.values())
    one = len(arrays) == 1
    bits = pipeline.distance == "hamming" and one
    learned = {part.learned_from for part in extracted if part.learned_from is not None}
    if pipeline.learns_together:
        learned.add(train.content)
    fits = {part.fitted for part in extracted}
    return Features(
        distance=pipeline.distance,
        dim=sum(array.shape[1] * (8 if array.dtype == np.uint8 and (bits or not one) else 1) for array in arrays),
        dtype=" + ".join(dict.fromkeys("bit" if array.dtype == np.uint8 else str(array.dtype) for array in arrays)),
        bytes_per_image=sum(_bytes_of_an_item(array) for array in arrays),
        index_bytes=int(searcher.bytes),
        zero_rows=0 if pipeline.distance == "hamming" else _zero_rows(gallery) + _zero_rows(queries),
        computed=sum(part.computed for part in extracted),
        from_cache=sum(part.from_cache for part in extracted),
        fit="learned"
        if "learned" in fits or pipeline.learns_together
        else "from cache"
        if "from cache" in fits
        else "nothing to learn",
        learned_from=min(learned, default=None),
    )


def _parts(pipeline: Pipeline, extracted: list[PartFeatures]) -> tuple[PartFacts, ...]:
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
                bytes_per_image=_bytes_of_an_item(both[0]),
                zero_rows=sum(_zero_rows(features) for features in both),
                fit=done.fitted,
                weights=getattr(part.extractor, "weights", None),
            )
        )
    return tuple(facts)


def _bytes_of_an_item(features: np.ndarray) -> int:
    """Of words, the mean over the items: each has as many as it has."""
    if features.dtype != object:
        return int(features[0].nbytes)
    return round(
        sum(len(word.encode(errors="surrogatepass")) for (words,) in features for word in words) / len(features)
    )


def _zero_rows(rows: Rows) -> int:
    """Rows in which there is nothing, in none of the arrays."""
    arrays = [rows] if isinstance(rows, np.ndarray) else list(rows.arrays.values())
    seen = np.zeros(len(rows), bool)
    for array in arrays:
        seen |= array.astype(bool).any(axis=1)
    return int((~seen).sum())
