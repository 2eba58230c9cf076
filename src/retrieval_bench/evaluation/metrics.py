"""Quality numbers, each from one `Judged` alone, each with its definition beside it.

Conventions that all of them share: R is the number of gallery items with the query's label (its own row not counted);
rel(i) is 1 where the item at rank i (counted from 1) has the query's label, else 0; padding is not relevant; equal
distances were already put in order by gallery row. A query with R = 0 never reaches a metric.

Per-query metrics return (q,) float64 and are averaged over queries; the macro metrics are one number over all queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from retrieval_bench.core import Judged
from retrieval_bench.registry import METRICS, Entry


def scores(judged: Judged, ks: Iterable[int]) -> dict[str, float]:
    """Every metric over all queries: {"accuracy": ..., "recall@10": ..., ...}, cutoffs in the order given.

    Metrics that need the whole ranking are absent where `judged` has none; `left_out` says which and why.
    Raises ValueError without queries, or for a cutoff beyond what was retrieved.
    """
    if not len(judged):
        raise ValueError("no query to judge")
    return {name: float(np.mean(entry.build(judged, k))) for name, entry, k in _all(judged, ks)}


def per_query(judged: Judged, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """The metrics that have a value for each query, {name: (q,) float64}; their means are in `scores`."""
    return {name: entry.build(judged, k) for name, entry, k in _all(judged, ks) if entry.facts["per_query"]}


def ceilings(judged: Judged, ks: Iterable[int]) -> dict[str, float]:
    """The scores of a perfect ranking, given as `judged`, for the metrics that have a ceiling.

    A vote has none: behind the relevant items come others, and which ones decides what is predicted where k exceeds R.
    """
    if not len(judged):
        raise ValueError("no query to judge")
    having = [one for one in _all(judged, ks) if one[1].facts["has_ceiling"]]
    return {name: float(np.mean(entry.build(judged, k))) for name, entry, k in having}


def left_out(judged: Judged) -> dict[str, str]:
    """Metrics that cannot be had from these judgements, with the reason."""
    if judged.relevant_ranks is not None:
        return {}
    reason = "needs the rank of every relevant item, and the gallery was not ranked whole"
    return {entry.name: reason for entry in METRICS.own() if entry.facts["whole_ranking"]}


def describe() -> dict[str, dict[str, Any]]:
    """What each metric's name means, for the record: about, definition, at_k, per_query, higher_is_better, ..."""
    return {entry.name: {"about": entry.about, **entry.facts} for entry in METRICS.own()}


def _all(judged: Judged, ks: Iterable[int]) -> Iterator[tuple[str, Entry, int | None]]:
    ks = list(ks)
    absent = left_out(judged)
    for entry in METRICS.own():
        if entry.name in absent:
            continue
        if not entry.facts["at_k"]:
            yield entry.name, entry, None
            continue
        for k in ks:
            yield f"{entry.name}@{k}", entry, k


_TIES = "equal distances: the lower gallery row first; the record holds worst, mean and best over all their orders"
_VOTE_TIES = "equal distances: the lower gallery row first; what other orders would give is not known in closed form"
_EMPTY = "a query with R = 0 is left out and counted; 0 where nothing relevant was retrieved; padding is not relevant"
_NO_VOTE = "a query with R = 0 is left out and counted; nothing retrieved is a wrong answer; padding does not vote"

_NO_CEILING = "none: behind the relevant items come others, and which ones decides the vote where k > R"


def _metric(
    name: str,
    about: str,
    definition: str,
    short: str,
    denominator: str,
    *,
    ceiling: str = "1",
    ties: str = _TIES,
    empty: str = _EMPTY,
    at_k: bool = True,
    per_query: bool = True,
    whole_ranking: bool = False,
    has_ceiling: bool = True,
) -> Any:
    return METRICS(
        name,
        about=about,
        definition=definition,
        denominator=denominator,
        ties=ties,
        empty=empty,
        ceiling=ceiling,
        short=short,
        at_k=at_k,
        per_query=per_query,
        whole_ranking=whole_ranking,
        higher_is_better=True,
        has_ceiling=has_ceiling,
    )


