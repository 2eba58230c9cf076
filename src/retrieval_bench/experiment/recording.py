"""From a run to its record: the blank form, filled in before the first method, and the arrays that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import DISTRACTOR, Dataset, Judged, Ranking, printable
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.query_metadata import arrays_of, known_of
from retrieval_bench.evaluation.relevance import FULL_LIMIT, Relevant
from retrieval_bench.evaluation.uncertainty import statistics
from retrieval_bench.experiment.classification import Classified
from retrieval_bench.experiment.prepare import RetrievalTask
from retrieval_bench.images.screening import SkippedImage
from retrieval_bench.records.environment import command_line, environment, now
from retrieval_bench.records.schema import DatasetFacts, ImageCounts, MetricFacts, Record, Row, Settings, Skipped
from retrieval_bench.registry import Spec
from retrieval_bench.system.cache import library_versions
from retrieval_bench.system.device import gpu_settings
from retrieval_bench.system.timing import pinned
from retrieval_bench.texts.perturbations import entry_of


def blank_record(facts: DatasetFacts, settings: Settings, task: RetrievalTask, allocator: str) -> Record:
    """The record of a run in which no method has finished yet."""
    ceilings = ceilings_of(task)  # first: a metric of a plug-in that cannot be computed is left out from here on
    where = environment(library_versions(), _gpu(settings.device), allocator)
    return Record(
        status="running",
        created=now(),
        command=command_line(),
        dataset=facts,
        settings=settings,
        environment=where,
        metrics={name: MetricFacts(**about) for name, about in metrics.describe(task.categories is not None).items()},
        ceilings=ceilings,
        perturbations={name: entry_of(name).about for name in settings.perturb},
        statistics=statistics(task.dataset.query.labels, settings.seed),
        rows=(),
    )


def dataset_facts(
    data: Dataset,
    spec: Spec,
    root: Path | None,
    *,
    fingerprint: str,
    left_out: int,
    skipped: Sequence[SkippedImage],
) -> DatasetFacts:
    """What a record says of its dataset. left_out: queries that nothing in the gallery answers."""
    lone = int(data.is_distractor(data.gallery).sum())
    return DatasetFacts(
        name=data.name,
        spec=str(spec),
        root=None if root is None else printable(root),
        fingerprint=fingerprint,
        images=ImageCounts(train=len(data.train), gallery=len(data.gallery), query=len(data.query)),
        labels=len(set(np.union1d(data.gallery.label_sets, data.query.label_sets).tolist()) - {-1}) - bool(lone),
        categories=len(data.category_names) - (DISTRACTOR in data.category_names),
        leave_one_out=data.leave_one_out,
        queries_left_out=left_out,
        skipped=tuple(Skipped(**asdict(item)) for item in skipped),
        notices=data.notices,
        distractors=lone,
    )


def ceilings_of(task: RetrievalTask) -> dict[str, float]:
    """What a perfect ranking scores on this dataset, by metric name with cutoff."""
    return metrics.ceilings(_perfect(task), task.k)


def _perfect(task: RetrievalTask) -> Judged:
    """What an oracle's ranking would be judged as: all relevant items first. Its scores are the metrics' ceilings."""
    ranks = np.arange(max(task.depth, int(task.n_relevant.max())))
    relevant = ranks[None, :] < task.n_relevant[:, None]
    expected = task.dataset.query.labels
    retrieved = np.where(relevant, expected[:, None], -1)[:, : task.depth]
    relevant_ranks = np.where(relevant, ranks, -1)[:, : int(task.n_relevant.max())]
    whole = len(task.dataset.gallery) <= FULL_LIMIT
    ranks_known = relevant_ranks if whole else None
    if task.categories is None:
        return Judged(expected, retrieved, task.n_relevant, ranks_known)
    partly = task.categories.n_partly
    same = ranks[None, : task.depth] < (task.n_relevant + partly)[:, None]
    grades = np.where(relevant[:, : task.depth], 2, same.astype(np.int64))
    return Judged(expected, retrieved, task.n_relevant, ranks_known, grades, partly)


def common_arrays(task: RetrievalTask) -> dict[str, np.ndarray]:
    """What all methods share: ids and labels of gallery and queries, how many items each query should find, what is
    known of labels and queries besides, and which queries have no answer."""
    data = task.dataset
    arrays = {
        "gallery_ids": np.array(data.gallery.ids),
        "gallery_labels": data.gallery.labels,
        "query_ids": np.array(data.query.ids),
        "query_labels": data.query.labels,
        "n_relevant": task.n_relevant,
    }
    for name, split in (("gallery", data.gallery), ("query", data.query)):
        if split.other_labels is not None:
            arrays[f"{name}_other_labels"] = split.other_labels
    arrays |= arrays_of(known_of(data, arrays["query_ids"]))
    if task.categories is not None:
        arrays["n_partly"] = task.categories.n_partly
        arrays["gallery_category_sets"] = task.categories.gallery
        arrays["query_category_sets"] = task.categories.query
    if task.unanswerable is not None:
        arrays["unanswerable_ids"] = np.array(task.unanswerable.query.ids)
        arrays["unanswerable_labels"] = task.unanswerable.query.labels
    return arrays if task.exclude is None else arrays | {"exclude": task.exclude}


def ranking_arrays(
    row: Row,
    ranking: Ranking,
    relevant: Relevant | None,
    classifiers: Mapping[str, Classified],
    unanswerable_distances: np.ndarray | None = None,
    truncated: bool = False,
) -> dict[str, np.ndarray]:
    """What one method found: indices and distances (q, depth), the ranks of all relevant items where known, the ties
    these are part of where any decides something, what each classifier made of the queries, and the nearest distances
    of the queries without an answer, (u,). truncated: the ranking may end early; how many are kept of each, (q,)."""
    arrays = {"indices": ranking.indices.astype(np.int32), "distances": ranking.distances}
    if relevant is not None:
        arrays["relevant_ranks"] = relevant.ranks.astype(np.int32)
        if row.ties:
            arrays["tie_starts"] = relevant.tie_starts.astype(np.int32)
            arrays["tie_sizes"] = relevant.tie_sizes.astype(np.int32)
    if truncated:
        arrays["held"] = (ranking.indices >= 0).sum(axis=1).astype(np.int32)
    if unanswerable_distances is not None:
        arrays["unanswerable_distances"] = unanswerable_distances
    for classifier, classified in classifiers.items():
        arrays |= {f"heads/{classifier}/{name}": array for name, array in classified.arrays.items()}
    return {f"{row.method}/{name}": array for name, array in arrays.items()}


def loaded_libraries(threads: int, device: str) -> dict[str, Any]:
    """Thread counts and GPU settings of what is loaded by now in this process, as fields of `Environment`."""
    with pinned(threads) as counts:
        return {"thread_counts": counts, "gpu_settings": gpu_settings(device)}


def _gpu(device: str) -> str | None:
    if device != "cuda":
        return None
    import torch

    return str(torch.cuda.get_device_name())
