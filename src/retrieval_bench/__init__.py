"""Compare image-retrieval methods on the same splits, with the same metrics, on the same machine.

Importing this package loads neither torch nor numba: the names below are looked up when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from retrieval_bench.core import (
        BadImage,
        BenchError,
        Dataset,
        Extractor,
        Judged,
        NotComparable,
        Ranking,
        Setup,
        Split,
    )
    from retrieval_bench.evaluation.evaluate import evaluate
    from retrieval_bench.registry import BACKENDS, DATASETS, EXTRACTORS, METRICS
    from retrieval_bench.search.index import ExactIndex, topk

_HOME = {
    "BadImage": "core",
    "BenchError": "core",
    "Dataset": "core",
    "Extractor": "core",
    "Judged": "core",
    "NotComparable": "core",
    "Ranking": "core",
    "Setup": "core",
    "Split": "core",
    "BACKENDS": "registry",
    "DATASETS": "registry",
    "EXTRACTORS": "registry",
    "METRICS": "registry",
    "ExactIndex": "search.index",
    "topk": "search.index",
    "evaluate": "evaluation.evaluate",
}

__all__ = [
    "BACKENDS",
    "DATASETS",
    "EXTRACTORS",
    "METRICS",
    "BadImage",
    "BenchError",
    "Dataset",
    "ExactIndex",
    "Extractor",
    "Judged",
    "NotComparable",
    "Ranking",
    "Setup",
    "Split",
    "evaluate",
    "topk",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"retrieval_bench.{_HOME[name]}"), name)
    return found.fill() if _HOME[name] == "registry" else found
