"""A record read back: its dataset as the run saw it, and every query's values, judged anew from what was ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Judged, NotComparable, Ranking, printable
from retrieval_bench.datasets.splits import limit
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import Categories, judge
from retrieval_bench.records.conversion import label_sets
from retrieval_bench.records.files import load_rankings, rankings_file
from retrieval_bench.records.schema import Record
from retrieval_bench.records.switch import RANKINGS_FILE
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.remote.place import root_of


def dataset_of(record: Record, root: Path | None = None) -> Dataset:
    """The dataset as the run saw it, without the images that it skipped. root: where it lies now, if elsewhere.

    Raises NotComparable where ids, labels or contents are not the images of the record.
    """
    facts = record.dataset
    place = root if root is not None else None if facts.root is None else root_of(facts.root)
    dataset: Dataset = parse(DATASETS, facts.spec).build(place)
    if all((row.query, row.gallery) == ("image", "image") for row in record.rows):
        dataset = dataset.without_texts()  # which no method of the run read
    if record.settings.limit is not None:
        dataset = limit(dataset, record.settings.limit)
    for name in {item.split for item in facts.skipped}:
        bad = {item.id for item in facts.skipped if item.split == name}
        split = dataset.splits[name]
        whole = [row for row, item in enumerate(split.ids) if item not in bad]
        dataset = dataset.with_splits({name: split.take(whole)})
    if dataset.fingerprint != facts.fingerprint:
        where = "" if place is None else f" in {printable(place)}"
        raise NotComparable(
            f"dataset {facts.spec}: the images{where} are not the images of the record: fingerprint "
            f"{dataset.fingerprint[:12]}, not {facts.fingerprint[:12]}; its images, labels or splits have changed, "
            "or this version divides or limits them by another rule: run again, or name the old ones with --data-root"
        )
    return dataset


@dataclass(frozen=True, eq=False)
class Values:
    """What each query of a record scored. clusters: (q,) labels; by_method: method -> metric -> (q,) float64."""

    query_ids: tuple[str, ...]
    clusters: np.ndarray
    by_method: Mapping[str, Mapping[str, np.ndarray]]


def values_of(path: Path, record: Record) -> Values | None:
    """Every query's values of all rows, from rankings.npz beside the record; None where there is no such file.

    Raises BenchError where the file is not the record's.
    """
    if not rankings_file(path, record).exists():
        return None
    return from_arrays(load_rankings(path, record), record)


def from_arrays(arrays: Mapping[str, np.ndarray], record: Record) -> Values | None:
    """The same, from the arrays; None where these hold no queries."""
    if "query_labels" not in arrays:
        return None
    methods = [row.method for row in record.rows if f"{row.method}/indices" in arrays]
    for method in methods:
        refuse_shallow(arrays, method, record.settings.k)
    by_method = {method: metrics.per_query(judged(arrays, method), record.settings.k) for method in methods}
    return Values(tuple(arrays["query_ids"].tolist()), arrays["query_labels"], by_method)


def refuse_shallow(arrays: Mapping[str, np.ndarray], method: str, k: Sequence[int]) -> None:
    """Raise BenchError where a method's rankings end before the largest cutoff."""
    depth = arrays[f"{method}/indices"].shape[1]
    if depth < max(k):
        raise BenchError(
            f"{RANKINGS_FILE}: {method} has {depth} images for each query, too few for k = {max(k)}; run again"
        )


def judged(arrays: Mapping[str, np.ndarray], method: str) -> Judged:
    """What one method's ranking is judged as. BenchError where the arrays are no ranking of this gallery."""
    ranking = Ranking(arrays[f"{method}/indices"], arrays[f"{method}/distances"])
    categories = None
    if "n_partly" in arrays:
        categories = Categories(arrays["query_category_sets"], arrays["gallery_category_sets"], arrays["n_partly"])
    try:
        return judge(
            label_sets(arrays, "query"),
            label_sets(arrays, "gallery"),
            ranking,
            arrays["n_relevant"],
            arrays.get(f"{method}/relevant_ranks"),
            categories,
            f"{method}/held" in arrays,
        )
    except (IndexError, ValueError) as error:
        raise BenchError(f"{RANKINGS_FILE}: the rankings of {method} cannot be judged ({error}); run again") from None


def main_values(record: Record, arrays: Mapping[str, np.ndarray], method: str) -> dict[str, np.ndarray]:
    """Accuracy, map@r and recall at the largest k of each query: {name: (q,) float64}."""
    kept = main_metrics(record)
    refuse_shallow(arrays, method, record.settings.k)
    found = metrics.per_query(judged(arrays, method), record.settings.k)
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
