"""This machine, as ever: its threads describe images, and the backend of the run searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retrieval_bench.core import Distance, Searcher
from retrieval_bench.distributed.engine import LOCAL, Build, Chunks, WorkerDescriber


class LocalEngine:
    """Implements `WorkEngine` by what a run did before there were engines."""

    address = LOCAL

    def chunks(self, describer: WorkerDescriber, key: str, cache: Path | None) -> Chunks | None:
        """None: the threads of this process."""
        return None

    def search(self, gallery: np.ndarray, distance: Distance, build: Build) -> Searcher:
        """The search by this process."""
        return build(gallery, distance)

    def close(self) -> None:
        """Nothing was started."""