def _hits(judged: Judged, k: int) -> np.ndarray:
    """(q, k) bool: rel(1) ... rel(k)."""
    if not 1 <= k <= judged.retrieved.shape[1]:
        raise ValueError(f"cutoff {k} with {judged.retrieved.shape[1]} items retrieved")
    return judged.hits[:, :k]


@_metric(
    "accuracy",
    "the nearest item has the right label",
    "rel(1): 1-nearest-neighbour classification",
    "acc",
    "1",
    at_k=False,
)
def accuracy(judged: Judged, k: None = None) -> np.ndarray:
    return _hits(judged, 1)[:, 0].astype(np.float64)


@_metric("hit_rate", "any of the first k is relevant", "max of rel(1) ... rel(k)", "hit", "1")
def hit_rate(judged: Judged, k: int) -> np.ndarray:
    return (_hits(judged, k).sum(axis=1) > 0).astype(np.float64)


@_metric(
    "precision",
    "share of the first k that is relevant",
    "(rel(1) + ... + rel(k)) / k; also where fewer than k items exist, so its ceiling is min(k, R) / k",
    "P",
    "k, also where fewer than k were retrieved",
    ceiling="min(k, R) / k",
)
def precision(judged: Judged, k: int) -> np.ndarray:
    return _hits(judged, k).sum(axis=1) / k


@_metric(
    "recall",
    "share of the relevant that is among the first k",
    "(rel(1) + ... + rel(k)) / R; its ceiling is min(k, R) / R",
    "R",
    "R",
    ceiling="min(k, R) / R",
)
def recall(judged: Judged, k: int) -> np.ndarray:
    return _hits(judged, k).sum(axis=1) / judged.n_relevant


@_metric(
    "f1",
    "harmonic mean of precision@k and recall@k",
    "2 P R / (P + R) of each query's precision@k and recall@k, 0 where both are 0; "
    "equals 2 (rel(1) + ... + rel(k)) / (k + R), so its ceiling is 2 min(k, R) / (k + R)",
    "F1",
    "k + R",
    ceiling="2 min(k, R) / (k + R)",
)
def f1(judged: Judged, k: int) -> np.ndarray:
    return 2.0 * _hits(judged, k).sum(axis=1) / (k + judged.n_relevant)


@_metric(
    "map@r",
    "average precision within the first R (Musgrave et al. 2020)",
    "(1/R) sum over i = 1..R of P(i) rel(i), where P(i) = (rel(1) + ... + rel(i)) / i",
    "mAP@R",
    "R",
    at_k=False,
)
def map_at_r(judged: Judged, k: None = None) -> np.ndarray:
    """Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020."""
    if judged.relevant_ranks is not None:
        ranks, precisions = _at_relevant(judged)
        return np.where(ranks < judged.n_relevant[:, None], precisions, 0.0).sum(axis=1) / judged.n_relevant
    hits = _hits(judged, int(judged.n_relevant.max()))
    i = np.arange(1, hits.shape[1] + 1)
    counted = hits & (i <= judged.n_relevant[:, None])
    return np.where(counted, np.cumsum(hits, axis=1) / i, 0.0).sum(axis=1) / judged.n_relevant


@_metric(
    "map",
    "average precision over the whole ranking",
    "(1/R) sum over all relevant items of P(i), where i is the item's rank and P(i) = (rel(1) + ... + rel(i)) / i",
    "mAP",
    "R, also where fewer were found",
    at_k=False,
    whole_ranking=True,
)
def mean_average_precision(judged: Judged, k: None = None) -> np.ndarray:
    return _at_relevant(judged)[1].sum(axis=1) / judged.n_relevant


@_metric(
    "ndcg",
    "discounted gain of the first k over the best possible",
    "sum over i = 1..k of rel(i) / log2(i + 1), divided by the same sum with min(k, R) relevant items in front",
    "nDCG",
    "the gain of min(k, R) relevant items in front",
)
def ndcg(judged: Judged, k: int) -> np.ndarray:
    """Järvelin, Kekäläinen: Cumulated gain-based evaluation of IR techniques, TOIS 2002; binary gain."""
    hits = _hits(judged, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(k, judged.n_relevant) - 1]
    return np.where(hits, discounts, 0.0).sum(axis=1) / ideal


