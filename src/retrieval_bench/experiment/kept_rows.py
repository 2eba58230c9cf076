"""What a method keeps of whole splits, for commands that search the rows of a record again."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval_bench.core import Rows
from retrieval_bench.experiment.features import fit_together, part_features
from retrieval_bench.experiment.prepare import Plan, Trial
from retrieval_bench.methods.pipeline import Pipeline
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import pinned


def kept_rows(
    pipeline: Pipeline, plan: Plan, trial: Trial, names: Sequence[str], progress: Progress
) -> dict[str, Rows]:
    """Name of a split -> its rows, from the cache where that has them; the pipeline has learned from train then."""
    splits = {"gallery": trial.dataset.gallery, "query": trial.dataset.query, "train": trial.train}
    wanted = {name: splits[name] for name in names}
    pipeline.meet(trial.dataset)
    with pinned(1):
        extracted = [
            part_features(part, pipeline, wanted, trial.train, plan.setup, trial.decoder, plan.cache, progress)
            for part in pipeline.parts
        ]
        if pipeline.learns_together:
            fit_together(pipeline, extracted, trial.train, plan.setup, trial.decoder, plan.cache, progress)
    return {name: pipeline.rows([part.splits[name].features for part in extracted]) for name in names}
