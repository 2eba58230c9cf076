"""One queue of queries that wait to be described, with a bound; whoever is free takes all that waits for a method.

While one batch is described, more requests arrive; the next batch is formed of these. So batches grow with the load,
and a lone request waits for nobody: its own thread describes it, which spares two changes of threads. Row i of a batch
is what the picture gets alone: that is what extractors promise.
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
from retrieval_bench.serving.requests.errors import QueueFull

log = logging.getLogger("retrieval_bench")

LARGEST_BATCH = 16
"""Pictures that a worker takes at once, unless the method names fewer."""


class DescribesPictures(Protocol):
    """A method as the queue sees it."""

    def features(self, pictures: Sequence[np.ndarray | None], texts: Sequence[str]) -> list[np.ndarray]:
        """What each part makes of these queries; None: one without a picture."""

    def rows(self, features: Sequence[np.ndarray]) -> Rows:
        """What is searched for, from the features of each part."""


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
    picture: np.ndarray | None
    text: str
    arrived: float = field(default_factory=time.perf_counter)
    answer: Future[DescribedQuery] = field(default_factory=Future)


class ExtractionQueue:
    """The queue, its workers, and the threads of requests, which work along.

    Args:
        workers: batches that are described at once; so many threads stay, too.
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
        self._workers = self._free = workers
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

    def describe(
        self,
        methods: Sequence[DescribesPictures],
        pictures: Sequence[np.ndarray | None],
        timeout: float,
        text: str = "",
    ) -> list[DescribedQuery]:
        """Have a query described by several methods: by all of them, or by none where too much waits.

        Args:
            methods: which.
            pictures: (h, w, 3) uint8 RGB, the picture as each of them wants it; None: there is none.
            timeout: seconds that this may take.
            text: of the query; "" where it has none.

        Returns:
            What is known of it, by each method.

        Raises:
            QueueFull: The bound would be passed.
            TimeoutError: It took longer.
            Exception: What a method raised.
        """
        units = [_Unit(method, picture, text) for method, picture in zip(methods, pictures, strict=True)]
        with self._changed:
            if self._closed:
                raise QueueFull(1)
            if self._waiting and len(self._waiting) + len(units) > self.bound:
                raise QueueFull(self.retry_after())
            self._waiting.extend(units)
            if self._linger_s:
                self._changed.notify_all()  # who lingers looks whether the batch is full
            else:
                self._changed.notify(len(units) - 1)
        for unit in units:
            while not unit.answer.done() and (batch := self._take(wait=False)):
                self._run(batch)
        return [unit.answer.result(timeout=timeout) for unit in units]

    def retry_after(self) -> int:
        """Whole seconds until what waits now is likely to be done."""
        return max(1, round(len(self._waiting) * self._seconds_each / self._workers))

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
            thread.join(timeout=1)

    def _work(self) -> None:
        while (batch := self._take(wait=True)) is not None:
            self._run(batch)

    def _run(self, batch: list[_Unit]) -> None:
        """Describe a batch that was taken."""
        if (numba := sys.modules.get("numba")) is not None:
            numba.set_num_threads(1)  # which numba keeps for each thread
        began = time.perf_counter()
        try:
            self._describe(batch)
        finally:
            spent = time.perf_counter() - began
            self._observe(len(batch))
            with self._changed:
                self._free += 1
                self._seconds_each += 0.1 * (spent / len(batch) - self._seconds_each)
                if self._waiting:
                    self._changed.notify()

    def _take(self, wait: bool) -> list[_Unit] | None:
        """The oldest unit, and others for its method: a fair share of them if others are free to work, too.

        wait: for something to do; else None where there is nothing, or nobody may begin more. None at the end.
        """
        with self._changed:
            while not self._waiting or not self._free:
                if self._closed or not wait:
                    return None
                self._changed.wait()
            if self._linger_s:
                self._linger()
                if not self._waiting or not self._free:  # others were quicker
                    return self._take(wait)
            method = self._waiting[0].method
            same = [unit for unit in self._waiting if unit.method is method]
            most = min(LARGEST_BATCH, getattr(method, "chunk", LARGEST_BATCH), -(-len(same) // self._free))
            batch = same[:most]
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
            method = batch[0].method
            features = method.features([unit.picture for unit in batch], [unit.text for unit in batch])
            # One by one: a join that multiplies matrices rounds by how many rows there are.
            rows = [method.rows([array[place : place + 1] for array in features]) for place in range(len(batch))]
        except Exception as error:
            if len(batch) > 1:  # one of them is the reason: the others are served
                for unit in batch:
                    self._describe([unit])
                return
            log.debug("a picture could not be described", exc_info=True)
            batch[0].answer.set_exception(error)
            return
        spent_ms = (time.perf_counter() - began) * 1e3
        for place, unit in enumerate(batch):
            waited_ms = (began - unit.arrived) * 1e3
            unit.answer.set_result(DescribedQuery(rows[place], waited_ms, spent_ms, len(batch)))
