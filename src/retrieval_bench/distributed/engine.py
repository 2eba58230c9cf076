"""What a run asks of whoever does its work: to describe images, and to search exactly.

`local` is the threads of this process, as ever. `processes` is several processes of this machine, and `ray://...` is
workers on one or several machines. All answer the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from retrieval_bench.core import Distance, Extractor, Images, Searcher

LOCAL = "local"
PROCESSES = "processes"

Chunks = Callable[[Extractor, Images, Sequence[int], int], Iterator[tuple[Sequence[int], np.ndarray]]]
"""(extractor, images, rows, threads) -> (rows, features) in any order, until all rows are done."""

Build = Callable[[np.ndarray, Distance], Searcher]
"""(gallery, distance) -> the search of it by this process."""


class WorkerDescriber(Protocol):
    """How a worker comes to an extractor of its own. It can be pickled; the extractor need not be."""

    def build(self) -> Extractor:
        """Load the network, or whatever it is, that describes images here. It has learned nothing yet.

        Raises:
            BenchError: Its name or its weights are not known on this machine.
        """

    def describe(
        self, extractor: Extractor, images: Images, learned: Mapping[str, np.ndarray], threads: int
    ) -> np.ndarray:
        """Describe all these images.

        Args:
            extractor: as `build` returned it.
            images: n of them.
            learned: what the extractor of the run has learned, by attribute name.
            threads: at most so many.

        Returns:
            (n, d) features, the same to the last bit on any machine with the same libraries.
        """


class WorkEngine(Protocol):
    """Does the work of a run.

    Attributes:
        address: as the user names it; "local" is this machine.
    """

    address: str

    def chunks(self, describer: WorkerDescriber, key: str, cache: Path | None) -> Chunks | None:
        """Who describes images.

        Args:
            describer: what workers build their extractor by.
            key: of the recipe of these features, for what is kept of a run that is killed.
            cache: the folder to keep it in. None: nothing is kept.

        Returns:
            None: the threads of this process, as ever.
        """

    def search(self, gallery: np.ndarray, distance: Distance, build: Build) -> Searcher:
        """The search of a gallery.

        Args:
            gallery: (n, d).
            distance: by which it is searched.
            build: the search by this process. An engine takes the place of the exact one alone.

        Returns:
            A searcher; one in the place of the exact one answers the same bytes.
        """

    def close(self) -> None:
        """End what this engine has started. It may be called twice."""


def open_engine(address: str) -> WorkEngine:
    """Connect to an engine, or start it.

    Args:
        address: "local", "processes", "ray://HOST:PORT" or "ray://local"; behind a "?", workers=N and threads=N.

    Returns:
        The engine; whoever opens it closes it.

    Raises:
        BenchError: The address cannot be read, nobody answers there, or Ray is not installed.
    """
    if address == LOCAL:
        from retrieval_bench.distributed.local import LocalEngine

        return LocalEngine()
    if check_address(address).startswith(PROCESSES):
        from retrieval_bench.distributed.processes import ProcessesEngine

        return ProcessesEngine(address)
    from retrieval_bench.distributed.ray_engine import RayEngine

    return RayEngine(address)


def check_address(address: str) -> str:
    """The address, if it can be one; nobody is asked.

    Raises:
        BenchError: It cannot.
    """
    if address != LOCAL:
        from retrieval_bench.distributed.addresses import parsed

        parsed(address)
    return address
