"""Quality numbers, each from one `Judged` alone, each with its definition beside it.

Conventions that all of them share: R is the number of gallery items with the query's label (its own row not counted);
rel(i) is 1 where the item at rank i (counted from 1) has the query's label, else 0; padding is not relevant; equal
distances were already put in order by gallery row. A query with R = 0 never reaches a metric.

Per-query metrics return (q,) float64 and are averaged over queries. Class means average the same values first over the
queries of each label and then over the labels; they and the macro metrics, of the k-NN vote, are one number over all
queries.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from retrieval_bench.core import Judged
from retrieval_bench.registry import METRICS, SCORE_RANGE, Entry
from retrieval_bench.system.python_sources import short

log = logging.getLogger("retrieval_bench")

GRADED = ("graded_ndcg",)
"""Metrics that need `Judged.grades`; where these are not known, nothing lists them."""

DEFAULT_K = (1, 5, 10)
"""Cutoffs where nobody names others."""


def scores(judged: Judged, ks: Iterable[int]) -> dict[str, float]:
    """Compute all registered metrics over all queries.

    Args:
        judged: the judgements of q queries, at least one.
        ks: the cutoffs of the metrics at k, each at least 1.

    Returns:
        Name -> score: {"accuracy": ..., "recall@10": ..., ...}, cutoffs in the order given. Metrics that need the whole
        ranking are absent if `judged` does not have it; `left_out` says which and why.

    Raises:
        ValueError: There is no query, or a cutoff is larger than the number of retrieved items.
    """
    if not len(judged):
        raise ValueError("no query to judge")
    return {name: float(np.mean(values)) for name, _, values in _computed(judged, ks)}


def per_query(judged: Judged, ks: Iterable[int]) -> dict[str, np.ndarray]:
    """Compute the metrics that have a value for each query.

    Args:
        judged: the judgements of q queries.
        ks: the cutoffs of the metrics at k, each at least 1.

    Returns:
        Name -> (q,) float64; their means are in `scores`.
    """
    return {name: values for name, _, values in _computed(judged, ks, "per_query")}


def ceilings(judged: Judged, ks: Iterable[int]) -> dict[str, float]:
    """Compute the highest possible scores, from the judgements of a perfect ranking.

    A vote has no ceiling: if k exceeds R, the prediction depends on which other items come after the relevant ones.

    Args:
        judged: the judgements of a perfect ranking, at least one query.
        ks: the cutoffs of the metrics at k, each at least 1.

    Returns:
        Name -> score, for the metrics that have a ceiling.

    Raises:
        ValueError: There is no query.
    """
    if not len(judged):
        raise ValueError("no query to judge")
    found = {}
    for name, entry, values in _computed(judged, ks, "has_ceiling"):
        found[name] = float(np.mean(values))
        if not _is_own(entry) and abs(found[name] - 1) > 1e-9:
            _leave_out(
                entry, f"a perfect ranking gets {found.pop(name):.4g} and not 1; register it with has_ceiling=False"
            )
    return found


CLASS_MEANS = {"class_mean_recall": "recall", "class_mean_map@r": "map@r"}
"""Metric -> the per-query metric that it averages, first over the queries of each label and then over the labels."""


def class_means_of(names: Iterable[str]) -> dict[str, str]:
    """Find the class means that average these metrics.

    Args:
        names: per-query metrics, with their cutoffs.

    Returns:
        Name of the class mean -> name of the metric that it averages: {"class_mean_recall@5": "recall@5"}.
    """
    known = {f"class_mean_{name}": name for name in names}
    return {name: of for name, of in known.items() if name in CLASS_MEANS or name.partition("@")[0] in CLASS_MEANS}


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weigh queries so that every label counts the same.

    Args:
        labels: (q,) int, the label of each query.

    Returns:
        (q,) float64: 1 / the number of queries with the same label.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse]


def left_out(judged: Judged) -> dict[str, str]:
    """List the metrics that are unavailable from these judgements.

    Args:
        judged: the judgements.

    Returns:
        Name -> reason.
    """
    if judged.relevant_ranks is not None:
        return _failed()
    reason = "needs the rank of every relevant item, and the gallery was not ranked whole"
    absent = {entry.name: reason for entry in METRICS.own() if entry.facts["whole_ranking"]}
    depth, most = judged.retrieved.shape[1], int(judged.n_relevant.max(initial=0))
    if depth < most:  # never so in a run, which retrieves as many as any query has relevant
        reason = f"needs the first R items, R is up to {most}, and {depth} were retrieved"
        absent |= {"map@r": reason, "class_mean_map@r": reason}
    return absent | _failed()


def describe(graded: bool = True) -> dict[str, dict[str, Any]]:
    """Describe all registered metrics, for the record.

    Args:
        graded: those that need grades, too.

    Returns:
        Name -> {"about": ..., "definition": ..., "at_k": ..., "per_query": ..., "higher_is_better": ..., ...}.
    """
    return {
        entry.name: {"about": entry.about, **entry.facts}
        for entry in METRICS.own()
        if (graded or entry.name not in GRADED) and entry.build not in _FAILED
    }


def _all(judged: Judged, ks: Iterable[int]) -> Iterator[tuple[str, Entry, int | None]]:
    ks = list(ks)
    absent = left_out(judged)
    for entry in METRICS.own():
        if entry.name in absent or (entry.name in GRADED and judged.grades is None):
            continue
        if not entry.facts["at_k"]:
            yield entry.name, entry, None
            continue
        for k in ks:
            yield f"{entry.name}@{k}", entry, k


def _computed(judged: Judged, ks: Iterable[int], fact: str = "") -> Iterator[tuple[str, Entry, Any]]:
    """(name with its cutoff, entry, values) of every metric of which this fact holds; "": of every one."""
    for name, entry, k in _all(judged, ks):
        if fact and not entry.facts[fact]:
            continue
        if _is_own(entry):
            yield name, entry, entry.build(judged, k)
        elif entry.build not in _FAILED:
            try:
                values = np.asarray(entry.build(judged, k), np.float64)
                wanted = (len(judged),) if entry.facts["per_query"] else ()
                if values.shape != wanted:
                    raise ValueError(f"it returned {values.shape} for {len(judged)} queries, not {wanted}")
                if values.size and not (values.min() in SCORE_RANGE and values.max() in SCORE_RANGE):
                    raise ValueError("it returned a value that is not within 0 and 1")
            except Exception as error:  # whatever the code of others raises
                _leave_out(entry, short(error))
            else:
                yield name, entry, values


_FAILED: dict[Callable[..., Any], str] = {}
"""Functions of plug-ins that cannot be used, with the reason: the others go on without them."""


def _is_own(entry: Entry) -> bool:
    return entry.build.__module__ == __name__


def _leave_out(entry: Entry, reason: str) -> None:
    _FAILED[entry.build] = reason
    log.warning("metric %s, which is of a plug-in, is left out: %s", entry.name, reason)


def _failed() -> dict[str, str]:
    return {entry.name: _FAILED[entry.build] for entry in METRICS.own() if entry.build in _FAILED}


_TIES = "equal distances: the lower gallery row first; the record holds worst, mean and best over all their orders"
_VOTE_TIES = "equal distances: the lower gallery row first; what other orders would give is not known in closed form"
_EMPTY = "a query with R = 0 is left out and counted; 0 where nothing relevant was retrieved; padding is not relevant"
_NO_VOTE = "a query with R = 0 is left out and counted; nothing retrieved is a wrong answer; padding does not vote"

_TIES_OF_CLASSES = (
    "equal distances: the lower gallery row first; what other orders would give stands in the record under {0}"
)
_MEAN_OF_CLASSES = "mean over the labels that occur among the queries, of the mean {0} of the label's queries"

_NO_CEILING = "none: behind the relevant items come others, and which ones decides the vote where k > R"


def metric(
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
    """Register a metric: (judged, k) -> (q,) float64, or one float if not `per_query`.

    Args:
        name: its name, without "@k".
        about: one line for users.
        definition: the exact definition.
        short: abbreviation.
        denominator: what the score is divided by.
        ceiling: the highest possible value, as a formula.
        ties: what is done about equal distances.
        empty: what is done about queries without relevant items, and about padding.
        at_k: it has a cutoff k.
        per_query: it has a value for each query.
        whole_ranking: it needs `Judged.relevant_ranks`.
        has_ceiling: `ceilings` lists it.

    Returns:
        A decorator, which returns the function unchanged.
    """
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


@metric(
    "accuracy",
    "the nearest item has the right label",
    "rel(1): 1-nearest-neighbour classification",
    "acc",
    "1",
    at_k=False,
)
def accuracy(judged: Judged, k: None = None) -> np.ndarray:
    """Is the nearest item relevant? Classification by the nearest neighbour (1-NN).

    Args:
        judged: the judgements of q queries.
        k: not used; there is no cutoff.

    Returns:
        (q,) float64, 0 or 1.
    """
    return _hits(judged, 1)[:, 0].astype(np.float64)


@metric("hit_rate", "any of the first k is relevant", "max of rel(1) ... rel(k)", "hit", "1")
def hit_rate(judged: Judged, k: int) -> np.ndarray:
    """Is any of the first k items relevant?

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 or 1.
    """
    return (_hits(judged, k).sum(axis=1) > 0).astype(np.float64)


@metric(
    "precision",
    "share of the first k that is relevant",
    "(rel(1) + ... + rel(k)) / k; also where fewer than k items exist, so its ceiling is min(k, R) / k",
    "P",
    "k, also where fewer than k were retrieved",
    ceiling="min(k, R) / k",
)
def precision(judged: Judged, k: int) -> np.ndarray:
    """Share of relevant items among the first k.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 to 1.
    """
    return _hits(judged, k).sum(axis=1) / k


@metric(
    "recall",
    "share of the relevant that is among the first k",
    "(rel(1) + ... + rel(k)) / R; its ceiling is min(k, R) / R",
    "R",
    "R",
    ceiling="min(k, R) / R",
)
def recall(judged: Judged, k: int) -> np.ndarray:
    """Share of the relevant items that are among the first k.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 to 1.
    """
    return _hits(judged, k).sum(axis=1) / judged.n_relevant


@metric(
    "f1",
    "harmonic mean of precision@k and recall@k",
    "2 P R / (P + R) of each query's precision@k and recall@k, 0 where both are 0; "
    "equals 2 (rel(1) + ... + rel(k)) / (k + R), so its ceiling is 2 min(k, R) / (k + R)",
    "F1",
    "k + R",
    ceiling="2 min(k, R) / (k + R)",
)
def f1(judged: Judged, k: int) -> np.ndarray:
    """Harmonic mean of precision@k and recall@k of each query.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 to 1.
    """
    return 2.0 * _hits(judged, k).sum(axis=1) / (k + judged.n_relevant)


@metric(
    "map@r",
    "average precision within the first R (Musgrave et al. 2020)",
    "(1/R) sum over i = 1..R of P(i) rel(i), where P(i) = (rel(1) + ... + rel(i)) / i",
    "mAP@R",
    "R",
    at_k=False,
)
def map_at_r(judged: Judged, k: None = None) -> np.ndarray:
    """Average precision within the first R items.

    Musgrave, Belongie, Lim: A Metric Learning Reality Check, ECCV 2020.

    Args:
        judged: the judgements of q queries.
        k: not used; there is no cutoff.

    Returns:
        (q,) float64, 0 to 1.
    """
    if judged.relevant_ranks is not None:
        ranks, precisions = _at_relevant(judged)
        return np.where(ranks < judged.n_relevant[:, None], precisions, 0.0).sum(axis=1) / judged.n_relevant
    hits = _hits(judged, int(judged.n_relevant.max()))
    i = np.arange(1, hits.shape[1] + 1)
    counted = hits & (i <= judged.n_relevant[:, None])
    return np.where(counted, np.cumsum(hits, axis=1) / i, 0.0).sum(axis=1) / judged.n_relevant


@metric(
    "map",
    "average precision over the whole ranking",
    "(1/R) sum over all relevant items of P(i), where i is the item's rank and P(i) = (rel(1) + ... + rel(i)) / i",
    "mAP",
    "R, also where fewer were found",
    at_k=False,
    whole_ranking=True,
)
def mean_average_precision(judged: Judged, k: None = None) -> np.ndarray:
    """Average precision over the whole ranking; needs `Judged.relevant_ranks`.

    Args:
        judged: the judgements of q queries.
        k: not used; there is no cutoff.

    Returns:
        (q,) float64, 0 to 1.
    """
    return _at_relevant(judged)[1].sum(axis=1) / judged.n_relevant


@metric(
    "ndcg",
    "discounted gain of the first k over the best possible",
    "sum over i = 1..k of rel(i) / log2(i + 1), divided by the same sum with min(k, R) relevant items in front",
    "nDCG",
    "the gain of min(k, R) relevant items in front",
)
def ndcg(judged: Judged, k: int) -> np.ndarray:
    """Normalised discounted cumulated gain of the first k items, with binary gain.

    Järvelin, Kekäläinen: Cumulated gain-based evaluation of IR techniques, TOIS 2002.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 to 1.
    """
    hits = _hits(judged, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(k, judged.n_relevant) - 1]
    return np.where(hits, discounts, 0.0).sum(axis=1) / ideal


@metric(
    "graded_ndcg",
    "ndcg where the query's category counts half",
    "sum over i = 1..k of g(i) / log2(i + 1), divided by the same sum of the best order of the whole gallery; g is 2 "
    "for an item with the query's label, 1 for one with its category only, else 0; it needs --relevance graded",
    "gnDCG",
    "the gain of the k best items in front",
    ties="equal distances: the lower gallery row first; what other orders would give is not computed",
)
def graded_ndcg(judged: Judged, k: int) -> np.ndarray:
    """Normalised discounted cumulated gain of the first k items, with graded gain; needs `Judged.grades`.

    Järvelin, Kekäläinen: Cumulated gain-based evaluation of IR techniques, TOIS 2002. The gain is the grade itself, as
    in trec_eval, not 2 to its power less 1.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 to 1.
    """
    _hits(judged, k)
    if judged.grades is None or judged.n_partly is None:
        raise ValueError("the judgements hold no grades")
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    place = np.arange(k)
    relevant, graded = (place < many[:, None] for many in (judged.n_relevant, judged.n_relevant + judged.n_partly))
    ideal = np.where(relevant, 2, np.where(graded, 1, 0))  # summed as the grades are: a perfect ranking has 1 exactly
    return (judged.grades[:, :k] * discounts).sum(axis=1) / (ideal * discounts).sum(axis=1)


@metric(
    "mrr",
    "one over the rank of the first relevant item",
    "1 / i of the first i with rel(i) = 1; where the gallery is too large to be ranked whole, 0 if none was retrieved",
    "MRR",
    "1",
    at_k=False,
)
def mrr(judged: Judged, k: None = None) -> np.ndarray:
    """Reciprocal rank of the first relevant item; 0 if none was retrieved.

    Args:
        judged: the judgements of q queries.
        k: not used; there is no cutoff.

    Returns:
        (q,) float64, 0 to 1.
    """
    if judged.relevant_ranks is not None:
        first = judged.relevant_ranks[:, :1].max(axis=1, initial=-1)  # no column where there is no query
        return np.where(first >= 0, 1.0 / (np.maximum(first, 0) + 1.0), 0.0)
    hits = judged.hits
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1.0), 0.0)


@metric(
    "class_mean_recall",
    "recall@k per label, averaged",
    _MEAN_OF_CLASSES.format("recall@k"),
    "cR",
    "R of each query; of each label, how many queries have it; then the number of labels among the queries",
    ceiling="the class mean of min(k, R) / R",
    ties=_TIES_OF_CLASSES.format("recall@k"),
    per_query=False,
)
def class_mean_recall(judged: Judged, k: int) -> float:
    """Class-averaged recall: recall@k averaged over the queries of each label, then over the labels.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        One number, 0 to 1.
    """
    return _class_mean(recall(judged, k), judged.expected)


@metric(
    "class_mean_map@r",
    "map@r per label, averaged",
    _MEAN_OF_CLASSES.format("map@r"),
    "cmAP@R",
    "R of each query; of each label, how many queries have it; then the number of labels among the queries",
    ties=_TIES_OF_CLASSES.format("map@r"),
    at_k=False,
    per_query=False,
)
def class_mean_map_at_r(judged: Judged, k: None = None) -> float:
    """Class-averaged MAP@R: map@r averaged over the queries of each label, then over the labels.

    Args:
        judged: the judgements of q queries.
        k: not used; there is no cutoff.

    Returns:
        One number, 0 to 1.
    """
    return _class_mean(map_at_r(judged), judged.expected)


@metric(
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
    """Is the label that most of the first k items have the right one?

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        (q,) float64, 0 or 1.
    """
    return (_vote(judged, k) == judged.expected).astype(np.float64)


_MACRO = (
    "mean over the labels that occur among the queries, of the k-NN vote's {0}; a label that is never predicted has "
    "precision 0; predictions of labels that no query has lower recall but add no label to the mean"
)


@metric(
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
    """Precision of the k-NN vote for each label, averaged over the labels of the queries.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        One number, 0 to 1.
    """
    right, predicted, _ = _confusion(judged, k)
    return float(np.mean(right / np.maximum(predicted, 1)))


@metric(
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
    """Recall of the k-NN vote for each label, averaged over the labels of the queries.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        One number, 0 to 1.
    """
    right, _, expected = _confusion(judged, k)
    return float(np.mean(right / expected))


@metric(
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
    """F1 of the k-NN vote for each label, averaged over the labels of the queries.

    Args:
        judged: the judgements of q queries.
        k: cutoff, 1 to the number of retrieved items.

    Returns:
        One number, 0 to 1.
    """
    right, predicted, expected = _confusion(judged, k)
    return float(np.mean(2.0 * right / (predicted + expected)))


def _class_mean(values: np.ndarray, labels: np.ndarray) -> float:
    """(q,) values, (q,) labels -> mean over labels of each label's mean."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return float(np.mean(np.bincount(inverse, weights=values) / counts))


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
    class_index = np.minimum(np.searchsorted(labels, vote), len(labels) - 1)
    known = labels[class_index] == vote

    def count(numbers: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, minlength=len(labels))

    return count(expected[vote == judged.expected]), count(class_index[known]), count(expected)
