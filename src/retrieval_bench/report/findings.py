"""The numbers behind the pictures of a report, each from the record and its rankings alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_bench.classifiers.metrics import confusion, roc_curve
from retrieval_bench.core import Judged
from retrieval_bench.evaluation import metrics
from retrieval_bench.evaluation.slices import Sliced, sliced, slicings
from retrieval_bench.records.schema import Row
from retrieval_bench.report.evidence import Evidence, known, label_names

SLICED = "accuracy"
"""The metric that slices are told by."""

MOST_POINTS = 80  # of one curve: more cannot be seen
MOST_PAIRS = 6


@dataclass(frozen=True)
class Cost:
    """Something a method costs; less is better."""

    key: str
    title: str
    unit: str

    def of(self, row: Row) -> float | None:
        if self.key == "bytes_per_image":
            return None if row.features is None else float(row.features.bytes_per_image)
        figure = row.times.get(self.key)
        return None if figure is None else figure.value


COSTS = (
    Cost("end_to_end_p50", "Time of a query", "ms a query, median, log scale"),
    Cost("bytes_per_image", "Size in the gallery", "bytes an image, log scale"),
    Cost("fit", "Time to learn", "seconds of learning from train, log scale"),
)


@dataclass(frozen=True)
class Mistake:
    """Queries of label `expected` taken for `found`: `count` of the `of` that there are."""

    expected: str
    found: str
    count: int
    of: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """What one classifier took for what.

    method, classifier: classifier "" stands for the nearest neighbour. labels: names, in the order of the matrix.
    matrix: (n, n) int64, [i, j] counts queries of label i taken for j. mistakes: the most frequent, at most 6.
    """

    method: str
    classifier: str
    accuracy: float
    labels: tuple[str, ...]
    matrix: np.ndarray
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, eq=False)
class Roc:
    """One label against the rest, averaged over labels. area: the record's macro_roc_auc, None where it has none."""

    method: str
    classifier: str
    area: float | None
    false_positive_rate: np.ndarray
    macro: np.ndarray


@dataclass(frozen=True, eq=False)
class Findings:
    """fronts: cost -> methods that no other beats in both cost and accuracy, cheapest first.

    hit_rates: method -> [(k, hit rate at k)]. precision_recall: method -> [(k, recall at k, precision at k)].
    """

    fronts: dict[str, list[str]]
    hit_rates: dict[str, list[tuple[int, float]]]
    precision_recall: dict[str, list[tuple[int, float, float]]]
    slices: list[Sliced]
    confusions: list[Confusion]
    rocs: list[Roc]

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data for JSON; of a confusion the most frequent mistakes."""
        return {
            "pareto_fronts": self.fronts,
            "hit_rate_at_k": {name: [list(point) for point in curve] for name, curve in self.hit_rates.items()},
            "recall_precision_at_k": {
                name: [list(point) for point in curve] for name, curve in self.precision_recall.items()
            },
            "slices": [{"metric": SLICED, **asdict(one)} for one in self.slices],
            "mistakes": [
                {
                    "method": one.method,
                    "head": one.classifier or None,
                    "accuracy": one.accuracy,
                    "most_frequent": [vars(mistake) for mistake in one.mistakes],
                }
                for one in self.confusions
            ],
            "roc": [
                {
                    "method": one.method,
                    "head": one.classifier,
                    "macro_roc_auc": one.area,
                    "false_positive_rate": one.false_positive_rate.tolist(),
                    "true_positive_rate": one.macro.tolist(),
                }
                for one in self.rocs
            ],
        }


def find(evidence: Evidence) -> Findings:
    """All of them; what the record's arrays do not allow is empty."""
    fronts = {cost.key: front_of(evidence.contestants, cost) for cost in COSTS}
    if not evidence.arrays:
        return Findings(fronts, {}, {}, [], [], [])
    ranked = [row for row in evidence.finished if evidence.has_ranking(row.method)]
    judged = {row.method: evidence.judged(row.method) for row in ranked}
    contestants = {row.method: judged[row.method] for row in ranked if row in evidence.contestants}
    names = label_names(evidence)
    return Findings(
        fronts,
        {name: hit_rate_curve(one) for name, one in judged.items()},
        {name: precision_recall_curve(one, len(evidence.arrays["gallery_labels"])) for name, one in judged.items()},
        _slices(evidence, contestants),
        [*_by_neighbour(contestants, names), *_by_head(evidence, names)],
        _rocs(evidence),
    )


