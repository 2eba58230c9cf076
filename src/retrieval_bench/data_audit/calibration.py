"""Where to draw the line between duplicates and other pictures, measured on planted copies whose originals are known.

- True pairs: a picture of the collection and a changed copy of it (`PLANTED`).
- False pairs: two pictures of the collection as they are, of up to `DIFFERENT` of them. Copies have no part in these.
- A collection that needs this holds duplicates already, and several views of one product. A pair of its pictures that
  resemble each other by nature is neither true nor false, since nobody has said which: it is left out and counted.
  Whether two resemble each other is judged by their thumbnails, not by the method that is measured: else a method
  could not be wrong. With labels, all pairs of one label are left out, and of two labels only one and the same picture.
- Pairs that resemble each other less strongly than that still count as false, though some are duplicates: in this
  sense the precision is a lower bound. `precision_at_least` is the one where all that were left out are wrong, too.
- The threshold is that of the best F1, or that of the most recall at a wanted precision, of equals the lowest. It is
  chosen with one half of the copies and judged with the other. False pairs need no halves: all pairs of the collection
  are looked at, or of so large a sample that choosing a line does not fit it. They are reckoned for the whole
  collection, of which one image in a hundred (`COPIED`) is supposed to have a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Distance, Images
from retrieval_bench.images.perturbations import Perturbed
from retrieval_bench.search.index import ExactIndex

COPIED = 0.01
"""The share of a collection's images that are supposed to have a copy in it, where a line is drawn for its size."""

DIFFERENT = 20_000
"""Of so many pictures of a collection all pairs are looked at: 200 million."""

RESEMBLES = 0.94
"""Zero-mean normalised correlation of two thumbnails (8 x 8 RGB) from which on pictures resemble each other by nature.

Of rendered products, four near-identical views each: 97 % of the pairs of one product whose phash differs in 0 to 6 of
64 bits reach it, and 3 % of those of two products.
"""

FEW = 2000
"""Pictures from which is told how far all near pairs can be held."""

MOST_NEAR = 1_000_000
"""So many near pairs are held, about."""

_PAIRS_AT_ONCE, _ROWS_AT_ONCE = 65_536, 1024

SAME_PICTURE = 0.99
"""The correlation from which on two images of different labels are one picture, e.g. the same "no image" drawing."""

PLANTED = (
    *(("jpeg", 2), ("brightness", 1), ("blur", 2), ("noise", 1), ("crop", 1)),
    *(("rotate", 1), ("occlude", 1), ("background", 1), ("flip", 1)),
)
"""What is done to copies, one of these to each in turn: (perturbation, severity)."""


class Copies:
    """Images that were copied, behind them a perturbed copy of each. Implements `core.Images`.

    Row i < n is original i, row n + i its copy; `changes[i]` says what was done to it.
    """

    def __init__(self, originals: Images, changes: Sequence[tuple[str, int]], seed: int) -> None:
        if len(originals) != len(changes):
            raise ValueError(f"{len(changes)} changes for {len(originals)} images")
        self.originals, self.changes, self.seed = originals, tuple(changes), seed

    def __len__(self) -> int:
        return 2 * len(self.originals)

    def _at(self, row: int) -> tuple[Images, int]:
        n = len(self.originals)
        if row < n:
            return self.originals, row
        name, severity = self.changes[row - n]
        return Perturbed(self.originals, name, severity, self.seed), row - n

    def __getitem__(self, row: int) -> np.ndarray:
        images, at = self._at(row)
        return images[at]

    def read(self, row: int) -> bytes:
        images, at = self._at(row)
        return images.read(at)

    def digest(self, row: int) -> str:
        images, at = self._at(row)
        return images.digest(at)

    def take(self, rows: Sequence[int]) -> Images:
        raise TypeError("copies stay with their originals; take from the originals before copying")


