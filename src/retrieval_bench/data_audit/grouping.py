"""Groups of duplicates that are no larger than their evidence: every two of a group lie within the threshold.

Components of near pairs chain: A like B and B like C puts A with C, and a large collection ends as one heap. So groups
are built by complete linkage, the best image first: it takes its nearest neighbours one by one, each only if it lies
within the threshold of all that are in. What is left makes groups of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.data_audit.duplicates import MOST_PAIRS
from retrieval_bench.search.index import ExactIndex

_AT_ONCE = 2048


@dataclass(frozen=True, eq=False)
class Group:
    """rows: the one to keep first, then by rank. diameter: the largest distance of any two. equal: grouped by equal
    pixels alone, without the method."""

    rows: np.ndarray
    diameter: float
    equal: bool = False


@dataclass(frozen=True, eq=False)
class Grouped:
    """groups: the one with the best image first. pairs: pairs of images within the threshold, in a group or not."""

    groups: tuple[Group, ...]
    pairs: int


def grouped(features: np.ndarray, threshold: float, distance: Distance, rank: np.ndarray) -> Grouped:
    """Group images whose features lie within the threshold.

    Equal rows are searched for once, so that a thousand copies of one picture do not cost a million neighbours.

    Args:
        features: (n, d), as for ExactIndex.
        threshold: the largest distance within a group.
        distance: between features.
        rank: (n,) int64, each number once: of each group the image of the lowest is the one to keep.

    Returns:
        The groups, of at least two images each.

    Raises:
        BenchError: More than `MOST_PAIRS` pairs of different features lie within the threshold.
    """
    n = len(features)
    if n < 2:
        return Grouped((), 0)
    distinct, owner, counts = np.unique(features, axis=0, return_inverse=True, return_counts=True)
    owner = owner.reshape(-1)
    by_owner = np.lexsort((rank, owner))
    starts = np.cumsum(counts) - counts
    best = rank[by_owner[starts]]
    offsets, near, apart = _neighbours(distinct, threshold, distance)
    left = np.repeat(np.arange(len(distinct)), np.diff(offsets))
    itself = np.zeros(len(distinct), bool)  # not so for a row of zeros, whose cosine distance to itself is 1
    itself[left[left == near]] = True
    across = left < near
    pairs = int((counts[left[across]] * counts[near[across]]).sum())
    pairs += int((counts * (counts - 1) // 2)[itself].sum())
    groups = []
    free = itself.copy()
    in_group = np.zeros(len(distinct), bool)
    for seed in np.argsort(best).tolist():
        if not free[seed]:
            continue
        rows, gaps = near[offsets[seed] : offsets[seed + 1]], apart[offsets[seed] : offsets[seed + 1]]
        candidates = rows[np.lexsort((best[rows], gaps))]
        candidates = candidates[free[candidates] & (candidates != seed)]
        members, diameter = [seed], 0.0
        in_group[seed] = True
        while len(candidates):
            one = int(candidates[0])
            mine = slice(offsets[one], offsets[one + 1])
            diameter = max(diameter, float(apart[mine][in_group[near[mine]]].max(initial=0.0)))
            members.append(one)
            in_group[one] = True
            candidates = candidates[1:]
            if len(candidates):
                candidates = candidates[np.isin(candidates, near[mine])]
        in_group[members] = False
        free[members] = False
        images = np.concatenate([by_owner[starts[one] : starts[one] + counts[one]] for one in members])
        if len(images) > 1:
            groups.append(Group(images[np.argsort(rank[images])], diameter))
    return Grouped(tuple(groups), pairs)


def of_equal_pixels(numbers: np.ndarray, rank: np.ndarray) -> tuple[Group, ...]:
    """Groups of images whose numbers are equal. numbers: (n,). rank: as for `grouped`."""
    order = np.lexsort((rank, numbers))
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    several = [part for part in parts if len(part) > 1]
    return tuple(Group(part, 0.0, equal=True) for part in sorted(several, key=lambda part: int(rank[part[0]])))


def _neighbours(rows: np.ndarray, radius: float, distance: Distance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n + 1,) offsets, and of each row the rows within the radius, itself among them, with their distances."""
    index = ExactIndex(rows, distance)
    counts, near, apart = [np.zeros(1, np.int64)], [], []
    total = 0
    for start in range(0, len(rows), _AT_ONCE):
        found = index.search_radius(rows[start : start + _AT_ONCE], radius)
        counts.append(np.diff(found.offsets))
        near.append(found.indices.astype(np.int32))
        apart.append(found.distances)
        total += len(found.indices)
        if total - min(start + _AT_ONCE, len(rows)) > 2 * MOST_PAIRS:
            raise BenchError(
                f"more than {MOST_PAIRS:,} pairs lie within {radius:g}, too many to be duplicates; "
                "give a smaller distance with --within"
            )
    return np.cumsum(np.concatenate(counts)), np.concatenate(near), np.concatenate(apart)
