"""From the files of a record back to every query's values: what was ranked is judged anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, Judged, Ranking
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import judge
from retrieval_bench.records.schema import RANKINGS_FILE, Record, load_rankings, run_file


@dataclass(frozen=True, eq=False)
class Values:
    """What each query of a record scored. products: (q,) labels; by_method: method -> metric -> (q,) float64."""

    query_ids: tuple[str, ...]
    products: np.ndarray
    by_method: Mapping[str, Mapping[str, np.ndarray]]


def values_of(path: Path, record: Record) -> Values | None:
    """Every query's values of all rows, from rankings.npz beside the record; None where there is no such file.

    Raises BenchError where the file is not the record's.
    """
    if not run_file(path).with_name(RANKINGS_FILE).exists():
        return None
    return from_arrays(load_rankings(path, record), record)


def from_arrays(arrays: Mapping[str, np.ndarray], record: Record) -> Values | None:
    """The same, from the arrays; None where these hold no queries."""
    if "query_labels" not in arrays:
        return None
    methods = [row.method for row in record.rows if f"{row.method}/indices" in arrays]
    for method in methods:
        depth = arrays[f"{method}/indices"].shape[1]
        if depth < max(record.settings.k):
            raise BenchError(
                f"{RANKINGS_FILE}: {method} found {depth} images a query, too few for k = {max(record.settings.k)}; "
                "run again"
            )
    by_method = {method: metrics.per_query(judged(arrays, method), record.settings.k) for method in methods}
    return Values(tuple(arrays["query_ids"].tolist()), arrays["query_labels"], by_method)


def judged(arrays: Mapping[str, np.ndarray], method: str) -> Judged:
    """What one method's ranking is judged as. BenchError where the arrays are no ranking of this gallery."""
    ranking = Ranking(arrays[f"{method}/indices"], arrays[f"{method}/distances"])
    try:
        return judge(
            arrays["query_labels"],
            arrays["gallery_labels"],
            ranking,
            arrays["n_relevant"],
            arrays.get(f"{method}/relevant_ranks"),
        )
    except (IndexError, ValueError) as error:
        raise BenchError(f"{RANKINGS_FILE}: what {method} found cannot be judged ({error}); run again") from None
