"""Anybody's rankings to scores with intervals: of a search that was made elsewhere, from arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from retrieval_bench.core import BenchError, Ranking
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import count_relevant, judge, ranks_of_relevant
from retrieval_bench.evaluation.uncertainty import class_mean_intervals_of, intervals_of, statistics
from retrieval_bench.records.schema import Interval
from retrieval_bench.search.checks import check_exclude, check_k


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a ranking scores. The names of the metrics are those of a run; docs/metrics.md defines them.

    Args:
        scores: metric -> mean over the judged queries, 0 to 1.
        intervals: metric -> 95 % interval of that mean (`low`, `high`) for other labels of this kind. It holds the
            metrics that have a value for each query; it is empty if all judged queries have one label.
        per_query: metric -> (judged,) float64, the value of each judged query.
        rows: (judged,) int64, which of the queries were judged, ascending.
        left_out: number of queries that were not judged, because nothing in the gallery has their label.
        clusters: number of labels that the judged queries have; the intervals rest on these.
        unavailable: metric -> why it cannot be computed from this ranking.
    """

    scores: Mapping[str, float]
    intervals: Mapping[str, Interval]
    per_query: Mapping[str, np.ndarray]
    rows: np.ndarray
    left_out: int
    clusters: int
    unavailable: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.rows)} queries of {self.clusters} labels; {self.left_out} left out"]
        wide = max(map(len, self.scores))
        for name, score in self.scores.items():
            reach = self.intervals.get(name)
            lines.append(f"{name:{wide}} {score:.3f}" + (f"  {reach.low:.3f}-{reach.high:.3f}" if reach else ""))
        return "\n".join(lines)


def evaluate(
    indices: ArrayLike,
    gallery_labels: ArrayLike,
    query_labels: ArrayLike,
    exclude: ArrayLike | None = None,
    *,
    k: Iterable[int] | None = None,
) -> Evaluation:
    """Score the rankings of any search. A gallery item is relevant to a query if it has the query's label.

    Queries that nothing in the gallery answers are left out and counted, as in a run. If each query ranks the whole
    gallery, the metrics over the whole ranking are computed, too.

    Args:
        indices: (q, w) integers, the gallery rows that each query found, nearest first; padded with -1 at the end.
        gallery_labels: (n,) integers or strings.
        query_labels: (q,) integers or strings, of the same kind.
        exclude: (q,) or (q, m) gallery rows that a query must not find, for example its own; -1 stands for none. They
            are no relevant items. If a query found one of them, it is taken out and the rows behind it move up.
        k: the cutoffs of the metrics at k. Default: 1, 5 and 10, as far as the ranking is that deep.

    Returns:
        Scores, intervals and counts.

    Raises:
        BenchError: An array has a wrong shape, dtype or value, a cutoff is deeper than the ranking, or no query has
            anything to find.
    """
    found = _whole_numbers("indices", indices, 2)
    expected, gallery = _as_codes(query_labels, gallery_labels)
    q, n = len(expected), len(gallery)
    if len(found) != q:
        raise BenchError(f"indices has {len(found)} rows for {q} query_labels; give one row for each query")
    hidden = check_exclude(None if exclude is None else np.asarray(exclude), q, n)
    _check_rows(found, n)
    n_relevant = count_relevant(expected, gallery, hidden)
    rows = np.flatnonzero(n_relevant)
    if not len(rows):
        raise BenchError("no query has an item of its label in the gallery; there is nothing to score")
    expected, n_relevant, hidden = expected[rows], n_relevant[rows], hidden[rows]
    found, whole = _without(found[rows].astype(np.int64), hidden, n)
    nearness = np.broadcast_to(np.arange(found.shape[1], dtype=np.float32), found.shape)
    ranks = ranks_of_relevant(found, expected, gallery) if whole else None
    judged = judge(expected, gallery, Ranking(found, nearness), n_relevant, ranks)
    cutoffs = _cutoffs(k, found.shape[1])
    values = metrics.per_query(judged, cutoffs)
    how = statistics(expected, 0)  # no interval of a mean depends on the seed
    return Evaluation(
        scores=metrics.scores(judged, cutoffs),
        intervals=intervals_of(values, expected, how) | class_mean_intervals_of(values, expected, how),
        per_query=values,
        rows=rows,
        left_out=q - len(rows),
        clusters=how.clusters,
        unavailable=metrics.left_out(judged),
    )


