"""How sure a proposal is, and from where on the sure ones may be accepted without a person.

Both are learned from the labels that are known, each taken as if it were not: what would be proposed then, and is it
the label? And once more as if no image of its product had a label: what is proposed then is wrong whatever it is, and
shows what an image of a new product looks like. How many of the images without a label show such a new product is
estimated from what they look like, as the share that explains them best (Saerens, Latinne, Decaestecker, "Adjusting the
outputs of a classifier to new a priori probabilities", Neural Computation 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_bench.evaluation.mean_intervals import effective_sizes, wilson
from retrieval_bench.labelling.spreading import NeighbourGraph, Spread

SURE = 0.9
"""How often the promise should hold: the threshold is the lowest at which the lower end of the interval of the share of
right proposals, one-sided, is at least the target."""
FEWEST = 20
"""Labels that can be held out, below which no confidence is learned."""
FOLDS = 5
PLAIN = 4
"""Signs by which right proposals are told from wrong ones; all of them tell new products from known ones."""
_BINS = 10
_FAR = 5.0  # in scales: where no neighbour has the proposed label
_ROUNDS = 200
_NEXT_TO_NONE = 0.001


@dataclass(frozen=True, eq=False)
class Confidence:
    """What is known of the proposals.

    Args:
        sure: (n,) float64, the probability that the first candidate of an image is right, 0 to 1; of one with a label,
            as if it were not known.
        threshold: from which on proposals may be accepted; None: from nowhere on.
        why_not: why there is no threshold; "" where there is one.
        held_out: labels that were held out.
        precision: of the held-out proposals from the threshold on, the share that is right; NaN without a threshold.
        low: the lower end of its interval.
        calibrated: `sure` was learned from labels that were held out; else it is a mere part of what arrives.
        new_share: the share of images without a label that show a product without a label, as estimated; the threshold
            is made for as many.
    """

    sure: np.ndarray
    threshold: float | None
    why_not: str
    held_out: int
    precision: float
    low: float
    new_share: float
    calibrated: bool = True


def confidence_of(graph: NeighbourGraph, known: np.ndarray, arrived: Spread, target: float) -> Confidence:
    """Learn how sure each proposal is, and where to begin to accept.

    Args:
        graph: of n images.
        known: (n,) int64, the label of each image, -1 where it is not known.
        arrived: what `spread` says of these.
        target: the share of accepted proposals that should be right, at least.

    Returns:
        The confidence of every image, and the threshold.
    """
    given = np.flatnonzero(known >= 0)
    open_rows = np.flatnonzero(known < 0)
    _, class_of, counts = np.unique(known[given], return_inverse=True, return_counts=True)
    alone = counts[class_of] == 1
    seen = _signs(graph, known, arrived.labels, arrived.amounts, arrived.total, np.arange(len(known)))
    right = arrived.labels[given, 0] == known[given]
    asked = given[~alone]
    if len(asked) < FEWEST:
        few = (
            f"only {len(asked)} labels can be held out, as a product needs two of them for that; {FEWEST} are needed "
            "to say how sure a proposal is"
        )
        return Confidence(_plain(arrived), None, few, len(asked), np.nan, np.nan, 0.0, calibrated=False)
    labels, amounts, total = _without_own(arrived, known, given)
    unseen = _signs(graph, known, labels, amounts, total, given)
    known_part = seen[asked]
    is_new = np.r_[np.zeros(len(asked)), np.ones(len(given))]
    groups = np.r_[known[asked], known[given]]
    rows = np.vstack([known_part, unseen])
    outcome = np.r_[right[~alone], np.zeros(len(given), bool)]
    new_share = _new_share(rows, is_new, groups, seen[open_rows]) if len(open_rows) else 0.0
    weights = np.where(is_new > 0, new_share / len(given), (1 - new_share) / len(asked)) * len(asked)
    counted = weights > 0
    rows, outcome, groups, weights, is_new = (one[counted] for one in (rows, outcome, groups, weights, is_new))
    rows, seen = rows[:, :PLAIN], seen[:, :PLAIN]
    held = _crossed(rows, outcome, groups, weights)
    sure = _fitted(rows, outcome, weights, seen)
    sure[arrived.labels[:, 0] < 0] = 0
    own = np.where(is_new > 0, groups, groups.max() + 1 + np.arange(len(groups)))  # a new product is new as a whole
    threshold, precision, low = _threshold(held, outcome, own, weights, target)
    why_not = ""
    if threshold is None:
        why_not = (
            f"no part of the proposals for the {len(asked)} labels that were held out is right often enough to promise "
            f"{target:.0%}; the best promise is {low:.1%}, so label more, or choose another method or --target"
        )
    return Confidence(sure, threshold, why_not, len(asked), precision, low, new_share)


def _plain(arrived: Spread) -> np.ndarray:
    """The first label's part of what arrives, where nothing better can be said."""
    return np.divide(arrived.amounts[:, 0], arrived.total, out=np.zeros(len(arrived.total)), where=arrived.total > 0)


