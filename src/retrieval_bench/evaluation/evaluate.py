"""Anybody's rankings to scores with intervals: of a search that was made elsewhere, from arrays alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from retrieval_bench.core import BenchError, Ranking, as_array
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.relevance import count_relevant, judge, ranks_of_relevant
from retrieval_bench.evaluation.uncertainty import class_mean_intervals_of, intervals_of, statistics
from retrieval_bench.records.schema import Interval
from retrieval_bench.registry import METRICS
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
        queries, labels = "query" if len(self.rows) == 1 else "queries", "label" if self.clusters == 1 else "labels"
        lines = [f"{len(self.rows)} {queries} of {self.clusters} {labels}; {self.left_out} left out"]
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
        indices: (q, w) integers, the gallery rows that each query found, nearest first; padded with -1 at the end: such
            a query found nothing more.
        gallery_labels: (n,) integers or strings.
        query_labels: (q,) integers or strings, of the same kind.
        exclude: (q,) or (q, m) gallery rows that a query must not find, for example its own; -1 stands for none. They
            are no relevant items. If a query found one of them, it is taken out and the rows behind it move up: that
            query has a rank less, unless it found nothing more. The other queries keep theirs.
        k: the cutoffs of the metrics at k. Default: 1, 5 and 10, as far as every query has that many ranks.

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
    hidden = check_exclude(exclude, q, n)
    _check_rows(found, n)
    n_relevant = count_relevant(expected, gallery, hidden)
    rows = np.flatnonzero(n_relevant)
    if not len(rows):
        raise BenchError("no query has an item of its label in the gallery; there is nothing to score")
    expected, n_relevant, hidden = expected[rows], n_relevant[rows], hidden[rows]
    kept = _without(found[rows], hidden, n)
    cutoffs = _cutoffs(k, kept, rows)
    found = kept.found
    nearness = np.broadcast_to(np.arange(found.shape[1], dtype=np.float32), found.shape)
    ranks = ranks_of_relevant(found, expected, gallery) if kept.whole else None
    judged = judge(expected, gallery, Ranking(found, nearness), n_relevant, ranks)
    unavailable = _too_short(kept, n_relevant, rows, k) | metrics.left_out(judged)
    values = {name: one for name, one in metrics.per_query(judged, cutoffs).items() if name not in unavailable}
    how = statistics(expected, 0)  # no interval of a mean depends on the seed
    return Evaluation(
        scores={name: one for name, one in metrics.scores(judged, cutoffs).items() if name not in unavailable},
        intervals=intervals_of(values, expected, how) | class_mean_intervals_of(values, expected, how),
        per_query=values,
        rows=rows,
        left_out=q - len(rows),
        clusters=how.clusters,
        unavailable=unavailable,
    )


def _whole_numbers(name: str, array: ArrayLike, dimensions: int) -> np.ndarray:
    numbers = as_array(name, array, "pad them with -1")
    if numbers.ndim != dimensions:
        raise BenchError(f"{name} has shape {numbers.shape}; it must have {dimensions} dimensions, (queries, ranks)")
    if numbers.dtype.kind not in "iu":
        raise BenchError(f"{name} is {numbers.dtype}; it must hold gallery rows as integers, -1 for none")
    return numbers


def _as_codes(query_labels: ArrayLike, gallery_labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels of any kind as (q,) and (n,) int64 from 0, in the order of the labels."""
    query, gallery = _labels("query_labels", query_labels), _labels("gallery_labels", gallery_labels)
    if _are_strings(query) != _are_strings(gallery):
        told = ["strings" if _are_strings(labels) else "integers" for labels in (query, gallery)]
        raise BenchError(
            f"query_labels are {told[0]} and gallery_labels are {told[1]}; both must be integers, or both strings"
        )
    both = [query, gallery]
    if np.result_type(*both).kind == "f":  # int64 with uint64: float64 would merge large labels
        both = [labels.astype(object) for labels in both]
    _, codes = np.unique(np.concatenate(both), return_inverse=True)
    return codes[: len(query)].astype(np.int64), codes[len(query) :].astype(np.int64)


def _are_strings(labels: np.ndarray) -> bool:
    return labels.dtype.kind == "U" or isinstance(labels[0], str)


