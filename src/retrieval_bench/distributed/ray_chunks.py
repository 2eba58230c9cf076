"""Images described by the workers of a crew, partition by partition.

Ray's own `map_batches` would need pandas and pyarrow on each machine, copies arrays into tables and back, and knows
nothing of partitions that are finished. These are actors that are there already: each has loaded the network once, and
takes the next partition when it is ready.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Extractor, Images
from retrieval_bench.distributed.engine import WorkerDescriber
from retrieval_bench.distributed.partitions import PartitionFiles, parted
from retrieval_bench.distributed.ray_crew import TRIES, Crew, Pending, WorkerLost, died
from retrieval_bench.images.decoded_cache import fresh
from retrieval_bench.images.reading import DecodedBy, ImageBytes, ImageFiles

log = logging.getLogger("retrieval_bench")

AHEAD = 2
"""Partitions that a worker has been given at a time: one that it works on, and the next."""


class RayChunks:
    """Takes the place of the threads of this process; see `engine.Chunks`.

    Args:
        crew: who describes.
        describer: what each loads its extractor by.
        files: the partitions that are finished.
    """

    def __init__(self, crew: Crew, describer: WorkerDescriber, files: PartitionFiles) -> None:
        self._crew, self._describer, self._files = crew, describer, files

    def __call__(
        self, extractor: Extractor, images: Images, rows: Sequence[int], threads: int
    ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        """(rows, features), those that are finished first.

        Raises:
            BenchError: A partition kills each worker that is given it; it is raised after all others are done.
        """
        images = fresh(images)
        waiting: deque[list[int]] = deque()
        for part in parted(rows):
            known = self._files.get([images.digest(row) for row in part])
            if known is None:
                waiting.append(part)
            else:
                yield part, known
        if not waiting:
            return
        crew, weights = self._crew, getattr(extractor, "weights", None)
        learned = {name: getattr(extractor, name) for name in getattr(extractor, "learned", ())}
        shared = crew.kept(learned) if learned else learned
        given: dict[int, deque[tuple[Pending, list[int]]]] = {place: deque() for place in range(crew.places)}
        deaths: Counter[int] = Counter()
        deadly: list[tuple[list[int], WorkerLost]] = []
        try:
            while waiting or any(given.values()):
                for place in sorted(given, key=lambda one: len(given[one])):
                    while waiting and len(given[place]) < AHEAD:
                        part = waiting.popleft()
                        request: tuple[Any, ...] = self._describer, in_memory(images, part), shared, weights
                        given[place].append((crew.submit(place, "describe", *request), part))
                asked = crew.first_of([one for tasks in given.values() for one, _ in tasks])
                tasks = given[asked.place]
                try:
                    features = crew.result(asked)
                except WorkerLost as lost:
                    first = tasks[0][1]  # those behind it were not begun
                    deaths[first[0]] += 1
                    log.info("a worker %s at %d images and is replaced (%s)", died(lost), len(first), lost)
                    waiting.extendleft(part for _, part in reversed(tasks))
                    tasks.clear()
                    if deaths[first[0]] == TRIES:
                        waiting.remove(first)
                        deadly.append((first, lost))
                    continue
                part = next(part for one, part in tasks if one is asked)
                given[asked.place] = deque(task for task in tasks if task[0] is not asked)
                self._files.put([images.digest(row) for row in part], features)
                yield part, features
        finally:
            crew.give_up([one for tasks in given.values() for one, _ in tasks])
        if deadly:
            part, last = deadly[0]
            others = f", and so at {len(deadly) - 1} other partitions" if len(deadly) > 1 else ""
            raise BenchError(
                f"{TRIES} workers {died(last)} one after the other at the {len(part)} images from row {part[0]} on"
                f"{others}; the features of all other images are kept"
            )


def in_memory(images: Images, rows: Sequence[int]) -> Images:
    """Some images as another machine can decode them: with their bytes, and the same way of decoding."""
    inner = images.images if isinstance(images, DecodedBy) else images
    if not isinstance(inner, ImageFiles | ImageBytes):
        return images.take(rows)
    encoded = ImageBytes([images.read(row) for row in rows], [images.digest(row) for row in rows])
    return DecodedBy(encoded, images.how) if isinstance(images, DecodedBy) else encoded
