"""From a run to its record: the blank form, filled in before the first method, and the arrays that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from retrieval_bench.core import Judged, Ranking, printable
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.query_metadata import arrays_of, known_of
from retrieval_bench.evaluation.relevance import FULL_LIMIT, Relevant
from retrieval_bench.evaluation.uncertainty import comparisons, statistics
from retrieval_bench.experiment.classification import Classified
from retrieval_bench.experiment.prepare import Plan, Trial
from retrieval_bench.records.environment import command_line, environment, now
from retrieval_bench.records.schema import DatasetFacts, ImageCounts, MetricFacts, Record, Row, Settings, Skipped
from retrieval_bench.registry import PERTURBATIONS
from retrieval_bench.system.cache import library_versions
from retrieval_bench.system.device import gpu_settings
from retrieval_bench.system.timing import pinned


def blank_record(plan: Plan, trial: Trial, allocator: str) -> Record:
    """The record of a run in which no method has finished yet."""
    data = trial.dataset
    facts = DatasetFacts(
        name=data.name,
        spec=str(plan.dataset),
        root=None if plan.root is None else printable(plan.root),
        fingerprint=trial.fingerprint,
        images=ImageCounts(train=len(data.train), gallery=len(data.gallery), query=len(data.query)),
        labels=len(np.union1d(data.gallery.labels, data.query.labels)),
        categories=len(data.category_names),
        leave_one_out=data.leave_one_out,
        queries_left_out=trial.left_out,
        skipped=tuple(Skipped(**asdict(item)) for item in trial.skipped),
        notices=data.notices,
    )
    settings = Settings(
        methods=tuple(map(str, plan.methods)),
        classifiers=plan.classifiers,
        k=trial.k,
        seed=plan.seed,
        weights=printable(plan.weights),
        device=plan.device,
        threads=plan.threads,
        limit=plan.limit,
        backend=plan.backend,
        depth=trial.depth,
        perturb=plan.perturb,
        severities=plan.severities if plan.perturb else (),
    )
    where = environment(library_versions(), _gpu(plan.device), allocator)
    return Record(
        status="running",
        created=now(),
        command=command_line(),
        dataset=facts,
        settings=settings,
        environment=where,
        metrics={name: MetricFacts(**about) for name, about in metrics.describe().items()},
        ceilings=ceilings_of(trial),
        perturbations={name: PERTURBATIONS[name].about for name in plan.perturb},
        statistics=statistics(data.query.labels, plan.seed),
        rows=(),
    )


def ceilings_of(trial: Trial) -> dict[str, float]:
    """What a perfect ranking scores on this dataset, by metric name with cutoff."""
    return metrics.ceilings(_perfect(trial), trial.k)


def _perfect(trial: Trial) -> Judged:
    """What an oracle's ranking would be judged as: all relevant items first. Its scores are the metrics' ceilings."""
    ranks = np.arange(max(trial.depth, int(trial.n_relevant.max())))
    relevant = ranks[None, :] < trial.n_relevant[:, None]
    expected = trial.dataset.query.labels
    retrieved = np.where(relevant, expected[:, None], -1)[:, : trial.depth]
    relevant_ranks = np.where(relevant, ranks, -1)[:, : int(trial.n_relevant.max())]
    whole = len(trial.dataset.gallery) <= FULL_LIMIT
    return Judged(expected, retrieved, trial.n_relevant, relevant_ranks if whole else None)


def common_arrays(trial: Trial) -> dict[str, np.ndarray]:
    """What all methods share: ids and labels of gallery and queries, how many items each query should find, and what
    is known of labels and queries besides."""
    data = trial.dataset
    arrays = {
        "gallery_ids": np.array(data.gallery.ids),
        "gallery_labels": data.gallery.labels,
        "query_ids": np.array(data.query.ids),
        "query_labels": data.query.labels,
        "n_relevant": trial.n_relevant,
    }
    arrays |= arrays_of(known_of(data, arrays["query_ids"]))
    return arrays if trial.exclude is None else arrays | {"exclude": trial.exclude}


def ranking_arrays(
    row: Row, ranking: Ranking, relevant: Relevant | None, classifiers: Mapping[str, Classified]
) -> dict[str, np.ndarray]:
    """What one method found: indices and distances (q, depth), the ranks of all relevant items where known, the ties
    these are part of where any decides something, and what each classifier made of the queries."""
    arrays = {"indices": ranking.indices.astype(np.int32), "distances": ranking.distances}
    if relevant is not None:
        arrays["relevant_ranks"] = relevant.ranks.astype(np.int32)
        if row.ties:
            arrays["tie_starts"] = relevant.tie_starts.astype(np.int32)
            arrays["tie_sizes"] = relevant.tie_sizes.astype(np.int32)
    for classifier, classified in classifiers.items():
        arrays |= {f"heads/{classifier}/{name}": array for name, array in classified.arrays.items()}
    return {f"{row.method}/{name}": array for name, array in arrays.items()}


def with_row(record: Record, row: Row, threads: int) -> Record:
    """The record with one more row, and with the thread counts and GPU settings of what is loaded by now."""
    with pinned(threads) as counts:
        read = {"thread_counts": counts, "gpu_settings": gpu_settings(record.settings.device)}
        where = record.environment.model_copy(update=read)
    return record.model_copy(update={"rows": (*record.rows, row), "environment": where})


def with_comparisons(record: Record, values: Mapping[str, Mapping[str, np.ndarray]], trial: Trial) -> Record:
    """The record with every two of these methods held against each other; values: method -> metric -> (q,)."""
    if record.statistics is None:
        return record
    found = comparisons(values, trial.dataset.query.labels, record.statistics)
    return record.model_copy(update={"comparisons": found})


def _gpu(device: str) -> str | None:
    if device != "cuda":
        return None
    import torch

    return str(torch.cuda.get_device_name())
