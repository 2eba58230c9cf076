"""Data to choose methods by, in which no query of the dataset takes part; and smaller parts of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from retrieval_bench.core import BenchError, Dataset, Split
from retrieval_bench.datasets.splits import some

QUERY_SHARE = 0.25
"""Of a label's images, how many ask: at least one."""
FEWEST_LABELS = 4
"""With a picture in gallery and queries each, below which nothing can be chosen."""


@dataclass(frozen=True, eq=False)
class Validation:
    """dataset: with the same kind of splits. shares_labels: its queries show labels that queries of the whole show,
    so that only the pictures are new to these. told: one sentence on where it comes from."""

    dataset: Dataset
    shares_labels: bool
    told: str


def of_train(dataset: Dataset, seed: int) -> Validation:
    """Divide train.

    Where the dataset's queries show labels that train lacks, so do those of the validation: one half of the labels is
    learned from, the other asked for and searched in. Where they show those of train, as in a shop that knows its
    products, all labels are learned from, and other pictures of them ask.

    Args:
        dataset: with a train split.
        seed: of what is drawn, from 0.

    Raises:
        BenchError: train has too few labels with two images.
    """
    train = dataset.train
    random = np.random.default_rng(seed)
    labels, counts = np.unique(train.labels, return_counts=True)
    several = random.permutation(labels[counts >= 2])
    asked_for = set(np.unique(dataset.query.labels).tolist())
    shares = bool(asked_for & set(labels.tolist()))
    chosen = several if shares else several[: len(several) // 2]
    if len(chosen) < FEWEST_LABELS:
        raise BenchError(
            f"tuning chooses on train, and that of {dataset.name} has {len(several)} labels with two images or more; "
            f"{FEWEST_LABELS if shares else 2 * FEWEST_LABELS} are needed; name other data by --val"
        )
    query: list[int] = []
    for label in np.sort(chosen):
        rows = random.permutation(np.flatnonzero(train.labels == label))
        query += rows[: max(1, round(QUERY_SHARE * len(rows)))].tolist()
    asks = np.zeros(len(train), bool)
    asks[query] = True
    searched = np.isin(train.labels, chosen) & ~asks
    learned = searched if shares else ~np.isin(train.labels, chosen)
    found = replace(
        dataset,
        name=f"{dataset.name} (validation)",
        train=train.take(np.flatnonzero(learned)),
        gallery=train.take(np.flatnonzero(searched)),
        query=train.take(np.flatnonzero(asks)),
        leave_one_out=False,
        notices=(),
    )
    how = "other pictures of the same labels ask" if shares else "the labels that ask are not those learned from"
    return Validation(found, shares, f"chosen on a part of train: {how}")


def of_other(dataset: Dataset, other: Dataset) -> Validation:
    """Take other data, such as the published val list, of which no picture may ask in the dataset itself.

    Raises:
        BenchError: A picture of `other` is a query of the dataset.
    """
    asked = {dataset.query.images.digest(row): row for row in range(len(dataset.query))}
    for name, split in other.splits.items():
        known = [split.ids[row] for row in range(len(split)) if split.images.digest(row) in asked]
        if known:
            raise BenchError(
                f"--val: {len(known)} images of its {name} are queries of {dataset.name}, which would choose what then "
                f"judges them: {some(known)}"
            )
    names = {dataset.label_names[label] for label in np.unique(dataset.query.labels)}
    shares = any(other.label_names[label] in names for label in np.unique(other.query.labels))
    return Validation(other, shares, "chosen on --val, of which no picture is a query here")


def parts(validation: Dataset, seed: int, shares: tuple[float, ...] = (0.25, 0.5, 1.0)) -> Iterator[Dataset]:
    """Smaller versions of the same question, each within the next: gallery and queries of a share of the labels.

    Train stays whole: what learns from little is no measure of what it will be, and what was learned once serves all
    parts.

    Args:
        validation: the whole.
        seed: of the order of labels, from 0.
        shares: of the labels, ascending; the last is all. One that has fewer than `FEWEST_LABELS` is left out.
    """
    random = np.random.default_rng(seed)
    asked = random.permutation(np.intersect1d(validation.query.labels, validation.gallery.labels))
    for share in shares:
        wanted = round(share * len(asked))
        if share == 1:
            yield validation
        elif wanted >= FEWEST_LABELS:
            kept = asked[:wanted]
            yield validation.with_splits({name: _of_labels(validation, name, kept) for name in ("gallery", "query")})


def _of_labels(dataset: Dataset, name: str, labels: np.ndarray) -> Split:
    split = dataset.splits[name]
    return split.take(np.flatnonzero(np.isin(split.labels, labels)))
