"""Successive halving: many methods on a little of the data, the better half on more, and so on (Jamieson and
Talwalkar, AISTATS 2016); from what was best, the next methods to try, until the time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retrieval_bench.core import Setup
from retrieval_bench.evaluation.uncertainty import comparisons, statistics
from retrieval_bench.methods.parse import Method, parse_method
from retrieval_bench.methods.pipeline import refuse_wrong_options
from retrieval_bench.records.tunings import Tried
from retrieval_bench.tuning.moves import Value, changes_of, joins_of, sizes_of, together_of, usable, values_of

WAVE = 8
"""Methods that are tried side by side."""
PARENTS = 3
"""Of the best methods, from which the next are made."""


@dataclass(frozen=True)
class CostLimits:
    """What a method may cost: ms of a query (95th percentile), bytes an image, seconds to learn. None: no limit."""

    p95_ms: float | None = None
    bytes: float | None = None
    fit_s: float | None = None

    def broken(self, tried: Tried) -> list[str]:
        """Which limits a method breaks, in words; a figure that is not known breaks none."""
        pairs = (
            ("p95", tried.p95_ms, self.p95_ms, "ms"),
            ("bytes", tried.bytes, self.bytes, "B/image"),
            ("fit", tried.fit_s, self.fit_s, "s"),
        )
        return [
            f"{name} {reached:.4g} {unit}, at most {most:g}"
            for name, reached, most, unit in pairs
            if reached is not None and most is not None and reached > most
        ]


class TrialBoard:
    """All trials by now. parts: how many parts of the data there are; the last is the whole."""

    def __init__(self, tried: Sequence[Tried], parts: int, limits: CostLimits) -> None:
        self._known = {(one.method, one.part): one for one in tried}
        self._parts, self._limits = parts, limits

    def get(self, method: str, part: int) -> Tried | None:
        """The trial of a method on a part."""
        return self._known.get((method, part))

    def add(self, tried: Tried) -> None:
        self._known[tried.method, tried.part] = tried

    def knows(self, method: str) -> bool:
        """Whether it was tried on any part."""
        return any((method, part) in self._known for part in range(self._parts))

    @property
    def whole(self) -> list[Tried]:
        """Those on all of the data, within the limits, the best first; of equals the cheaper."""
        return [one for one in self._done if not self._limits.broken(one)]

    @property
    def over(self) -> list[Tried]:
        """Those on all of the data that break a limit, the best first."""
        return [one for one in self._done if self._limits.broken(one)]

    @property
    def unfit(self) -> set[Value]:
        """Values of options with which an extractor failed whenever it had them, as pool=token of one without tokens.

        Not those beside a backend, whose index may need more images than a part has.
        """
        failed: set[Value] = set()
        worked: set[Value] = set()
        for (name, _), one in self._known.items():
            method = parse_method(name)
            if one.score is not None:
                worked |= values_of(method)
            elif method.backend is None:
                failed |= values_of(method)
        return failed - worked

    @property
    def _done(self) -> list[Tried]:
        last = self._parts - 1
        done = [one for (_, part), one in self._known.items() if part == last and one.score is not None]
        return sorted(done, key=lambda one: (-(one.score or 0.0), one.p95_ms or 0.0, one.method))

    def better_than(self, parent: Method, among: Sequence[Method]) -> list[Method]:
        """Those that did better than a method where both were tried on as much, the best first."""
        found = []
        for one in among:
            for part in reversed(range(self._parts)):
                own, other = self.get(str(one), part), self.get(str(parent), part)
                if own is not None and other is not None:
                    if own.score is not None and other.score is not None and own.score > other.score:
                        found.append((other.score - own.score, str(one), one))
                    break
        return [one for _, _, one in sorted(found, key=lambda item: item[:2])]


Try = Callable[[Method, int], Tried]
"""(method, part) -> what became of it; it raises nothing that a method does."""


def search(
    start: Sequence[Method], parts: int, board: TrialBoard, try_one: Try, setup: Setup, left: Callable[[], float]
) -> None:
    """Try methods until the time is over or nothing is left to try; what is found is on the board.

    Args:
        start: the first wave.
        parts: how many parts of the data there are.
        board: it may hold trials already; none of them is done again.
        try_one: called in this thread.
        setup: what methods are built with.
        left: seconds that are left.
    """
    random = np.random.default_rng(setup.seed)
    wave = list(start)
    while wave and left() > 0:
        _halved(wave, parts, board, try_one, left)
        wave = list(islice(_next(board, setup, random), WAVE))


def _halved(wave: Sequence[Method], parts: int, board: TrialBoard, try_one: Try, left: Callable[[], float]) -> None:
    alive = list(wave)
    for part in range(parts):
        scored: list[tuple[float, int, Method]] = []
        unknown: list[Method] = []
        for place, method in enumerate(alive):
            tried = board.get(str(method), part)
            if tried is None:
                before = board.get(str(method), part - 1) if part else None
                if left() <= 0 or (before is not None and before.seconds > left()):
                    continue
                tried = try_one(method, part)
                board.add(tried)
            if tried.score is not None:
                scored.append((-tried.score, place, method))
            elif method.backend is not None:
                # Its index may need more images than this part has. Nothing else does: train is the same in all parts.
                unknown.append(method)
        keep = len(scored) if part + 1 == parts else max(2, -(-len(scored) // 2))
        alive = [method for _, _, method in sorted(scored, key=lambda item: item[:2])[:keep]] + unknown


def _next(board: TrialBoard, setup: Setup, random: np.random.Generator) -> Iterator[Method]:
    """What was not tried yet: what is promising first."""
    seen: set[str] = set()
    unfit = board.unfit

    def new(method: Method) -> bool:
        text = str(method)
        if text in seen or board.knows(text) or values_of(method) & unfit:
            return False
        seen.add(text)
        return usable(method, setup, refuse_wrong_options)

    best = [parse_method(one.method) for one in board.whole]
    first_of_family: dict[str, Method] = {}
    for one, method in zip(board.whole, best, strict=True):
        first_of_family.setdefault(one.family, method)
    alone = [method for method in first_of_family.values() if len(method.members) == 1]
    # What would be the best, were it cheaper, may be made so.
    dear = [parse_method(one.method) for one in board.over[:1]]
    parents = [*dear, *best[:PARENTS], *alone]
    changes = {str(parent): list(changes_of(parent)) for parent in parents}
    sizes = {str(parent): list(sizes_of(parent)) for parent in parents}
    for parent in parents:
        if better := board.better_than(parent, [*changes[str(parent)], *sizes[str(parent)]]):
            yield from filter(new, [together_of(parent, better)])
    yield from islice(filter(new, joins_of([*alone[:PARENTS], *best[:1]])), WAVE // 2)
    for parent in dear:
        own = [*changes[str(parent)], *sizes[str(parent)]]
        yield from islice(filter(new, [own[place] for place in random.permutation(len(own)).tolist()]), WAVE // 2)
    for own in (*(changes[str(parent)] for parent in best[:PARENTS]), *(sizes[str(parent)] for parent in best[:1])):
        yield from filter(new, [own[place] for place in random.permutation(len(own)).tolist()])


def indistinguishable(whole: Sequence[Tried], labels: np.ndarray, metric: str, seed: int) -> list[Tried]:
    """The best and all that no test tells from it: sign flips by label, corrected by Holm for every pair asked.

    Args:
        whole: trials on all of the data, the best first.
        labels: (q,) of the queries.
        metric: one of `uncertainty.COMPARED`.
        seed: of the test.
    """
    values = {one.method: {metric: np.array(one.values)} for one in whole}
    how = statistics(labels, seed)
    found = comparisons(values, labels, how, (metric,))
    if metric not in found:
        return list(whole[:1])
    different = {frozenset((pair.first, pair.second)) for pair in found[metric].pairs if pair.p_holm <= 1 - how.level}
    return [one for one in whole if frozenset((one.method, whole[0].method)) not in different]


def clock(seconds: float, spent: float) -> Callable[[], float]:
    """Seconds that are left of a budget of which some were spent before."""
    started = time.monotonic()
    return lambda: seconds - spent - (time.monotonic() - started)
