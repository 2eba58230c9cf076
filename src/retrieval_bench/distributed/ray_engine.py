"""Work on several machines, or in several processes of this one, by Ray."""

from __future__ import annotations

import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, Distance, Searcher
from retrieval_bench.distributed.addresses import parsed
from retrieval_bench.distributed.engine import Build, Chunks, WorkerDescriber
from retrieval_bench.distributed.partitions import PartitionFiles
from retrieval_bench.distributed.ray_chunks import RayChunks
from retrieval_bench.distributed.ray_crew import Crew
from retrieval_bench.distributed.sharded_search import ShardAnswer, ShardedIndex, bounds_of
from retrieval_bench.search.checks import check_distance, check_matrix
from retrieval_bench.search.index import ExactIndex, exact

_INLINE_BYTES = 1 << 16  # queries beyond it go into the store once, not with the request of each worker


@dataclass(frozen=True)
class StoredShard:
    """A shard whose rows lie in the store of the cluster. Implements `worker.ShardSource`.

    references: to the rows, in a list, so that no worker is given the rows before it wants them.
    """

    name: str
    distance: Distance
    first: int
    references: list[Any]

    def rows(self) -> np.ndarray:
        """The rows, read where they lie in shared memory; nobody can write into them."""
        import ray

        return ray.get(self.references[0])  # type: ignore[no-any-return]


class RayEngine:
    """Implements `WorkEngine` by the workers of a Ray cluster. A process has one at a time.

    Args:
        address: "ray://HOST:PORT", of a cluster that this machine is part of, or "ray://local", by which one is
            started here; behind a "?", workers=N and threads=N of each.

    Raises:
        BenchError: As for `open_engine`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.crew = Crew(address, parsed(address))

    def chunks(self, describer: WorkerDescriber, key: str, cache: Path | None) -> Chunks | None:
        """The workers describe; each finished partition is kept in the cache."""
        return RayChunks(self.crew, describer, PartitionFiles(cache, key))

    def search(self, gallery: np.ndarray, distance: Distance, build: Build) -> Searcher:
        """Exact search of a shard by each worker; any other search by this process."""
        return self.sharded(gallery, distance) if build is exact else build(gallery, distance)

    def sharded(self, gallery: np.ndarray, distance: Distance = "cosine", shards: int | None = None) -> ShardedIndex:
        """Exact search of a shard by each worker.

        Args:
            gallery: as for `ExactIndex`.
            distance: as for `ExactIndex`.
            shards: how many workers hold one. None: all.

        Returns:
            The index; it answers what `ExactIndex` answers, byte by byte.

        Raises:
            BenchError: As for `ExactIndex`, or a worker ran out of memory.
        """
        gallery, crew = check_matrix("gallery", gallery, check_distance(distance)), self.crew
        name = uuid.uuid4().hex
        sources = [
            StoredShard(f"{name}-{first}", distance, first, [crew.kept(np.ascontiguousarray(gallery[first:end]))])
            for first, end in bounds_of(len(gallery), min(shards or crew.places, crew.places))
        ]
        holding = [crew.submit(place, "hold", source) for place, source in enumerate(sources)]
        try:
            size = sum(
                crew.settle(asked, f"a gallery of {len(gallery)} rows", "hold", source)
                for asked, source in zip(holding, sources, strict=True)
            )
        except BenchError:
            ExactIndex(gallery, distance)  # where the gallery is at fault, its sentence names the row
            raise

        def ask(queries: np.ndarray, k: int, exclude: np.ndarray) -> list[ShardAnswer]:
            sent = crew.kept(queries) if queries.nbytes > _INLINE_BYTES else queries
            asked = [crew.submit(place, "nearest", each, sent, k, exclude) for place, each in enumerate(sources)]
            return [
                ShardAnswer(*crew.settle(one, f"{len(queries)} queries", "nearest", source, sent, k, exclude))
                for one, source in zip(asked, sources, strict=True)
            ]

        index = ShardedIndex(gallery, distance, ask, size)
        for source in sources:
            weakref.finalize(index, crew.tell_all, "forget", source.name).atexit = False
        return index

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.crew.close()
