"""The `torch` backend on a GPU, against the exact engine on the CPU, FAISS on the GPU and torch's own product."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from retrieval_bench.core import Ranking
from retrieval_bench.peer_benchmarks.gpu import Finding, Where
from retrieval_bench.search.gpu import TorchIndex
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.system.progress import Progress
from retrieval_bench.system.timing import Stopwatch, waiting

SHAPES = ((1_000_000, 512), (10_000_000, 128))
DRY_SHAPES = ((20_000, 512), (50_000, 128))
QUERIES = 1000
K = 10


def search(where: Where, progress: Progress) -> Iterator[Finding]:
    """Cosine, the 10 nearest of 1,000 queries; float32 rows around some thousands of centres."""
    for done, (rows, dim) in enumerate(DRY_SHAPES if where.dry else SHAPES):
        shape = f"{rows:,} x {dim}"
        progress(f"{shape}: rows", done, len(SHAPES))
        gallery, queries = _clustered(rows, dim)
        progress(f"{shape}: the engine on the CPU", done, len(SHAPES))
        truth, engine = _timed(ExactIndex(gallery), queries, "cpu", 1)
        yield Finding(f"{shape}: exact, on the CPU", QUERIES / engine, "queries/s")
        progress(f"{shape}: {where.device}", done, len(SHAPES))
        found, ours = _timed(TorchIndex(gallery, device=where.device), queries, where.device, 3)
        same = bool((found.indices == truth.indices).all() and (found.distances == truth.distances).all())
        yield Finding(f"{shape}: torch backend", QUERIES / ours, "queries/s")
        yield Finding(f"{shape}: identical to exact", "yes" if same else "no", "", "identical", same)
        units = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
        others = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        del gallery
        for name, answer in _peers(units, others, where):
            answer()
            spent = []
            for _ in range(3):
                with Stopwatch() as watch:
                    rows_found = answer()
                    waiting(where.device)()
                spent.append(watch.seconds)
            seconds = statistics.median(spent)
            yield Finding(f"{shape}: {name}", QUERIES / seconds, "queries/s")
            yield Finding(f"{shape}: torch backend x {name}", seconds / ours)
            agreed = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(rows_found, truth.indices, strict=True)]))
            yield Finding(f"{shape}: {name}, of the {K} nearest", agreed / K)
            del answer  # and with it what it holds on the card


def _timed(index: Any, queries: np.ndarray, device: str, rounds: int) -> tuple[Ranking, float]:
    """(ranking, seconds of a search, the median of some rounds after one that warms up)."""
    spent = []
    index.search(queries[:32], K)
    for _ in range(rounds):
        with Stopwatch() as watch:
            found = index.search(queries, K)
            waiting(device)()
        spent.append(watch.seconds)
    return found, statistics.median(spent)


def _peers(units: np.ndarray, queries: np.ndarray, where: Where) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(name, what answers all queries) of each peer that is there; of unit rows the largest product is nearest."""
    import torch

    yield "torch product and topk, float32", _product(units, queries, where.device)
    if importlib.util.find_spec("faiss") is None:
        return
    import faiss

    index: Any = faiss.IndexFlatIP(units.shape[1])
    name = "FAISS on the CPU"
    if not where.dry and hasattr(faiss, "StandardGpuResources"):
        torch.cuda.empty_cache()
        index, name = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index), "FAISS on the GPU"
    elif not where.dry:
        return  # the one on the CPU says nothing of a card
    index.add(units)
    yield name, lambda: index.search(queries, K)[1]


def _product(units: np.ndarray, queries: np.ndarray, device: str) -> Callable[[], np.ndarray]:
    import torch

    there, asked = torch.from_numpy(units).to(device), torch.from_numpy(queries).to(device)

    def answer() -> np.ndarray:
        parts = [torch.topk(part @ there.T, K, dim=1).indices.cpu() for part in asked.split(200)]
        return torch.cat(parts).numpy()

    return answer


def _clustered(rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, dim) and (QUERIES, dim) float32: noise around one centre for about 250 rows, queries around the same."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((max(2, rows // 250), dim), np.float32)

    def around(n: int) -> np.ndarray:
        out = generator.standard_normal((n, dim), np.float32)
        out *= 0.5
        for start in range(0, n, 1 << 18):
            part = out[start : start + (1 << 18)]
            part += centres[generator.integers(0, len(centres), len(part))]
        return out

    return around(rows), around(QUERIES)
