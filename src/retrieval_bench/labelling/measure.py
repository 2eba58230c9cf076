"""What half the work is worth, measured on data whose labels are all known: some are kept, and the rest is hidden.

By hand, a person types each label into a field that completes it: as many letters as it takes until the right label
is the first that is offered, and Enter. With proposals, what is sure is accepted by one press for all of it; of the
rest, a right first proposal is one press (Enter), another right candidate is one press (its digit), and everything else
is typed as by hand. What is accepted and wrong is not counted as a press: nobody sees it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Distance
from retrieval_bench.labelling.confidence import confidence_of
from retrieval_bench.labelling.pool import LabelPool, with_few_known
from retrieval_bench.labelling.spreading import NeighbourGraph, graph_of, spread
from retrieval_bench.labelling.suspects import suspects
from retrieval_bench.system.progress import Progress, silent

PLANTED = 0.05
"""Share of the known labels that are made wrong to see whether they are found."""


@dataclass(frozen=True)
class LabellingTrial:
    """One drawing of known labels.

    Args:
        seed: of the drawing.
        known: images with a label.
        hidden: images without one.
        new: share of these that show a product without any label.
        new_share: the same as it was estimated.
        forced: share of hidden images whose first candidate is right.
        accepted: share of hidden images that were accepted without a person.
        right: share of the accepted that are right; NaN where none was.
        taken_new: accepted images that show a new product, as a share of the hidden.
        by_hand: presses to label all hidden images by hand.
        presses: presses with proposals.
    """

    seed: int
    known: int
    hidden: int
    new: float
    new_share: float
    forced: float
    accepted: float
    right: float
    taken_new: float
    by_hand: int
    presses: int

    @property
    def saved(self) -> float:
        """Share of the presses that is saved."""
        return 1 - self.presses / self.by_hand if self.by_hand else 0.0


@dataclass(frozen=True)
class PlantedErrors:
    """Wrong labels that were planted, and what was said of them. precision: NaN where nothing was found."""

    seed: int
    labels: int
    planted: int
    found: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        return self.right / self.planted if self.planted else math.nan


def graph_for(pool: LabelPool, features: np.ndarray, distance: Distance, threads: int) -> NeighbourGraph:
    """The graph that all trials share. Raises BenchError where the labels of the pool are not all known."""
    if (pool.known < 0).any():
        raise BenchError(
            f"--measure hides labels that are known, and {int((pool.known < 0).sum()):,} of {len(pool):,} images have "
            "none; measure on data whose images are all labelled"
        )
    if len(np.unique(pool.known)) < 2:
        raise BenchError("--measure needs images of at least two labels")
    return graph_of(features, distance, threads)


def trials(
    pool: LabelPool,
    graph: NeighbourGraph,
    known: int,
    seeds: Sequence[int],
    target: float,
    new: float = 0.0,
    progress: Progress = silent,
) -> list[LabellingTrial]:
    """Hide labels, propose, and compare.

    Args:
        pool: images that all have a label.
        graph: of these.
        known: labels that stay known of each product.
        seeds: one trial for each.
        target: share of accepted proposals that should be right.
        new: share of the hidden images whose product has no label at all, about.
        progress: called after each.
    """
    effort = typing_effort(pool.label_names)[pool.known]
    done: list[LabellingTrial] = []
    for seed in seeds:
        progress("measuring", len(done), len(seeds))
        few = with_few_known(pool, known, seed, _without(pool, known, new, seed))
        arrived = spread(graph, few.known)
        sure = confidence_of(graph, few.known, arrived, target)
        hidden = few.known < 0
        if not hidden.any():
            raise BenchError(f"--known {known}: every image has its label then; hide more with a smaller number")
        right = arrived.labels[:, 0] == pool.known
        among = (arrived.labels[:, 1:] == pool.known[:, None]).any(axis=1)
        at = math.inf if sure.threshold is None else sure.threshold
        taken = hidden & (sure.sure >= at) & (arrived.labels[:, 0] >= 0)
        is_new = hidden & ~np.isin(pool.known, few.known[few.known >= 0])
        asked = hidden & ~taken
        presses = int(np.where(right | among, 1, effort)[asked].sum()) + int(taken.any())
        done.append(
            LabellingTrial(
                seed=seed,
                known=int((~hidden).sum()),
                hidden=int(hidden.sum()),
                new=float(is_new.sum() / hidden.sum()),
                new_share=sure.new_share,
                forced=float(right[hidden].mean()),
                accepted=float(taken.sum() / hidden.sum()),
                right=float(right[taken].mean()) if taken.any() else math.nan,
                taken_new=float((taken & is_new).sum() / hidden.sum()),
                by_hand=int(effort[hidden].sum()),
                presses=presses,
            )
        )
    return done


def planted(
    pool: LabelPool, graph: NeighbourGraph, known: int | None, seeds: Iterable[int], share: float = PLANTED
) -> list[PlantedErrors]:
    """Make some known labels wrong, and look for them. known: labels of each product; None: all."""
    done = []
    for seed in seeds:
        few = pool if known is None else with_few_known(pool, known, seed)
        random = np.random.default_rng([seed, 1])
        labels = few.known.copy()
        rows = np.flatnonzero(labels >= 0)
        names = np.unique(labels[rows])
        wrong = random.permutation(rows)[: max(1, round(share * len(rows)))]
        places = np.searchsorted(names, labels[wrong])
        labels[wrong] = names[(places + random.integers(1, len(names), len(wrong))) % len(names)]
        found = suspects(labels, spread(graph, labels))
        done.append(PlantedErrors(seed, len(rows), len(wrong), len(found), int(np.isin(found, wrong).sum())))
    return done


def typing_effort(names: Sequence[str]) -> np.ndarray:
    """(n,) presses to enter each label into a field that completes it: letters, and Enter.

    Labels are offered in alphabetical order, so a label comes first as soon as no earlier one begins as it does; what
    is typed whole is that label.
    """
    order = sorted(range(len(names)), key=lambda number: (names[number].casefold(), number))
    effort = np.empty(len(names), np.int64)
    before = ""
    for number in order:
        name = names[number].casefold()
        common = next(
            (at for at, (a, b) in enumerate(zip(name, before, strict=False)) if a != b), min(len(name), len(before))
        )
        effort[number] = min(common + 1, max(len(name), 1)) + 1
        before = name
    return effort


def _without(pool: LabelPool, known: int, new: float, seed: int) -> list[int]:
    """Products whose labels are all hidden, until about `new` of the hidden images show one of them."""
    if not new:
        return []
    counts = np.bincount(pool.known)
    hidden = int(np.maximum(counts - known, 0).sum())
    chosen: list[int] = []
    lacking = 0
    for label in np.random.default_rng([seed, 2]).permutation(np.flatnonzero(counts)).tolist():
        shown = min(known, int(counts[label]))
        if lacking >= new * hidden or len(chosen) + 2 >= len(np.unique(pool.known)):
            break
        chosen.append(label)
        lacking += int(counts[label])
        hidden += shown
    return chosen