def kinds_each(n: int, copies: int) -> int:
    """How many copies each of n pictures gets, so that there are about as many as wanted: 1 to all kinds."""
    return max(1, min(len(PLANTED), copies // max(1, n)))


def planted(n: int) -> list[tuple[str, int]]:
    """What is done to n copies: each of PLANTED in turn."""
    return [PLANTED[number % len(PLANTED)] for number in range(n)]


@dataclass(frozen=True, eq=False)
class Sweep:
    """Quality at every distance that any pair has, ascending; all (t,) float64.

    precision: of the pairs within the threshold, how many are true, false ones counted by their weight. recall: of the
    true pairs, how many are within.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def at(self, threshold: float) -> dict[str, float]:
        """Precision (1 where nothing is within), recall and F1 of this threshold."""
        place = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
        if place < 0:
            return {"precision": 1.0, "recall": 0.0, "f1": 0.0}
        return {name: float(getattr(self, name)[place]) for name in ("precision", "recall", "f1")}

    def best(self, precision: float | None = None) -> float:
        """The threshold of the best F1; or, of those of at least this precision, the one of the most recall.

        Of equals the lowest. Where no threshold is that precise, a distance below all: nothing is a duplicate.
        """
        if precision is None:
            return float(self.thresholds[int(np.argmax(self.f1))])
        good = np.flatnonzero(self.precision >= precision)
        if not len(good):
            return float(np.nextafter(np.float32(self.thresholds[0]), np.float32(-np.inf)))
        return float(self.thresholds[good[int(np.argmax(self.recall[good]))]])


def sweep(distances: np.ndarray, true: np.ndarray, weight: float = 1.0) -> Sweep:
    """distances: (p,) of all pairs. true: (p,) bool, at least one. weight: how many pairs one false pair stands for."""
    if not true.any():
        raise ValueError("no pair is true: there is nothing to find")
    thresholds, place = np.unique(distances, return_inverse=True)
    wrong = weight * np.cumsum(np.bincount(place[~true], minlength=len(thresholds)))
    right = np.cumsum(np.bincount(place[true], minlength=len(thresholds)))
    precision = np.divide(right, right + wrong, out=np.ones(len(right)), where=right + wrong > 0)
    f1 = 2 * right / (right + wrong + true.sum())
    return Sweep(thresholds.astype(np.float64), precision, right / true.sum(), f1)


def correlations(thumbnails: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(m, p) and (n, p) samples of thumbnails -> (m, n) float32, -1 to 1; 0 where one is of one colour."""
    first, second = (_standardised(one) for one in (thumbnails, others))
    return first @ second.T


def _standardised(thumbnails: np.ndarray) -> np.ndarray:
    rows = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def unlike(thumbnails: np.ndarray, order: np.ndarray, most: int) -> np.ndarray:
    """Of pictures in this order, the first `most` of which none resembles one before it, ascending.

    So a picture that a collection holds a hundred times is drawn once, and its copies do not decide the line.
    """
    rows = _standardised(thumbnails[order[: 8 * most]]) if len(order) else np.zeros((0, 1), np.float32)
    taken: list[int] = []
    kept = np.empty((most, rows.shape[1]), np.float32)
    for place, row in enumerate(rows):
        if not (kept[: len(taken)] @ row >= RESEMBLES).any():
            kept[len(taken)] = row
            taken.append(int(order[place]))
            if len(taken) == most:
                break
    return np.sort(np.array(taken, np.int64))


@dataclass(frozen=True, eq=False)
class PlantedCopies:
    """features: (2 c, d), of c originals and behind them of a copy of each. owners: (c,) which picture original i is,
    where one picture has several copies. changes: c, what was done to each.
    """

    features: np.ndarray
    owners: np.ndarray
    changes: Sequence[tuple[str, int]]

    def __post_init__(self) -> None:
        if not len(self.features) == 2 * len(self.owners) == 2 * len(self.changes):
            raise ValueError(f"{len(self.features)} features for {len(self.changes)} originals and their copies")


@dataclass(frozen=True, eq=False)
class Originals:
    """Pictures of the collection as they are. features: (m, d). thumbnails: (m, p) uint8. labels: (m,), where known."""

    features: np.ndarray
    thumbnails: np.ndarray
    labels: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Originals:
        labels = None if self.labels is None else self.labels[rows]
        return Originals(self.features[rows], self.thumbnails[rows], labels)

    def alike(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(p,) bool: which of these pairs of rows are left out, resembling each other by nature or of one label."""
        found = np.empty(len(left), bool)
        for start in range(0, len(left), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            one, two = (_standardised(self.thumbnails[side[some]]) for side in (left, right))
            labels = None if self.labels is None else self.labels[left[some]] == self.labels[right[some]]
            found[some] = _left_out(np.einsum("pd,pd->p", one, two), labels)
        return found

    def count_alike(self) -> int:
        """How many of all pairs are left out."""
        rows = _standardised(self.thumbnails)
        count = 0
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(rows))
            labels = None if self.labels is None else self.labels[start:stop, None] == self.labels[start:]
            out = _left_out(rows[start:stop] @ rows[start:].T, labels)
            count += int(np.count_nonzero(np.triu(out, 1)))
        return count


def _left_out(correlation: np.ndarray, one_label: np.ndarray | None) -> np.ndarray:
    if one_label is None:
        return correlation >= RESEMBLES
    return (correlation >= SAME_PICTURE) | one_label


@dataclass(frozen=True, eq=False)
class Judgement:
    """Where the line is drawn, and how good that is.

    threshold: chosen on one half of the copies. tuned, held_out: precision, recall and F1 with that half, and with the
    other. found: by perturbation, the share of the held-out copies that were found. false_per_million: of a million
    pairs of different pictures, how many are taken for duplicates; pairs: how many there were. looked_at: pictures of
    which these are made. alike: pairs of them that resemble each other by nature or have one label; alike_found: how
    many of those lie within the threshold. precision_at_least: as if all of them were false. curve: the sweep with the
    held-out half.
    """

    threshold: float
    tuned: dict[str, float]
    held_out: dict[str, float]
    found: dict[str, float]
    false_per_million: float
    pairs: int
    looked_at: int
    alike: int
    alike_found: int
    precision_at_least: float
    curve: Sweep


@dataclass(frozen=True, eq=False)
class _FalsePairs:
    """Of m pictures. near: distances up to the limit. alike: likewise, of pairs left out. n, n_alike: of all."""

    m: int
    near: np.ndarray
    alike: np.ndarray
    n: int
    n_alike: int
    limit: float

    def weight(self, copies: int, size: int | None) -> float:
        """How many pairs of the collection one of these stands for, for each true one of it that a copy stands for.

        Without a size the collection is these pictures, each with one copy: of m pictures, 2 m² pairs are false.
        """
        if size is None:
            return 2.0 * self.m * copies / self.n
        return (size * size / 2 / self.n) / (COPIED * size / copies)

    def swept(self, own: np.ndarray, size: int | None) -> Sweep:
        """With these distances of true pairs; only up to the limit, since false pairs beyond are not counted."""
        true = np.arange(len(own) + len(self.near)) < len(own)
        whole = sweep(np.concatenate([own, self.near]), true, self.weight(len(own), size))
        known = slice(0, max(1, int(np.searchsorted(whole.thresholds, self.limit, side="right"))))
        return Sweep(whole.thresholds[known], whole.precision[known], whole.recall[known], whole.f1[known])


def judged(
    planted_copies: PlantedCopies,
    originals: Originals,
    distance: Distance,
    seed: int,
    precision: float | None = None,
    size: int | None = None,
) -> Judgement | None:
    """Draw the line and judge it, for a collection of `size` images; the module says how.

    Args:
        planted_copies: the true pairs; of at least two pictures.
        originals: what false pairs are made of.
        distance: between features.
        seed: of the division into halves.
        precision: the threshold is that of the most recall at such a precision. None: that of the best F1.
        size: images of the collection. None: the originals and one copy of each are all of it.

    Returns:
        The judgement; None where fewer than two pictures have copies, or no pair of pictures may be called false.
    """
    in_first = np.isin(planted_copies.owners, _every_second(planted_copies, np.random.default_rng(seed)))
    if in_first.all() or not in_first.any():
        return None
    own = _own_distances(planted_copies.features, distance)
    limit = _limit(originals.features, distance, own)
    if limit is None:  # so many pairs are near that a part of the pictures tells enough
        originals, limit = originals.take(np.arange(min(FEW, len(originals.features)))), float(own.max())
    false = _false_pairs(originals, distance, limit)
    if not false.n:
        return None
    chosen_on, curve = false.swept(own[in_first], size), false.swept(own[~in_first], size)
    threshold = chosen_on.best(precision)
    held_out = own[~in_first]
    names = [f"{name} {severity}" for name, severity in planted_copies.changes]
    kinds = np.array(names)[~in_first]
    right = int((held_out <= threshold).sum())
    wrong, alike = (int((some <= threshold).sum()) for some in (false.near, false.alike))
    taken = right + (wrong + alike) * false.weight(len(held_out), size)
    return Judgement(
        threshold,
        chosen_on.at(threshold),
        curve.at(threshold),
        {
            kind: float((held_out[kinds == kind] <= threshold).mean())
            for kind in dict.fromkeys(names)
            if (kinds == kind).any()
        },
        wrong / false.n * 1e6,
        false.n,
        false.m,
        false.n_alike,
        alike,
        right / taken if taken else 1.0,
        curve,
    )


def farthest_copy(features: np.ndarray, distance: Distance, changes: Sequence[tuple[str, int]]) -> float:
    """The distance of the farthest JPEG copy: the line where no two pictures differ that could contradict it.

    features: (2 c, d), as of PlantedCopies. changes: c, at least one of them "jpeg".
    """
    encoded = np.array([name == "jpeg" for name, _ in changes])
    return float(_own_distances(features, distance)[encoded].max())


def _every_second(planted_copies: PlantedCopies, dice: np.random.Generator) -> np.ndarray:
    """Half of the pictures, so that each kind of copy is in both halves alike: every second of those of each kind."""
    owners, first = np.unique(planted_copies.owners, return_index=True)
    kind = np.array([f"{name} {severity}" for name, severity in planted_copies.changes])[first]
    mixed = dice.permutation(len(owners))
    by_kind = mixed[np.argsort(kind[mixed], kind="stable")]
    return owners[by_kind[::2]] if len(owners) > 1 else owners[:0]


def _limit(features: np.ndarray, distance: Distance, own: np.ndarray) -> float | None:
    """The farthest distance of a copy up to which all near pairs can be held; None if there is none.

    A line beyond it would take a million strangers for duplicates.
    """
    farthest = float(own.max())
    some = features[np.linspace(0, len(features) - 1, min(FEW, len(features))).astype(int)]
    if len(some) == len(features):
        return farthest
    apart = np.sort(_within(some, distance, farthest)[2])
    most = int(MOST_NEAR * (len(some) / len(features)) ** 2)
    if len(apart) <= most:
        return farthest
    held = own[own < apart[most]]
    return float(held.max()) if len(held) else None


def _false_pairs(originals: Originals, distance: Distance, limit: float) -> _FalsePairs:
    m = len(originals.features)
    left, right, apart = _within(originals.features, distance, limit)
    out, n_alike = originals.alike(left, right), originals.count_alike()
    return _FalsePairs(m, apart[~out], apart[out], m * (m - 1) // 2 - n_alike, n_alike, limit)


def _within(features: np.ndarray, distance: Distance, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    near = ExactIndex(features, distance).search_radius(features, radius)
    left = np.repeat(np.arange(len(features)), np.diff(near.offsets))
    once = left < near.indices
    return left[once], near.indices[once], near.distances[once]


def _own_distances(features: np.ndarray, distance: Distance, block: int = 64) -> np.ndarray:
    """(c,) float32: of each original to its copy, as a search has it."""
    c = len(features) // 2
    own = np.empty(c, np.float32)
    for start in range(0, c, block):
        rows = np.arange(start, min(start + block, c))
        found = ExactIndex(features[c + rows], distance).search(features[rows], len(rows))
        place = found.indices == np.arange(len(rows))[:, None]
        own[rows] = found.distances[place]
    return own
