"""Perturbed queries against the same gallery, with all that was learned as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval_bench.core import Searcher, Setup, Split
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.evaluation.uncertainty import intervals_of, statistics
from retrieval_bench.experiment.extraction import texts_of
from retrieval_bench.experiment.features import part_features
from retrieval_bench.experiment.prepare import RetrievalTask
from retrieval_bench.images.perturbations import Perturbed
from retrieval_bench.methods.modalities import IMAGE, TEXT
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.schema import Robustness
from retrieval_bench.system.cache import FeatureCache
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import pinned
from retrieval_bench.texts.perturbations import changes_texts, levels, perturbed_text


def perturbed_queries(query: Split, name: str, severity: int, seed: int) -> Split:
    """The queries with their pictures, or their texts, perturbed."""
    if not changes_texts(name):
        return replace(query, images=Perturbed(query.images, name, severity, seed))
    return replace(query, texts=tuple(perturbed_text(name, text, severity, seed) for text in texts_of(query)))


def evaluate_perturbed(
    pipeline: Pipeline,
    searcher: Searcher,
    task: RetrievalTask,
    perturbations: Sequence[str],
    severities: Sequence[int],
    setup: Setup,
    cache: FeatureCache,
    progress: Progress,
) -> tuple[Robustness, ...]:
    """Scores of each perturbation at each severity; none of a method that sees labels, or that
    reads what a file says of the images.

    searcher: knows the gallery of the task, whose images stay as they are.
    """
    if pipeline.sees_labels or pipeline.by_id:
        return ()  # the pixels of its queries do not matter to it
    data = task.dataset
    kept = ("accuracy", "map@r", f"recall@{max(task.k)}")
    how = statistics(data.query.labels, setup.seed)
    measured = []
    read = pipeline.sides.query.split("+")
    for name in perturbations:
        if (TEXT if changes_texts(name) else IMAGE) not in read:
            continue  # its queries have nothing that could change
        for severity in levels(name, severities):
            what = f"{name} {severity}"
            asked = {what: perturbed_queries(data.query, name, severity, setup.seed)}
            with pinned(1):
                described = [
                    part_features(part, pipeline, asked, task.train, setup, task.decoder, cache, progress)
                    for part in pipeline.parts
                ]
            with pinned(setup.threads):
                ranking, relevant = rank_gallery(
                    searcher,
                    pipeline.rows([done.splits[what].features for done in described]),
                    data.query.label_sets,
                    data.gallery.label_sets,
                    task.depth,
                    exclude=task.exclude,
                )
            ranks = None if relevant is None else relevant.ranks
            judged = judge(
                *(data.query.label_sets, data.gallery.label_sets, ranking, task.n_relevant, ranks),
                truncated=pipeline.ends_early,
            )
            values = {metric: value for metric, value in metrics.per_query(judged, task.k).items() if metric in kept}
            measured.append(
                Robustness(
                    perturbation=name,
                    severity=severity,
                    scores={metric: float(value.mean()) for metric, value in values.items()},
                    intervals=intervals_of(values, data.query.labels, how),
                )
            )
    return tuple(measured)
