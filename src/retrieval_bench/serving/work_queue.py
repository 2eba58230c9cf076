"""One queue of pictures that wait to be described, with a bound; whoever is free takes all that waits for a method.

While one worker describes, more requests arrive; the next batch is formed of these. So batches grow with the load, and
a lone request waits for nobody. Row i of a batch is what the picture gets alone: that is what extractors promise.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from retrieval_bench.core import Rows

log = logging.getLogger("retrieval_bench")

LARGEST_BATCH = 16
"""Pictures that a worker takes at once, unless the method names fewer."""


class DescribesPictures(Protocol):
    """A method as the queue sees it."""

    def describe(self, pictures: Sequence[np.ndarray]) -> Rows:
        """Rows of these pictures, as queries."""


class QueueFull(Exception):
    """More waits than the bound allows. retry_after: seconds after which to ask again."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the service is busy; ask again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, eq=False)
class DescribedQuery:
    """rows: of the one picture. waited_ms: in the queue. extract_ms: of the batch. together: pictures in the batch."""

    rows: Rows
    waited_ms: float
    extract_ms: float
    together: int


@dataclass(eq=False)
class _Unit:
    method: DescribesPictures
    picture: np.ndarray
    arrived: float = field(default_factory=time.perf_counter)
    answer: Future[DescribedQuery] = field(default_factory=Future)


class ExtractionQueue:
    """The queue and its workers.

    Args:
        workers: threads that describe, each a batch at a time.
        bound: units (a picture for a method) that may wait.
        linger_s: how long a worker waits for more to come before it begins, at most; for a GPU, which describes two
            pictures in the time of one. On a CPU a batch gains nothing, and 0 is best.
        observe: called with the size of each batch.
    """

    def __init__(
        self, workers: int, bound: int, linger_s: float = 0.0, observe: Callable[[int], None] = lambda size: None
    ) -> None:
        self.bound, self._linger_s, self._observe = bound, linger_s, observe
        self._waiting: deque[_Unit] = deque()
        self._changed = threading.Condition()
        self._free = workers
        self._closed = False
        self._seconds_each = 0.05  # a first guess at what a unit takes, corrected by every batch
        self._threads = [
            threading.Thread(target=self._work, name=f"extraction-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Units that nobody has taken yet."""
        return len(self._waiting)

    def submit(
        self, methods: Sequence[DescribesPictures], pictures: Sequence[np.ndarray]
    ) -> list[Future[DescribedQuery]]:
        """Have a picture described by several methods: by all of them, or by none where too much waits.

        Args:
            methods: which.
            pictures: (h, w, 3) uint8 RGB, the picture as each of them wants it.

        Returns:
            What will be known of it, a future for each method.

        Raises:
            QueueFull: The bound would be passed.
        """
        units = [_Unit(method, picture) for method, picture in zip(methods, pictures, strict=True)]
        with self._changed:
            if self._closed:
                raise QueueFull(1)
            if self._waiting and len(self._waiting) + len(units) > self.bound:
                raise QueueFull(self.retry_after())
            self._waiting.extend(units)
            self._changed.notify(len(units))
        return [unit.answer for unit in units]

    def retry_after(self) -> int:
        """Whole seconds until what waits now is likely to be done."""
        return max(1, round(len(self._waiting) * self._seconds_each / len(self._threads)))

    def close(self) -> None:
        """Answer what waits with an error, and end the workers after the batches that they have."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for unit in left:
            unit.answer.set_exception(QueueFull(1))
        for thread in self._threads:
            thread.join(timeout=10)

    def _work(self) -> None:
        if (numba := sys.modules.get("numba")) is not None:
            numba.set_num_threads(1)  # which numba keeps for each thread
        while (batch := self._take()) is not None:
            began = time.perf_counter()
            self._describe(batch)
            spent = time.perf_counter() - began
            self._observe(len(batch))
            with self._changed:
                self._free += 1
                self._seconds_each += 0.1 * (spent / len(batch) - self._seconds_each)

    def _take(self) -> list[_Unit] | None:
        """The oldest unit, and others for its method: a fair share of them if other workers are free, too."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            if self._linger_s:
                self._linger()
                if not self._waiting:
                    return [] if not self._closed else None
            method = self._waiting[0].method
            same = [unit for unit in self._waiting if unit.method is method]
            most = min(LARGEST_BATCH, getattr(method, "chunk", LARGEST_BATCH), -(-len(same) // max(1, self._free)))
            batch = same[: max(1, most)]
            taken = set(map(id, batch))
            self._waiting = deque(unit for unit in self._waiting if id(unit) not in taken)
            self._free -= 1
            return batch

    def _linger(self) -> None:
        """Wait for more, until the oldest has waited as long as anybody may."""
        while self._waiting and not self._closed:
            left = self._waiting[0].arrived + self._linger_s - time.perf_counter()
            if left <= 0 or len(self._waiting) >= LARGEST_BATCH:
                return
            self._changed.wait(left)

    def _describe(self, batch: list[_Unit]) -> None:
        began = time.perf_counter()
        try:
            rows = batch[0].method.describe([unit.picture for unit in batch]) if batch else None
        except Exception as error:
            if len(batch) > 1:  # one of them is the reason: the others are served
                for unit in batch:
                    self._describe([unit])
                return
            log.debug("a picture could not be described", exc_info=True)
            batch[0].answer.set_exception(error)
            return
        done = time.perf_counter()
        for place, unit in enumerate(batch):
            assert rows is not None
            unit.answer.set_result(
                DescribedQuery(rows[place : place + 1], (began - unit.arrived) * 1e3, (done - began) * 1e3, len(batch))
            )
