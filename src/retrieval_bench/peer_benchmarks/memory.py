"""What a search needs above gallery and index: the peak of the resident set while it runs, less what it was before."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from retrieval_bench.peer_benchmarks.competitors import rivals
from retrieval_bench.peer_benchmarks.shapes import MEMORY, Shape
from retrieval_bench.system.timing import PeakMemory


def extra_memory(threads: int, shape: Shape = MEMORY) -> dict[str, float]:
    """MiB by engine. Each runs in a fresh process: memory that an earlier search gave back would hide what this one
    takes."""
    engines = ["float32"] + ([] if shape.bits else ["int8"])
    figures = {}
    for engine in engines:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            figures[engine] = process.submit(_one, engine, threads, shape).result()
    return figures


def _one(engine: str, threads: int, shape: Shape) -> float:
    import numba

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    build = rivals()[engine]
    small = Shape(min(shape.queries, 50), min(shape.rows, 5_000), shape.dim, shape.k, shape.bits)
    build(small, *small.data())[""]()  # compiles and loads
    queries, gallery = shape.data()
    search = build(shape, queries, gallery)[""]
    with PeakMemory(every_s=0.002) as before:
        pass
    with PeakMemory(every_s=0.002) as peak:
        search()
    return peak.mib - before.mib
