"""A record's dataset and judgements once more: what is asked of a run after it is over needs both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Judged, NotComparable, Ranking
from retrieval_bench.datasets.splits import limit
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge
from retrieval_bench.records.schema import Record
from retrieval_bench.registry import DATASETS, parse


def dataset_of(record: Record, root: Path | None = None) -> Dataset:
    """The dataset as the run saw it, without the images that it skipped. root: where it lies now, if elsewhere.

    Raises NotComparable where ids, labels or contents are not those of the record.
    """
    facts = record.dataset
    place = root if root is not None else None if facts.root is None else Path(facts.root)
    dataset: Dataset = parse(DATASETS, facts.spec).build(place)
    if record.settings.limit is not None:
        dataset = limit(dataset, record.settings.limit)
    for name in {item.split for item in facts.skipped}:
        bad = {item.id for item in facts.skipped if item.split == name}
        split = dataset.splits[name]
        whole = [row for row, item in enumerate(split.ids) if item not in bad]
        dataset = dataset.with_splits({name: split.take(whole)})
    if dataset.fingerprint != facts.fingerprint:
        raise NotComparable(
            f"dataset {facts.spec}: fingerprint {dataset.fingerprint[:12]}, the record has {facts.fingerprint[:12]}; "
            "its images, labels or splits have changed: run again, or name the old ones with --data-root"
        )
    return dataset


def rows_of(ids: tuple[str, ...], wanted: np.ndarray) -> np.ndarray:
    """(n,) int64: the place of each wanted id among ids; KeyError for one that is not there."""
    place = {item: row for row, item in enumerate(ids)}
    return np.array([place[item] for item in wanted.tolist()], np.int64)


def judged_of(arrays: Mapping[str, np.ndarray], method: str) -> Judged:
    """What a method's saved rankings are judged as; arrays: of `results.load_rankings`."""
    return judge(
        arrays["query_labels"],
        arrays["gallery_labels"],
        Ranking(arrays[f"{method}/indices"], arrays[f"{method}/distances"]),
        arrays["n_relevant"],
        arrays.get(f"{method}/relevant_ranks"),
    )


def values_of(record: Record, arrays: Mapping[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
    """Accuracy, map@r and recall at the largest k of each query: {name: (q,) float64}."""
    kept = main_metrics(record)
    found = metrics.per_query(judged_of(arrays, method), record.settings.k)
    return {name: found[name] for name in kept}


def main_metrics(record: Record) -> tuple[str, ...]:
    return ("accuracy", "map@r", f"recall@{max(record.settings.k)}")


def methods_of(record: Record, wanted: tuple[str, ...] = ()) -> list[str]:
    """Methods that did not fail, all or those wanted. Raises BenchError for one that the record does not have."""
    have = [row.method for row in record.rows if row.status == "ok"]
    for name in wanted:
        if name not in have:
            raise BenchError(
                f"--methods {name!r}: the record has {', '.join(have) or 'no finished method'}; name those"
            )
    return [name for name in have if not wanted or name in wanted]