@_metric(
    "mrr",
    "one over the rank of the first relevant item",
    "1 / i of the first i with rel(i) = 1; where the gallery is too large to be ranked whole, 0 if none was retrieved",
    "MRR",
    "1",
    at_k=False,
)
def mrr(judged: Judged, k: None = None) -> np.ndarray:
    if judged.relevant_ranks is not None:
        return 1.0 / (judged.relevant_ranks[:, 0] + 1.0)
    hits = judged.hits
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1.0), 0.0)


@_metric(
    "knn_accuracy",
    "the vote of the k nearest gives the right label",
    "1 where the most frequent label among the first k is the query's; "
    "between equally frequent labels the one whose first item is nearest wins; padding does not vote",
    "kNN",
    "1",
    ceiling=_NO_CEILING,
    ties=_VOTE_TIES,
    empty=_NO_VOTE,
    has_ceiling=False,
)
def knn_accuracy(judged: Judged, k: int) -> np.ndarray:
    return (_vote(judged, k) == judged.expected).astype(np.float64)


_MACRO = (
    "mean over the labels that occur among the queries, of the k-NN vote's {0}; a label that is never predicted has "
    "precision 0; predictions of labels that no query has lower recall but add no label to the mean"
)


@_metric(
    "macro_precision",
    "k-NN vote: precision per label, averaged",
    _MACRO.format("precision"),
    "mP",
    "of each label, how often it was predicted; then the number of labels among the queries",
    ceiling=_NO_CEILING,
    ties=_VOTE_TIES,
    empty=_NO_VOTE,
    per_query=False,
    has_ceiling=False,
)
def macro_precision(judged: Judged, k: int) -> float:
    right, predicted, _ = _confusion(judged, k)
    return float(np.mean(right / np.maximum(predicted, 1)))


@_metric(
    "macro_recall",
    "k-NN vote: recall per label, averaged",
    _MACRO.format("recall"),
    "mR",
    "of each label, how many queries have it; then the number of labels among the queries",
    ceiling=_NO_CEILING,
    ties=_VOTE_TIES,
    empty=_NO_VOTE,
    per_query=False,
    has_ceiling=False,
)
def macro_recall(judged: Judged, k: int) -> float:
    right, _, expected = _confusion(judged, k)
    return float(np.mean(right / expected))


@_metric(
    "macro_f1",
    "k-NN vote: F1 per label, averaged",
    _MACRO.format("F1"),
    "mF1",
    "of each label, how often it was predicted or is right; then the number of labels among the queries",
    ceiling=_NO_CEILING,
    ties=_VOTE_TIES,
    empty=_NO_VOTE,
    per_query=False,
    has_ceiling=False,
)
def macro_f1(judged: Judged, k: int) -> float:
    right, predicted, expected = _confusion(judged, k)
    return float(np.mean(2.0 * right / (predicted + expected)))


def _at_relevant(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """(q, max R) ranks of the relevant items from 0, and the precision at each of them; padding has precision 0."""
    ranks = judged.relevant_ranks
    if ranks is None:
        raise ValueError("the gallery was not ranked whole")
    found = np.arange(1, ranks.shape[1] + 1)
    return ranks, np.where(ranks >= 0, found / np.maximum(ranks + 1, 1), 0.0)


def _vote(judged: Judged, k: int) -> np.ndarray:
    """(q,) the predicted labels, -1 where nothing was retrieved."""
    _hits(judged, k)
    labels = judged.retrieved[:, :k]
    votes = np.stack([(labels == labels[:, [i]]).sum(axis=1) for i in range(k)], axis=1)
    votes[labels < 0] = 0
    # argmax takes the first of equals: the label whose first item is nearest
    return labels[np.arange(len(labels)), votes.argmax(axis=1)]


def _confusion(judged: Judged, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each label among the queries: predicted rightly, predicted, expected."""
    labels, expected = np.unique(judged.expected, return_inverse=True)
    vote = _vote(judged, k)
    place = np.minimum(np.searchsorted(labels, vote), len(labels) - 1)
    known = labels[place] == vote

    def count(places: np.ndarray) -> np.ndarray:
        return np.bincount(places, minlength=len(labels))

    return count(expected[vote == judged.expected]), count(place[known]), count(expected)
