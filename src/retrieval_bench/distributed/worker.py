"""What a worker does, wherever it runs: it holds shards that it searches, and one extractor that describes images.

It is told with each request what it needs, and makes it where it does not have it yet: a worker that takes the place of
one that died knows nothing, and is asked the same.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

import retrieval_bench
from retrieval_bench.core import BadImage, BenchError, Distance, Extractor, Images
from retrieval_bench.distributed.engine import WorkerDescriber
from retrieval_bench.distributed.sharded_search import Shard, ShardAnswer
from retrieval_bench.system.cache import code_version, library_versions
from retrieval_bench.system.timing import pinned


class ShardSource(Protocol):
    """Where the rows of a shard come from. name: no other shard has it. first: its first row in the whole gallery."""

    name: str
    distance: Distance
    first: int

    def rows(self) -> np.ndarray:
        """(m, d), read-only where that saves a copy."""


class Carried(NamedTuple):
    """What a request gave."""

    value: Any


class RefusedRequest(NamedTuple):
    """A mistake of the user, in one sentence."""

    sentence: str


class Unusable(NamedTuple):
    """An image that cannot be used, as `BadImage` has it."""

    reason: str
    detail: str


class NoMemory(NamedTuple):
    """An array did not fit. where: the machine."""

    where: str


Answer = Carried | RefusedRequest | Unusable | NoMemory


def value_of(answer: Answer) -> Any:
    """What a request gave; the error where it gave none."""
    match answer:
        case Carried(value):
            return value
        case RefusedRequest(sentence):
            raise BenchError(sentence)
        case Unusable(reason, detail):
            raise BadImage(reason, detail)
        case NoMemory(where):
            raise BenchError(f"the worker on {where} ran out of memory; use more machines or fewer workers on each")
    raise TypeError(f"no answer: {answer!r}")


def facts() -> dict[str, str]:
    """What must be the same on all machines for the same bytes: the code, Python, and the libraries."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"retrieval_bench": _code(), "Python": python, **library_versions()}


@functools.cache
def _code() -> str:
    files = sorted(Path(retrieval_bench.__file__).parent.rglob("*.py"))
    return f"{retrieval_bench.__version__} ({code_version(*files)[:12]})"


class Worker:
    """Carries out requests, one after the other.

    Args:
        threads: of each request, at most.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._shards: dict[str, Shard] = {}
        self._describes: tuple[WorkerDescriber, Extractor] | None = None

    def carry_out(self, request: str, *arguments: Any) -> Answer:
        """Do what is asked.

        Args:
            request: the name of a method below.
            arguments: of it.

        Returns:
            What it gave, or why it could not. Any other error is raised.
        """
        try:
            with pinned(self._threads):
                return Carried(getattr(self, request)(*arguments))
        except BenchError as error:
            return RefusedRequest(str(error))
        except BadImage as bad:
            return Unusable(bad.reason, bad.detail)
        except MemoryError:
            return NoMemory(socket.gethostname())

    def hello(self) -> tuple[str, int, dict[str, str]]:
        """The machine, the process and `facts`."""
        return socket.gethostname(), os.getpid(), facts()

    def hold(self, source: ShardSource) -> int:
        """Make a shard ready to be searched -> its bytes."""
        if source.name not in self._shards:
            self._shards[source.name] = Shard(source.rows(), source.distance, source.first)
        return self._shards[source.name].bytes

    def nearest(self, source: ShardSource, queries: np.ndarray, k: int, exclude: np.ndarray) -> ShardAnswer:
        """Search a shard; see `Shard.nearest`."""
        self.hold(source)
        return self._shards[source.name].nearest(queries, k, exclude, self._threads)

    def forget(self, name: str) -> None:
        """A shard is searched no more."""
        self._shards.pop(name, None)

    def describe(
        self, describer: WorkerDescriber, images: Images, learned: Mapping[str, np.ndarray], weights: Any
    ) -> np.ndarray:
        """Describe images; the extractor is loaded once and stays.

        Args:
            describer: how it is loaded.
            images: n of them.
            learned: what the extractor of the run has learned.
            weights: of the extractor of the run; those of this machine must be the same.

        Returns:
            (n, d) features.
        """
        if self._describes is None or self._describes[0] != describer:
            self._describes = None  # the memory of the last one first
            self._describes = describer, describer.build()
        extractor = self._describes[1]
        if getattr(extractor, "weights", None) != weights:
            raise BenchError(
                f"the worker on {socket.gethostname()} has other weights than this machine; put the same file on each, "
                "or name it by --weights"
            )
        return describer.describe(extractor, images, learned, self._threads)