def _without_own(arrived: Spread, known: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, amounts and total of these images as if no image had the label that they have."""
    labels, amounts = arrived.labels[rows], arrived.amounts[rows]
    own = labels == known[rows][:, None]
    order = np.argsort(own, axis=1, kind="stable")
    labels, amounts = (
        np.take_along_axis(np.where(own, fill, of), order, axis=1) for of, fill in ((labels, -1), (amounts, 0.0))
    )
    return labels, amounts, np.maximum(arrived.total[rows] - arrived.given[rows], 0)


def _signs(
    graph: NeighbourGraph,
    known: np.ndarray,
    labels: np.ndarray,
    amounts: np.ndarray,
    total: np.ndarray,
    rows: np.ndarray,
) -> np.ndarray:
    """(m, 7) what tells right proposals from wrong ones, of images `rows`.

    How much of the first label arrives, its part of all, its lead before the second, and how far the nearest neighbour
    with this label is: PLAIN. Then how many neighbours have it, how far the nearest with another label is, and how much
    arrives of all labels.
    """
    least = 1e-9
    whole = np.maximum(total, least)
    first, second = (np.log(np.maximum(amounts[:, column], least)) for column in (0, 1))
    neighbours = graph.neighbours[rows]
    theirs = np.where(neighbours >= 0, known[np.maximum(neighbours, 0)], -1)
    agrees = (theirs == labels[:, :1]) & (theirs >= 0)
    differs = (theirs != labels[:, :1]) & (theirs >= 0)
    away = np.minimum(graph.apart[rows] / graph.scales[rows][:, None], _FAR)
    nearest, other = (np.where(of, away, _FAR).min(axis=1) for of in (agrees, differs))
    return np.column_stack(
        [first, amounts[:, 0] / whole, first - second, nearest, agrees.sum(axis=1), other, np.log(whole)]
    )


def _fitted(rows: np.ndarray, right: np.ndarray, weights: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Probabilities of being right for `asked`, by a logistic regression on the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if right.all() or not right.any():
        # No line can be learned; a rank by the signs themselves, kept below what was seen of so many.
        n = len(right)
        share = (right.sum() + 0.5) / (n + 1)
        return np.full(len(asked), share)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
    model.fit(rows, right, logisticregression__sample_weight=weights)
    return np.asarray(model.predict_proba(asked)[:, 1])


def _crossed(rows: np.ndarray, right: np.ndarray, groups: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same of every row, by a regression that has seen no row of its label."""
    held = np.empty(len(rows))
    _, number = np.unique(groups, return_inverse=True)
    for fold in range(FOLDS):
        out = number % FOLDS == fold
        if out.any() and not out.all():
            held[out] = _fitted(rows[~out], right[~out], weights[~out], rows[out])
        elif out.any():
            held[out] = _fitted(rows, right, weights, rows[out])
    return held


def _new_share(rows: np.ndarray, is_new: np.ndarray, groups: np.ndarray, asked: np.ndarray) -> float:
    """The share of `asked` that look like images of new products: the one that makes what is seen likeliest."""
    weights = np.where(is_new > 0, 1 / is_new.sum(), 1 / (1 - is_new).sum()) * len(rows) / 2
    held = _crossed(rows, is_new > 0, groups, weights)
    ends = np.unique(np.quantile(held, np.linspace(0, 1, _BINS + 1)[1:-1]))
    old, new, seen = (
        np.bincount(np.searchsorted(ends, scores), minlength=len(ends) + 1).astype(np.float64)
        for scores in (held[is_new == 0], held[is_new > 0], _fitted(rows, is_new > 0, weights, asked))
    )
    old, new = ((of + 0.5) / (of + 0.5).sum() for of in (old, new))
    share = 0.5
    for _ in range(_ROUNDS):
        share = float((seen * share * new / (share * new + (1 - share) * old)).sum() / seen.sum())
    return 0.0 if share < _NEXT_TO_NONE else min(share, 0.95)


def _threshold(
    sure: np.ndarray, right: np.ndarray, clusters: np.ndarray, weights: np.ndarray, target: float
) -> tuple[float | None, float, float]:
    """The lowest threshold that keeps the promise, with the share of right ones and its lower end; None: there is none,
    and the end is the best that any has."""
    z = 1.2815515655446004  # of SURE, one-sided
    order = np.argsort(-sure, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True))  # behind the last of equal ones
    some = np.unique(ends[np.linspace(0, len(ends) - 1, min(len(ends), 100)).astype(int)])
    best = 0.0
    for end in some[::-1]:
        taken = order[: end + 1]
        if len(np.unique(clusters[taken])) < 2:
            continue
        values = right[taken].astype(np.float64)[:, None]
        means, sizes = effective_sizes(values, clusters[taken], 2 * SURE - 1, weights=weights[taken])
        low = float(wilson(means, sizes, z)[0][0])
        if low >= target:
            return float(sure[order[end]]), float(means[0]), low
        best = max(best, low)
    return None, np.nan, best
