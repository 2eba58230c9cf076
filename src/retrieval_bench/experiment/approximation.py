"""What a search that may miss neighbours costs a method: beside exact search of the same features, in one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_bench.core import Distance, Ranking, Rows, Searcher
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.exact_recall import recall_of_exact
from retrieval_bench.evaluation.relevance import judge, rank_gallery
from retrieval_bench.evaluation.significance import difference_intervals
from retrieval_bench.evaluation.uncertainty import COMPARED, intervals_of, statistics
from retrieval_bench.experiment.prepare import RetrievalTask
from retrieval_bench.methods.fusion import VECTOR
from retrieval_bench.records.schema import Approximation, Difference

_FIRST, _SECOND = np.array([0]), np.array([1])


@dataclass(frozen=True, eq=False)
class CutOff:
    """A search that is asked for `depth` rows however many are wanted; the others are padding.

    To ask an approximate index for the whole gallery would have it look at all of it, which is no longer the search
    that is judged.
    """

    inner: Searcher
    depth: int

    @property
    def bytes(self) -> int:
        return self.inner.bytes

    def __call__(self, queries: Rows, k: int, exclude: np.ndarray | None = None) -> Ranking:
        found = self.inner(queries, min(k, self.depth), exclude)
        more = k - found.indices.shape[1]
        if more <= 0:
            return found
        indices = np.pad(found.indices, ((0, 0), (0, more)), constant_values=-1)
        return Ranking(indices, np.pad(found.distances, ((0, 0), (0, more)), constant_values=np.inf))


def let_go(search: Searcher) -> None:
    """Close what stands behind a search, such as a server, where there is something to close."""
    inner: Any = search
    while hasattr(inner, "inner"):
        inner = inner.inner
    if hasattr(inner, "close"):
        inner.close()


def depth_of(task: RetrievalTask) -> int:
    """As many rows as the metrics of a task look at: the largest k, or all relevant items of a query (map@r)."""
    return min(len(task.dataset.gallery), max(*task.k, int(task.n_relevant.max())))


def beside_exact(
    approximate: CutOff,
    exact: Searcher,
    queries: Rows,
    gallery: Rows,
    distance: Distance,
    task: RetrievalTask,
    per_query: Mapping[str, np.ndarray],
    seed: int,
) -> Approximation:
    """Compare a search with the exact one.

    Args:
        approximate: what is judged.
        exact: the exact search of the same rows.
        queries: one vector of each, alone or as the VECTOR of a bundle.
        gallery: likewise.
        distance: by which they are compared.
        task: what is relevant.
        per_query: metric -> (q,), what the approximate search reached.
        seed: of the intervals.

    Returns:
        Recall of what exact search finds, the scores of exact search and the paired differences to them.
    """
    data, k = task.dataset, max(task.k)
    labels = data.query.labels
    nearest = exact(queries, k, task.exclude)
    shares = recall_of_exact(
        approximate(queries, k, task.exclude).indices, nearest, vectors(queries), vectors(gallery), distance
    )
    ranking, relevant = rank_gallery(
        CutOff(exact, approximate.depth),
        queries,
        data.query.label_sets,
        data.gallery.label_sets,
        task.depth,
        exclude=task.exclude,
    )
    ranks = None if relevant is None else relevant.ranks
    judged = judge(
        data.query.label_sets, data.gallery.label_sets, ranking, task.n_relevant, ranks, task.categories, True
    )
    known = metrics.per_query(judged, task.k)
    how = statistics(labels, seed)
    recall = f"recall@{k}"
    differences = {}
    for name in COMPARED:
        pair = np.column_stack([per_query[name], known[name]])
        reach = difference_intervals(pair, labels, _FIRST, _SECOND, how.level) if how.clusters > 1 else None
        low, high = (None, None) if reach is None else reach[0].tolist()
        differences[name] = Difference(mean=float((pair[:, 0] - pair[:, 1]).mean()), low=low, high=high)
    return Approximation(
        k=k,
        depth=approximate.depth,
        found=float(shares.mean()),
        found_interval=intervals_of({recall: shares}, labels, how).get(recall),
        exact={name: float(known[name].mean()) for name in COMPARED},
        differences=differences,
    )


def vectors(rows: Rows) -> np.ndarray:
    """The one vector of each item, alone or in a bundle."""
    return rows if isinstance(rows, np.ndarray) else rows.arrays[VECTOR]
