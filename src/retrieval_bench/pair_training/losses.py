"""What the towers are taught to make small: symmetric InfoNCE, and triplets with hard negatives of the batch.

Two items of one label are no negatives of each other: a listing of the same product is as right as the picture's own.
"""

from __future__ import annotations

from typing import Any

from retrieval_bench.pair_training.settings import PairLoss

MARGIN = 0.2
"""By which a triplet wants the right text nearer, in cosine."""
ALL_NEGATIVES = 0.4
"""Share of the steps in which triplets are made of all negatives; then of the hardest."""
FIRST_SCALE, MOST_SCALE = 14.0, 60.0
"""By which cosines are multiplied before the softmax: at first, and at most, as it is learned."""


def infonce(first: Any, second: Any, labels: Any, scale: Any) -> Any:
    """Symmetric InfoNCE (van den Oord et al. 2018; Radford et al., ICML 2021) over a batch of pairs.

    Args:
        first: (n, d) rows of length 1.
        second: (n, d) rows of length 1; row i belongs to row i of `first`.
        labels: (n,) what each pair is of. PairSet of the label of a row are left out of its negatives.
        scale: by which cosines are multiplied.

    Returns:
        The mean over both directions and all rows, a tensor without axes.
    """
    import torch

    scores = scale * (first @ second.T)
    left_out = same_label(labels)
    left_out.fill_diagonal_(False)
    scores = scores.masked_fill(left_out, -torch.inf)
    own = scores.diagonal()
    return (torch.logsumexp(scores, 1) - own + torch.logsumexp(scores, 0) - own).mean() / 2


def hardest_triplets(first: Any, second: Any, labels: Any, margin: float = MARGIN) -> Any:
    """Hinge over the hardest negative of the batch, in both directions (VSE++, Faghri et al., BMVC 2018).

    Args:
        first: (n, d) rows of length 1.
        second: (n, d) rows of length 1; row i belongs to row i of `first`.
        labels: (n,) what each pair is of. A row of the same label is no negative.
        margin: by which the right one shall be nearer.

    Returns:
        The mean over both directions and all rows, a tensor without axes; 0 where a batch has one label.
    """
    import torch

    scores = first @ second.T
    own = scores.diagonal()
    others = scores.masked_fill(same_label(labels), -torch.inf)
    across = (margin + others.max(1).values - own).clamp(min=0)
    down = (margin + others.max(0).values - own).clamp(min=0)
    return (across + down).mean() / 2


def violating_triplets(first: Any, second: Any, labels: Any, margin: float = MARGIN) -> Any:
    """Hinge over all negatives of the batch, the mean of those above 0 ("batch all", Hermans et al. 2017).

    What a training begins with: as long as all vectors are alike, the hardest negatives alone draw them into one point.

    Args:
        first: (n, d) rows of length 1.
        second: (n, d) rows of length 1; row i belongs to row i of `first`.
        labels: (n,) what each pair is of. A row of the same label is no negative.
        margin: by which the right one shall be nearer.

    Returns:
        The mean over both directions, a tensor without axes; 0 where every right one is near enough.
    """
    scores = first @ second.T
    own = scores.diagonal()
    total, count = 0.0, 0.0
    for wrong in (margin + scores - own[:, None], margin + scores - own[None, :]):
        hinges = wrong.masked_fill(same_label(labels), 0).clamp(min=0)
        total, count = total + hinges.sum(), count + (hinges > 0).sum()
    return total / count.clamp(min=1)  # type: ignore[attr-defined]


def same_label(labels: Any) -> Any:
    """(n,) labels -> (n, n) bool tensor."""
    return labels[:, None] == labels[None, :]


def pair_loss(kind: PairLoss, first: Any, second: Any, labels: Any, scale: Any, done: float) -> Any:
    """The loss of this name. scale: InfoNCE's alone. done: share of the steps, 0 to 1, for triplets."""
    if kind == "infonce":
        return infonce(first, second, labels, scale)
    return (violating_triplets if done < ALL_NEGATIVES else hardest_triplets)(first, second, labels)
