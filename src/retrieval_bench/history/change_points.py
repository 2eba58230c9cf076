"""Where a series changes its level: circular binary segmentation, each step judged by a permutation test.

The stretch whose mean differs most from that of the rest, weighted by their sizes, is cut out; it may begin or end
where the series does. It counts where few of the random orders of the same values have as large a difference; then the
pieces are looked at in turn. Cutting out a stretch finds a step up that a step down follows, which a split in two does
not see (Olshen et al., Biostatistics 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

LEVEL = 0.01
PERMUTATIONS = 999
FEWEST = 2
"""Values on each side of a change: one alone may be an outlier."""
_CELLS = 4_000_000  # of a block of permutations: bounds memory


@dataclass(frozen=True)
class LevelChange:
    """at: the first value of the new level. before, after: means of the two neighbouring levels. p: of the split."""

    at: int
    before: float
    after: float
    p: float


def level_changes(
    values: np.ndarray, least: float, *, level: float = LEVEL, permutations: int = PERMUTATIONS, seed: int = 0
) -> list[LevelChange]:
    """Find changes of the level.

    Args:
        values: (n,) of one series, in order.
        least: the smallest difference of means that counts.
        level: of each test: of so many series without a change, one has a false one.
        permutations: random orders of each test.
        seed: of these.

    Returns:
        The changes, in order.
    """
    values = np.asarray(values, np.float64)
    splits: dict[int, float] = {}
    waiting = [(0, len(values))]
    while waiting:
        start, end = waiting.pop()
        found = _split(values[start:end], level, permutations, seed)
        if found is not None:
            cuts, p = found
            splits |= {start + at: p for at in cuts}
            waiting += list(pairwise([start, *(start + at for at in cuts), end]))
    ends = [0, *sorted(splits), len(values)]
    means = [float(values[one:two].mean()) for one, two in pairwise(ends)] if len(values) else []
    changes = [
        LevelChange(at, before, after, splits[at])
        for at, before, after in zip(ends[1:-1], means[:-1], means[1:], strict=True)
    ]
    return [one for one in changes if abs(one.after - one.before) >= least]


def _split(values: np.ndarray, level: float, permutations: int, seed: int) -> tuple[list[int], float] | None:
    """Where the stretch begins and ends, inside the series, and p of that; None where no stretch counts."""
    n = len(values)
    if n < 2 * FEWEST or np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return None
    starts, ends = _stretches(n)
    sizes = _sizes(values[None], starts, ends)[0]
    best = int(sizes.argmax())
    random = np.random.default_rng(seed)
    count, done = 0, 0
    while done < permutations:
        block = min(permutations - done, max(1, _CELLS // len(starts)))
        drawn = random.permuted(np.broadcast_to(values, (block, n)), axis=1)
        count += int((_sizes(drawn, starts, ends).max(axis=1) >= sizes[best] * (1 - 1e-9)).sum())
        done += block
    p = (count + 1) / (permutations + 1)
    cuts = [at for at in (int(starts[best]), int(ends[best])) if 0 < at < n]
    return (cuts, p) if p <= level else None


def _stretches(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(m,) first and one past the last value of every stretch; it and what lies on its sides have FEWEST values."""
    starts, ends = np.triu_indices(n + 1, FEWEST)
    inside = ((starts == 0) | (starts >= FEWEST)) & ((ends == n) | (n - ends >= FEWEST)) & (ends - starts < n)
    return starts[inside], ends[inside]


def _sizes(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """(b, n) series -> (b, m): how far the mean of each stretch is from that of the rest, weighted."""
    n = rows.shape[1]
    sums = np.zeros((len(rows), n + 1))
    np.cumsum(rows - rows.mean(axis=1, keepdims=True), axis=1, out=sums[:, 1:])
    length = ends - starts
    return np.abs(sums[:, ends] - sums[:, starts]) / np.sqrt(length * (n - length) / n)
