"""The contract of an extractor, checked clause by clause on a few drawn pictures, or texts: `check("sift:words=64")`.

`core.Extractor` states the contract. Where a method is more than one extractor, `contracts.search` checks its search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from retrieval_bench.contracts.clauses import BrokenClause, ClauseVerdict, NotApplicable, verdicts
from retrieval_bench.contracts.pictures import drawn
from retrieval_bench.contracts.search import check_search
from retrieval_bench.contracts.texts import written
from retrieval_bench.core import DISTANCES, Extractor, Setup, Split
from retrieval_bench.experiment.extraction import checked
from retrieval_bench.methods.modalities import TEXT
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.registry import Spec, fill
from retrieval_bench.system.timing import pinned

THREADS = 4
OTHER_THREADS = 2
GPU_TOLERANCE = 1e-3
"""Of the largest number, for networks on a GPU, whose sums depend on the batch. Everywhere else every bit is equal."""


def check(method: str, setup: Setup | None = None) -> tuple[ClauseVerdict, ...]:
    """Check each extractor of a method, and its search where that is more: a join, steps or a backend of its own.

    Args:
        method: what one writes behind --methods: "sift:words=64", "color@trim".
        setup: seed, weights, device. None: as by default.

    Returns:
        One verdict a clause: extractor by extractor, then the search.

    Raises:
        BenchError: No method is called so, or an option is wrong.
    """
    fill()
    setup = setup or Setup()
    found: list[ClauseVerdict] = []
    with pinned(1):  # as a run has it: one thread a library, images are the unit of parallel work
        asked = parse_method(method)
        for spec in asked.members:
            found += _verdicts(Case(spec, setup, *(written() if spec.modalities == (TEXT,) else drawn())))
        if not asked.plain or asked.backend is not None:
            found += check_search(asked, setup)
    return tuple(found)


class Case:
    """One extractor and what it is checked on: pictures, or texts. train, other: two sets of items to learn from."""

    def __init__(self, spec: Spec, setup: Setup, pictures: list[Any], train: Split, other: Split) -> None:
        self.spec, self.setup, self._pictures, self.train, self.other = spec, setup, pictures, train, other
        self.describes = "transform" if isinstance(pictures[0], np.ndarray) else "transform_texts"

    @property
    def pictures(self) -> list[Any]:
        """Copies, so that no clause sees what another has written into them."""
        return [copy(picture) for picture in self._pictures]

    def items(self, split: Split) -> list[Any]:
        """The pictures, or the texts, of a split."""
        return [split.images[row] for row in range(len(split))] if split.texts is None else list(split.texts)

    @cached_property
    def fitted(self) -> Extractor:
        """Built, and fitted on train."""
        return self.fresh()

    @cached_property
    def features(self) -> np.ndarray:
        """What the fitted extractor makes of the pictures, all at once."""
        return self.described(self.fitted)

    def fresh(self, train: Split | None = None, **changes: Any) -> Extractor:
        """Another one, fitted. changes: of the setup."""
        extractor: Extractor = self.spec.build(replace(self.setup, **changes))
        extractor.fit(self.train if train is None else train)
        return extractor

    def described(self, extractor: Extractor, rows: Sequence[int] | None = None) -> np.ndarray:
        """Features of all pictures, or of these."""
        pictures = self.pictures
        wanted = pictures if rows is None else [pictures[row] for row in rows]
        _describes_pictures(extractor)
        features = getattr(extractor, self.describes)(wanted)
        if not isinstance(features, np.ndarray):
            raise BrokenClause(f"{self.describes} returns a {type(features).__name__} and no numpy array")
        return features

    def compare(self, again: np.ndarray, what: str, rows: Sequence[int] | None = None) -> None:
        """BrokenClause where these features, of all pictures or of these, are not those of before."""
        before = self.features if rows is None else self.features[rows]
        if again.shape != before.shape or again.dtype != before.dtype:
            raise BrokenClause(f"{what}: {again.dtype} {again.shape}, before {before.dtype} {before.shape}")
        if np.array_equal(again, before, equal_nan=again.dtype.kind == "f"):
            return
        away = np.abs(again.astype(np.float64) - before.astype(np.float64))
        if self.rounds and away.max() <= GPU_TOLERANCE * np.abs(before.astype(np.float64)).max():
            return
        differ = int((away.reshape(len(away), -1).max(axis=1) > 0).sum())
        raise BrokenClause(f"{what}: {differ} of {len(again)} rows are others, by up to {away.max():.3g}")

    @property
    def rounds(self) -> bool:
        """Its numbers depend on the batch in their last digits."""
        return self.setup.device != "cpu" and self.spec.entry.family == "deep"

    @property
    def equal(self) -> str:
        return f"equal within {GPU_TOLERANCE:g} of the largest number" if self.rounds else "every bit is equal"


def _describes_pictures(extractor: Extractor) -> None:
    if hasattr(extractor, "transform_split"):
        raise NotApplicable("it sees the labels and describes no picture: a control")
    if hasattr(extractor, "describe_split"):
        raise NotApplicable("it reads a file and describes no picture")


def _builds(case: Case) -> str:
    extractor = case.spec.build(case.setup)
    for name in ("distance", "fit", case.describes):
        if not hasattr(extractor, name):
            raise BrokenClause(f"{type(extractor).__name__} has no {name}")
    if extractor.distance not in DISTANCES:
        raise BrokenClause(f"distance is {extractor.distance!r} and not one of {', '.join(DISTANCES)}")
    return f"compared by {extractor.distance}"


def _fits(case: Case) -> str:
    labels = case.train.labels.copy()
    extractor: Extractor = case.spec.build(case.setup)
    returned = extractor.fit(case.train)
    case.fitted = extractor
    if not np.array_equal(labels, case.train.labels):
        case.train.labels[:] = labels
        raise BrokenClause("fit writes into the labels of train")
    if returned is not extractor:
        raise BrokenClause("fit does not return the extractor itself")
    learned = _learned(case.fitted)
    for name, value in learned.items():
        if not isinstance(value, np.ndarray):
            raise BrokenClause(f"learned names {name}, which is no numpy array: the cache cannot keep it")
    return f"learned {', '.join(learned)}" if learned else "nothing to learn"


def _shapes(case: Case) -> str:
    _in_shape(case.features, len(case.features), case)
    if len(case.features) != len(case.pictures):
        raise BrokenClause(f"{len(case.features)} rows for {len(case.pictures)} images")
    for row in range(len(case.pictures)):
        alone = case.described(case.fitted, [row])
        _in_shape(alone, 1, case)
        if alone.shape[1] != case.features.shape[1]:
            raise BrokenClause(
                f"{alone.shape[1]} numbers for {_shown(case.pictures[row])}, else {case.features.shape[1]}"
            )
    return f"{case.features.dtype} (n, {case.features.shape[1]})"


def _shown(item: Any) -> str:
    if isinstance(item, np.ndarray):
        return f"a picture of {'x'.join(map(str, item.shape[:2]))}"
    return f"the text {item[:20]!r}"


def _in_shape(features: np.ndarray, n: int, case: Case) -> None:
    if getattr(case.fitted, "lexical", False):
        if features.shape != (n, 1) or features.dtype != object:
            raise BrokenClause(f"{features.dtype} {features.shape}, where words are kept as objects, ({n}, 1)")
        return
    finite = features if features.dtype.kind != "f" else np.nan_to_num(features)  # a clause of its own
    try:
        checked(finite, n, case.fitted.distance)
    except ValueError as error:
        raise BrokenClause(str(error)) from None


def _finite(case: Case) -> str:
    if case.features.dtype == object:
        raise NotApplicable("it keeps words and no numbers")
    bad = np.flatnonzero(~np.isfinite(case.features).all(axis=tuple(range(1, case.features.ndim))))
    if len(bad):
        one = _shown(case.pictures[int(bad[0])])
        raise BrokenClause(f"NaN or infinite for {len(bad)} of them, one of {one}; give a row of zeros")
    blank = int((~case.features.astype(bool).any(axis=1)).sum())
    return f"{blank} of {len(case.features)} rows are zeros" if blank else ""


def _order_independent(case: Case) -> str:
    backwards = list(reversed(range(len(case.pictures))))
    case.compare(case.described(case.fitted, backwards), "in reverse order", backwards)
    for row in range(len(case.pictures)):
        case.compare(case.described(case.fitted, [row]), "alone", [row])
    return f"alone, in reverse and all at once: {case.equal}"


def _repeatable(case: Case) -> str:
    case.compare(case.described(case.fitted), "described again")
    case.compare(case.described(case.fresh(threads=OTHER_THREADS)), f"built and fitted again, {OTHER_THREADS} threads")
    return "described, built and fitted again, with another number of threads"


def _thread_safe(case: Case) -> str:
    n = len(case.pictures)
    turns = [[(start + row) % n for row in range(n)] for start in range(0, THREADS * 3, 3)]
    with ThreadPoolExecutor(THREADS) as pool:
        for rows, found in zip(turns, pool.map(lambda rows: case.described(case.fitted, rows), turns), strict=True):
            case.compare(found, f"beside {THREADS - 1} other threads", rows)
    return f"{THREADS} threads at once: {case.equal}"


def _input_untouched(case: Case) -> str:
    given, before = case.pictures, case.pictures
    _describes_pictures(case.fitted)
    getattr(case.fitted, case.describes)(given)
    changed = [row for row, picture in enumerate(given) if not np.array_equal(picture, before[row])]
    if changed:
        raise BrokenClause(f"{len(changed)} of {len(given)} pictures were changed; the next method would see that")
    return ""


def _train_only(case: Case) -> str:
    extractor = case.fitted
    learned = {name: np.array(value) for name, value in _learned(extractor).items()}
    _describes_pictures(extractor)
    getattr(extractor, case.describes)(case.items(case.other))
    for name, value in _learned(extractor).items():
        if not np.array_equal(value, learned[name]):
            raise BrokenClause(f"transform changes {name}, which is learned")
    case.compare(case.described(extractor), "after other pictures were described")
    if not learned:
        case.compare(case.described(case.fresh(case.other)), "fitted on other images, though `learned` names nothing")
    return "no trace of what was described before"


def _restorable(case: Case) -> str:
    learned = _learned(case.fitted)
    if not learned:
        raise NotApplicable("nothing to learn")
    restored: Extractor = case.spec.build(case.setup)
    for name, value in learned.items():
        setattr(restored, name, np.array(value))
    case.compare(case.described(restored), f"with {', '.join(learned)} from the cache")
    return "`learned` names all that fit leaves behind"


def _learned(extractor: Extractor) -> dict[str, Any]:
    return {name: getattr(extractor, name) for name in getattr(extractor, "learned", ())}


CLAUSES: dict[str, Callable[[Case], str]] = {
    "builds": _builds,
    "fits": _fits,
    "shapes": _shapes,
    "finite": _finite,
    "order-independent": _order_independent,
    "repeatable": _repeatable,
    "thread-safe": _thread_safe,
    "leaves its input alone": _input_untouched,
    "learns from train only": _train_only,
    "restorable": _restorable,
}
"""Clause -> what checks it: a detail where it is kept, BrokenClause where it is not."""
FIRST = ("builds", "fits")
"""Without these nothing else can be reached."""


def _verdicts(case: Case) -> list[ClauseVerdict]:
    return verdicts(str(case.spec), CLAUSES, case, FIRST)
