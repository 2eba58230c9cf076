"""Labelling as it goes on: what is known by now, what is proposed for the rest, which image comes next."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import BenchError, Distance, printable
from retrieval_bench.labelling.confidence import Confidence, confidence_of
from retrieval_bench.labelling.decisions import MOST_LABEL, DecidedImage, Decision, DecisionLog, Deed
from retrieval_bench.labelling.order import by_usefulness
from retrieval_bench.labelling.pool import LabelPool
from retrieval_bench.labelling.spreading import NeighbourGraph, Spread, graph_of, spread
from retrieval_bench.labelling.suspects import suspects

RENEW_AFTER = 10
"""Decisions of a person, after which labels spread anew; more of them where that takes long."""
EVIDENCE = 6
"""Neighbours shown beside a proposal."""


@dataclass(frozen=True)
class LabelCandidate:
    """A label that may be right. share: its part of all that arrives, 0 to 1."""

    label: str
    share: float


@dataclass(frozen=True)
class Proposal:
    """What is proposed for one image.

    Args:
        row: of the image.
        id: its id.
        candidates: labels, the likeliest first; none where nothing arrives.
        sure: the probability that the first is right.
        confident: it may be accepted without a person.
        evidence: rows of the nearest images with a label, nearest first, those with the first candidate before others.
        given: the label that it has and that is likely to be wrong; "" where it has none.
    """

    row: int
    id: str
    candidates: tuple[LabelCandidate, ...]
    sure: float
    confident: bool
    evidence: tuple[int, ...]
    given: str = ""


@dataclass(frozen=True)
class Standing:
    """Counts: images in all, with a label by who gave it, without one, and what may be accepted or is suspect."""

    images: int
    given: int
    person: int
    machine: int
    nothing: int
    skipped: int
    open: int
    confident: int
    suspects: int


class LabellingSession:
    """Several threads may call it.

    Args:
        pool: images, some with a label.
        features: (n, ...) of them.
        distance: how these are compared.
        log: of the decisions so far, and to come.
        target: the share of accepted proposals that should be right.
        threads: to search on.
    """

    def __init__(
        self,
        pool: LabelPool,
        features: np.ndarray,
        distance: Distance,
        log: DecisionLog,
        target: float,
        threads: int = 1,
    ) -> None:
        self.pool, self.log, self.target = pool, log, target
        self._features, self._distance = features, distance
        self.graph: NeighbourGraph = graph_of(features, distance, threads)
        self._row_of = {item: row for row, item in enumerate(pool.ids)}
        _check_log(log, self._row_of)
        self._lock = threading.RLock()
        self._first: list[int] = []  # what was taken back is decided anew at once
        self._since = 0
        self._replay()
        self._renew()

    @property
    def confidence(self) -> Confidence:
        """How sure the proposals are, as of the last time that labels spread."""
        return self._confidence

    @property
    def suspicious(self) -> list[int]:
        """Rows whose given label is likely to be wrong, and that nobody has looked at."""
        with self._lock:
            return [row for row in self._suspects if self.by[row] == "given" and row not in self._kept]

    def known(self) -> np.ndarray:
        """(n,) int64, the label of each image by now; -1 without one."""
        with self._lock:
            return self._known.copy()

    def names(self) -> list[str]:
        """All labels, those that a person has typed behind the others."""
        with self._lock:
            return list(self._names)

    def standing(self) -> Standing:
        """How far it has come."""
        with self._lock:
            count = {who: sum(one == who for one in self.by) for who in ("given", "person", "machine", "nothing")}
            return Standing(
                images=len(self.pool),
                **count,
                skipped=len(self._skipped),
                open=len(self._open()),
                confident=len(self.confident()),
                suspects=len(self.suspicious),
            )

    def confident(self) -> list[int]:
        """Rows whose proposal may be accepted without a person, the surest first."""
        with self._lock:
            at = self._confidence.threshold
            if at is None:
                return []
            sure = self._confidence.sure
            rows = [row for row in self._open() if sure[row] >= at and self._arrived.labels[row, 0] >= 0]
            return sorted(rows, key=lambda row: -sure[row])

    def next(self, of_suspects: bool = False) -> Proposal | None:
        """What to look at next; None: nothing is left."""
        with self._lock:
            if self._since >= self._renew_after:
                self._renew()
            if of_suspects:
                queue: Sequence[int] = self.suspicious
            else:
                left = set(self._open())
                queue = [row for row in (*self._first, *self._order, *sorted(self._skipped)) if row in left]
                fresh = [row for row in queue if row not in self._skipped]
                queue = fresh or queue
            return self.proposal(int(queue[0])) if queue else None

    def proposal(self, row: int) -> Proposal:
        """What is proposed for an image, whatever it has by now."""
        with self._lock:
            if not 0 <= row < len(self.pool):
                raise BenchError(f"there is no image {row}")
            labels, amounts = self._arrived.labels[row], self._arrived.amounts[row]
            total = max(float(self._arrived.total[row]), 1e-12)
            there = labels >= 0
            candidates = tuple(
                LabelCandidate(self._names[int(label)], float(amount) / total)
                for label, amount in zip(labels[there], amounts[there], strict=True)
            )
            at = self._confidence.threshold
            sure = float(self._confidence.sure[row])
            given = self._names[self._known[row]] if self.by[row] == "given" and self._known[row] >= 0 else ""
            confident = at is not None and sure >= at and bool(candidates)
            return Proposal(row, self.pool.ids[row], candidates, sure, confident, self._evidence(row), given)

    def label_of(self, row: int) -> str:
        """The label that an image has by now; "" without one."""
        with self._lock:
            return "" if self._known[row] < 0 else self._names[int(self._known[row])]

    def decide(self, item: str, do: Deed, label: str = "") -> Decision:
        """A person decides about one image.

        Args:
            item: its id.
            do: "label" with a label, "nothing", "keep" or "skip".
            label: what it shows.

        Raises:
            BenchError: There is no such image, or the label cannot be one.
        """
        with self._lock:
            row = self._row_of.get(item)
            if row is None:
                raise BenchError(f"there is no image {item!r} here; reload the page")
            label = " ".join(label.split())
            if do == "label":
                _check_label(label)
            proposal = self.proposal(row)
            first = proposal.candidates[0].label if proposal.candidates else ""
            one = DecidedImage(id=item, label=label if do == "label" else "", sure=round(proposal.sure, 4))
            decision = self.log.add(do, "person", (one,), first if do == "label" and label != first else "")
            self._apply(decision)
            self._since += 1
            return decision

    def accept_confident(self) -> int:
        """Accept all that is sure, as one decision of the machine; returns how many."""
        with self._lock:
            if self._since:
                self._renew()
            rows = self.confident()
            if not rows:
                return 0
            items = tuple(
                DecidedImage(
                    id=self.pool.ids[row],
                    label=self._names[int(self._arrived.labels[row, 0])],
                    sure=round(float(self._confidence.sure[row]), 4),
                )
                for row in rows
            )
            self._apply(self.log.add("label", "machine", items))
            return len(rows)

    def undo(self) -> Decision | None:
        """Take the last decision back; None where there is none. Its image, if it is one, comes next."""
        with self._lock:
            undone = self.log.undo()
            if undone is not None:
                self._replay()
                if len(undone.items) == 1:
                    self._first.insert(0, self._row_of[undone.items[0].id])
                self._since += 1
            return undone

    def _open(self) -> list[int]:
        return [row for row, who in enumerate(self.by) if who == ""]

    def _replay(self) -> None:
        """Everything that follows from what was given and from the decisions that hold."""
        self._names = list(self.pool.label_names)
        self._number = {name: number for number, name in enumerate(self._names)}
        self._known = self.pool.known.copy()
        self.by = ["given" if label >= 0 else "" for label in self._known.tolist()]
        self.sure: dict[int, float] = {}
        self._skipped: set[int] = set()
        self._kept: set[int] = set()
        for decision in self.log.holding():
            self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        for one in decision.items:
            row = self._row_of[one.id]
            self._first = [other for other in self._first if other != row]
            self._skipped.discard(row)
            if decision.do == "skip":
                self._skipped.add(row)
            elif decision.do == "keep":
                self._kept.add(row)
            elif decision.do == "nothing":
                self._known[row], self.by[row] = -1, "nothing"
            else:
                if one.label not in self._number:
                    self._number[one.label] = len(self._names)
                    self._names.append(one.label)
                self._known[row], self.by[row] = self._number[one.label], decision.by
                self.sure[row] = one.sure or 0.0

    def _renew(self) -> None:
        """Spread the labels anew. Those of the machine do not spread: its mistakes would confirm each other."""
        own = np.array([who == "machine" for who in self.by])
        known = np.where(own, -1, self._known)
        began = time.perf_counter()
        self._arrived: Spread = spread(self.graph, known)
        self._confidence = confidence_of(self.graph, known, self._arrived, self.target)
        self._suspects = suspects(known, self._arrived).tolist()
        closed = np.where([who != "" for who in self.by], np.maximum(self._known, 0), -1)
        self._order = by_usefulness(self._features, self._distance, closed, self._confidence.sure).tolist()
        self._since = 0
        self._renew_after = max(RENEW_AFTER, round(20 * (time.perf_counter() - began)))  # nobody waits half of the time

    def _evidence(self, row: int) -> tuple[int, ...]:
        """Neighbours with a label: those with the first candidate before the others, each nearest first."""
        first = int(self._arrived.labels[row, 0])
        near = [int(one) for one in self.graph.neighbours[row] if one >= 0]
        labelled = [one for one in near if self._known[one] >= 0 and self.by[one] != "machine"]
        agree = [one for one in labelled if self._known[one] == first]
        if not agree and first >= 0:  # it came by several steps
            agree = np.flatnonzero((self._known == first) & [who in ("given", "person") for who in self.by])[
                :2
            ].tolist()
        others = [one for one in labelled if self._known[one] != first]
        return tuple([*agree[: EVIDENCE - 1], *others][:EVIDENCE])


def _check_log(log: DecisionLog, known: Container[str]) -> None:
    for decision in log.decisions:
        for one in decision.items:
            if one.id not in known or (decision.do == "label" and not one.label):
                raise BenchError(
                    f"{printable(log.path)}: decision {decision.number} is of {one.id!r} with label {one.label!r}, "
                    "which cannot be; it was changed by hand, name another --log"
                )


def _check_label(label: str) -> None:
    if not label:
        raise BenchError("a label is missing; type one, or choose a candidate by its number")
    if len(label) > MOST_LABEL:
        raise BenchError(f"a label of {len(label)} characters is too long; at most {MOST_LABEL} are allowed")
    if "(distractor)" in label or "\x1f" in label or "\0" in label:
        raise BenchError("this label cannot be written; for an image that shows no product, press n")