def front(costs: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Places of the points that no other point beats, ascending in cost. Of equal points the first counts."""
    kept: list[int] = []
    for number in sorted(range(len(costs)), key=lambda one: (costs[one], -quality[one], one)):
        if not kept or quality[number] > quality[kept[-1]]:
            kept.append(number)
    return kept


def front_of(rows: Sequence[Row], cost: Cost) -> list[str]:
    known = [(row.method, price, row.scores["accuracy"]) for row in rows if (price := cost.of(row)) is not None]
    kept = front([price for _, price, _ in known], [quality for _, _, quality in known])
    return [known[number][0] for number in kept]


def hit_rate_curve(judged: Judged) -> list[tuple[int, float]]:
    """[(k, share of queries with a relevant image among the first k)] up to what was kept of the ranking."""
    found = np.cumsum(judged.hits, axis=1) > 0
    rates = found.mean(axis=0)
    return [(int(k), float(rates[k - 1])) for k in _spaced(len(rates))]


def precision_recall_curve(judged: Judged, gallery: int) -> list[tuple[int, float, float]]:
    """[(k, recall@k, precision@k)], both means over queries; to the end of the gallery where it was ranked whole."""
    if judged.relevant_ranks is None:
        depth, hits = judged.hits.shape[1], judged.hits
        counted = hits.sum(axis=0).astype(np.float64)
        shares = (hits / judged.n_relevant[:, None]).sum(axis=0)
    else:
        ranks = judged.relevant_ranks
        there = ranks >= 0
        depth = max(gallery, int(ranks.max(initial=-1)) + 1)
        weights = np.broadcast_to(1.0 / judged.n_relevant[:, None], ranks.shape)
        counted = np.bincount(ranks[there], minlength=depth).astype(np.float64)
        shares = np.bincount(ranks[there], weights=weights[there], minlength=depth)
    at = np.array(_spaced(depth))
    precision = np.cumsum(counted)[at - 1] / at / len(judged)
    recall = np.minimum(np.cumsum(shares)[at - 1] / len(judged), 1.0)
    return [(int(k), float(r), float(p)) for k, r, p in zip(at, recall, precision, strict=True)]


def _spaced(depth: int) -> list[int]:
    """Cutoffs from 1 to depth, ever wider apart: the first 20, 50, 100, and at most 80 in all."""
    wide = np.unique(np.geomspace(1, depth, MOST_POINTS - 22).round().astype(int)).tolist()
    return sorted({*range(1, min(depth, 20) + 1), *wide, *(k for k in (50, 100) if k <= depth)})


def _slices(evidence: Evidence, judged: dict[str, Judged]) -> list[Sliced]:
    if not judged:
        return []
    values = {name: {SLICED: metrics.accuracy(one)} for name, one in judged.items()}
    ways = slicings(known(evidence), evidence.arrays["n_relevant"])
    return sliced(ways, values, evidence.arrays["query_labels"], evidence.record.settings.seed)


def _by_neighbour(judged: dict[str, Judged], names: list[str]) -> list[Confusion]:
    found = []
    for name, one in judged.items():
        nearest = one.retrieved[:, 0]
        answered = nearest >= 0
        found.append(_confused(name, "", one.expected[answered], nearest[answered], len(one), names))
    return found


def _by_head(evidence: Evidence, names: list[str]) -> list[Confusion]:
    found = []
    expected = evidence.arrays["query_labels"]
    for row in evidence.contestants:
        for classifier in row.classifiers:
            predicted = evidence.arrays.get(f"{row.method}/heads/{classifier}/predicted")
            if predicted is not None:
                found.append(_confused(row.method, classifier, expected, predicted, len(expected), names))
    return found


def _confused(
    method: str, classifier: str, expected: np.ndarray, predicted: np.ndarray, total: int, names: list[str]
) -> Confusion:
    used, both = np.unique(np.concatenate([expected, predicted]), return_inverse=True)
    matrix = confusion(both[: len(expected)], both[len(expected) :], len(used))
    shown = tuple(names[label] if label < len(names) else f"label {label}" for label in used.tolist())
    wrong = matrix - np.diag(np.diag(matrix))
    most = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    mistakes = tuple(
        Mistake(shown[row], shown[column], int(wrong[row, column]), int(matrix[row].sum()))
        for row, column in zip(*np.unravel_index(most, wrong.shape), strict=True)
        if wrong[row, column] > 0
    )
    right = float(np.trace(matrix)) / total if total else 0.0
    return Confusion(method, classifier, right, shown, matrix, mistakes)


def _rocs(evidence: Evidence) -> list[Roc]:
    found = []
    for row in evidence.contestants:
        for classifier, facts in row.classifiers.items():
            prefix = f"{row.method}/heads/{classifier}"
            if f"{prefix}/scores" in evidence.arrays and facts.error is None:
                curve = roc_curve(
                    evidence.arrays["query_labels"],
                    evidence.arrays[f"{prefix}/scores"],
                    evidence.arrays[f"{prefix}/classes"],
                )
                area = facts.scores.get("macro_roc_auc")
                found.append(Roc(row.method, classifier, area, curve["false_positive_rate"], curve["macro"]))
    return found
