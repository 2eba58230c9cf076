"""The same gallery and all that was learned, asked with perturbed queries."""

from __future__ import annotations

from dataclasses import replace

from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.evaluation.uncertainty import intervals_of, statistics
from retrieval_bench.experiment.features import part_features
from retrieval_bench.experiment.prepare import Plan, Progress, Trial
from retrieval_bench.experiment.quality import QualityResult
from retrieval_bench.images.perturbations import Perturbed, levels
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.records.schema import Robustness
from retrieval_bench.system.timing import pinned


def asked_again(
    pipeline: Pipeline, found: QualityResult, plan: Plan, trial: Trial, progress: Progress
) -> tuple[Robustness, ...]:
    """Scores of each perturbation at each severity; none of a method that sees labels."""
    if pipeline.sees_labels:
        return ()  # the pixels of its queries do not matter to it
    data = trial.dataset
    kept = ("accuracy", "map@r", f"recall@{max(trial.k)}")
    how = statistics(data.query.labels, plan.seed)
    measured = []
    for name in plan.perturb:
        for severity in levels(name, plan.severities):
            images = Perturbed(data.query.images, name, severity, plan.seed)
            what = f"{name} {severity}"
            asked = {what: replace(data.query, images=images)}
            with pinned(1):
                described = [
                    part_features(part, pipeline, asked, plan, data.train, progress) for part in pipeline.parts
                ]
            with pinned(plan.threads):
                ranking, relevant = rank_gallery(
                    found.searcher,
                    pipeline.rows([done.splits[what].features for done in described]),
                    data.query.labels,
                    data.gallery.labels,
                    trial.depth,
                    exclude=trial.exclude,
                )
            ranks = None if relevant is None else relevant.ranks
            judged = judge(data.query.labels, data.gallery.labels, ranking, trial.n_relevant, ranks)
            values = {metric: value for metric, value in metrics.per_query(judged, trial.k).items() if metric in kept}
            measured.append(
                Robustness(
                    perturbation=name,
                    severity=severity,
                    scores={metric: float(value.mean()) for metric, value in values.items()},
                    intervals=intervals_of(values, data.query.labels, how),
                )
            )
    return tuple(measured)