def _whole_numbers(name: str, array: ArrayLike, dimensions: int) -> np.ndarray:
    numbers = np.asarray(array)
    if numbers.ndim != dimensions:
        raise BenchError(f"{name} has shape {numbers.shape}; it must have {dimensions} dimensions, (queries, ranks)")
    if numbers.dtype.kind not in "iu":
        raise BenchError(f"{name} is {numbers.dtype}; it must hold gallery rows as integers, -1 for none")
    return numbers


def _as_codes(query_labels: ArrayLike, gallery_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels of any kind as (q,) and (n,) int64 from 0, in the order of the labels."""
    query, gallery = _labels("query_labels", query_labels), _labels("gallery_labels", gallery_labels)
    if (query.dtype.kind in "iu") != (gallery.dtype.kind in "iu"):
        raise BenchError(
            f"query_labels are {query.dtype} and gallery_labels are {gallery.dtype}; both must be integers, or both "
            "strings"
        )
    both = [query, gallery]
    if np.result_type(*both).kind == "f":  # int64 with uint64: float64 would merge large labels
        both = [labels.astype(object) for labels in both]
    _, codes = np.unique(np.concatenate(both), return_inverse=True)
    return codes[: len(query)].astype(np.int64), codes[len(query) :].astype(np.int64)


def _labels(name: str, labels: ArrayLike) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype == object:  # a column of a table
        values = array.ravel().tolist()
        if all(isinstance(value, str) for value in values):
            array = array.astype(str)
        elif all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            array = np.array(values).reshape(array.shape)
    if array.ndim != 1 or not len(array):
        raise BenchError(f"{name} has shape {array.shape}; it must hold one label for each image, at least one")
    if array.dtype.kind not in "iuUT":
        raise BenchError(f"{name} is {array.dtype}; labels must be integers or strings")
    return array


def _check_rows(found: np.ndarray, n: int) -> None:
    """Every row names each item of the gallery at most once, and pads behind."""
    outside = np.argwhere((found < -1) | (found >= n))
    if len(outside):
        query, rank = outside[0]
        raise BenchError(
            f"indices holds {found[query, rank]} for query {query}; the gallery has {n} rows, counted from 0, and -1 "
            "pads"
        )
    late = ((found[:, :-1] < 0) & (found[:, 1:] >= 0)).any(axis=1)
    if late.any():
        raise BenchError(f"indices has -1 before a found row for query {late.argmax()}; -1 only pads at the end")
    in_order = np.sort(found, axis=1)
    twice = ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any(axis=1)
    if twice.any():
        raise BenchError(f"indices names a row twice for query {twice.argmax()}; a row has one rank")


def _without(found: np.ndarray, hidden: np.ndarray, n: int) -> tuple[np.ndarray, bool]:
    """(q, w) without the hidden rows, as deep as all queries reach; and whether they rank all that there is.

    Of a ranking that ends before the gallery does, the last ranks are dropped of which some query has lost as many.
    """
    lost = np.zeros(found.shape, bool)
    for column in hidden.T:
        lost |= (found == column[:, None]) & (found >= 0)
    left = np.where(lost, -1, found)
    left = np.take_along_axis(left, np.argsort(left < 0, axis=1, kind="stable"), axis=1)
    there = (left >= 0).sum(axis=1)
    nothing = np.zeros(len(found), np.int64)
    reachable = count_relevant(nothing, np.zeros(n, np.int64), hidden)  # as if all had one label
    whole = bool((there == reachable).all())
    depth = found.shape[1] if whole else found.shape[1] - int(lost.sum(axis=1).max())
    return left[:, : min(depth, int(there.max()))], whole


def _cutoffs(k: Iterable[int] | None, depth: int) -> tuple[int, ...]:
    if not depth:
        raise BenchError("indices holds no rank of any query; each query needs at least one found row")
    if k is None:
        return tuple(cutoff for cutoff in metrics.DEFAULT_K if cutoff <= depth)
    cutoffs = tuple(dict.fromkeys(check_k(cutoff) for cutoff in k))
    if max(cutoffs, default=1) > depth:
        raise BenchError(f"k {max(cutoffs)} is more than the {depth} ranks that all queries have; lower it")
    return cutoffs
