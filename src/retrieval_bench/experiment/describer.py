"""An extractor as another process comes to it: by its name, with what it has learned sent after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval_bench.core import Extractor, Images, Setup
from retrieval_bench.experiment.extraction import in_chunks
from retrieval_bench.methods.parse import parse_member
from retrieval_bench.plugins.loading import load_files
from retrieval_bench.registry import CLEANINGS, EXTRACTORS
from retrieval_bench.system.timing import pinned


@dataclass(frozen=True)
class MethodDescriber:
    """Implements `distributed.engine.WorkerDescriber`.

    Args:
        method: as one names it, "resnet50:pool=gem".
        setup: of the run.
        plugins: files that register methods.
    """

    method: str
    setup: Setup
    plugins: tuple[str, ...] = ()

    def build(self) -> Extractor:
        """The extractor, which has learned nothing yet."""
        EXTRACTORS.fill()
        CLEANINGS.fill()
        load_files(self.plugins)
        return parse_member(self.method).build(self.setup)  # type: ignore[no-any-return]

    def describe(
        self, extractor: Extractor, images: Images, learned: Mapping[str, np.ndarray], threads: int
    ) -> np.ndarray:
        """Features of these images, row by row."""
        for name, array in learned.items():
            setattr(extractor, name, array)
        with pinned(1):
            done = in_chunks(extractor, images, range(len(images)), threads)
            parts = {rows[0]: features for rows, features in done}
        return np.concatenate([parts[first] for first in sorted(parts)])