def _labels(name: str, labels: ArrayLike) -> np.ndarray:
    """(n,) integers or strings, or objects that are all `int` or all `str`."""
    array = as_array(name, labels, "it must hold one label for each image")
    if array.dtype.kind == "T" or (array.dtype.kind == "U" and not isinstance(labels, np.ndarray)):
        # A string of NumPy drops the NUL characters at its end, and takes numbers and nulls for strings.
        array = np.asarray(labels, object)
    if array.ndim != 1 or not len(array):
        raise BenchError(f"{name} has shape {array.shape}; it must hold one label for each image, at least one")
    if array.dtype == object:  # also a column of a table
        values = array.tolist()
        integers = isinstance(values[0], int | np.integer) and not isinstance(values[0], bool)
        kind = int | np.integer if integers else str
        for place, value in enumerate(values):
            if not isinstance(value, kind) or isinstance(value, bool):
                raise BenchError(
                    f"{name} holds {value!r} for image {place}; labels must be integers or strings, all of one kind"
                )
        if integers:
            array = np.array([int(value) for value in values], object)
        elif not any(value.endswith("\0") for value in values):
            array = np.array(values, str)  # sorted ten times as fast as objects
    elif array.dtype.kind not in "iuU":
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


class _Kept(NamedTuple):
    """What is left of the rankings without the rows that were hidden.

    found: (q, most that any query has) int64, padded with -1.
    known: (q,) int64, down to which rank it is known what each query finds: where it found nothing more, or all that
        there is, all ranks that were given.
    whole: every query ranks all that it may find.
    """

    found: np.ndarray
    known: np.ndarray
    whole: bool


def _without(found: np.ndarray, hidden: np.ndarray, n: int) -> _Kept:
    """found: (q, w), hidden: (q, m) rows of a gallery of n."""
    lost = np.zeros(found.shape, bool)
    for column in hidden.T:
        lost |= (found == column[:, None]) & (found >= 0)
    left = np.where(lost, -1, found)
    left = np.take_along_axis(left, np.argsort(left < 0, axis=1, kind="stable"), axis=1)
    there = (left >= 0).sum(axis=1)
    nothing = np.zeros(len(found), np.int64)
    reachable = count_relevant(nothing, np.zeros(n, np.int64), hidden)  # as if all had one label
    given = found.shape[1]
    ended = (there == reachable) | (found < 0).any(axis=1)
    known = np.where(ended, given, given - lost.sum(axis=1))
    return _Kept(left[:, : int(there.max())].astype(np.int64), known, bool((there == reachable).all()))


def _cutoffs(k: Iterable[int] | None, kept: _Kept, rows: np.ndarray) -> tuple[int, ...]:
    """rows: (q,) the numbers of the queries, for the error."""
    if not kept.found.shape[1]:
        raise BenchError("indices holds no rank of any query; each query needs at least one found row")
    if not kept.known.all():
        raise BenchError(
            f"indices holds no rank of query {rows[kept.known.argmin()]} beside its excluded rows; each query needs at "
            "least one found row: search deeper by as many rows as it excludes"
        )
    depth = min(kept.found.shape[1], int(kept.known.min()))
    if k is None:
        return tuple(cutoff for cutoff in metrics.DEFAULT_K if cutoff <= depth)
    try:
        asked = list(k)
    except TypeError:
        raise BenchError(f"k is {k!r}; it must be a list of cutoffs, such as [1, 5]") from None
    cutoffs = tuple(dict.fromkeys(check_k(cutoff) for cutoff in asked))
    if max(cutoffs, default=1) > depth:
        raise BenchError(f"k {max(cutoffs)} is more than the {depth} ranks that all queries have; lower it")
    return cutoffs


def _too_short(kept: _Kept, n_relevant: np.ndarray, rows: np.ndarray, k: Iterable[int] | None) -> dict[str, str]:
    """Metric -> why it is unavailable, of those that need ranks that some query lost to its excluded rows."""
    absent: dict[str, str] = {}
    worst = int(kept.known.argmin())
    fewest = int(kept.known[worst])
    for cutoff in metrics.DEFAULT_K if k is None else ():
        if fewest < cutoff <= kept.found.shape[1]:
            reason = f"needs the first {cutoff} ranks, and query {rows[worst]} has {fewest} beside its excluded rows"
            at_k = [entry.name for entry in METRICS.own() if entry.facts["at_k"] and entry.name not in metrics.GRADED]
            absent |= {f"{name}@{cutoff}": reason for name in at_k}
    if len(short := np.flatnonzero(kept.known < n_relevant)):
        query = short[0]
        reason = (
            f"needs the first R items, and query {rows[query]} has R = {n_relevant[query]} and {kept.known[query]} "
            "ranks beside its excluded rows"
        )
        absent |= {"map@r": reason, "class_mean_map@r": reason}
    return absent
