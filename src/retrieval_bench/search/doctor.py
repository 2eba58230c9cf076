"""What the search engine found on this machine and what it made of it, for `python -m benchmark doctor`."""

from __future__ import annotations

import os
from typing import Any

from retrieval_bench.system.cores import usable_cores

# What decides about the kernels, in LLVM's words; the rest of a processor's long list does not matter here.
FEATURES = (
    *("avx2", "fma", "avxvnni", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    *("avx512vnni", "avx512bf16", "avx512vpopcntdq", "amx-int8", "neon", "dotprod"),
)


def report() -> dict[str, Any]:
    """Facts by name, in the order in which they should be read; compiles nothing and writes nothing."""
    import llvmlite.binding
    import numba

    from retrieval_bench.search import emit, jit
    from retrieval_bench.search.certified import inner_loop
    from retrieval_bench.search.index import kernel_for

    kernel = kernel_for()
    _, why = emit.choose()
    directory = jit.directory()
    compiled = len(list(directory.glob("*.nbc"))) if directory.is_dir() else 0
    rows = kernel.lanes * kernel.vectors
    return {
        "processor": llvmlite.binding.get_host_cpu_name(),
        "features": [name for name in FEATURES if name in emit.cpu_features()],
        "kernel": kernel.name,
        "kernel chosen because": why,
        "inner loop": (
            "plain loops" if kernel.lanes == 1 else f"{kernel.blocks[-1]} queries x {rows} rows, {kernel.lanes} lanes"
        ),
        "queries in a block": list(kernel.blocks),
        "scan of int8 codes": inner_loop(kernel.name),
        "usable cores": usable_cores(),
        "numba threads": numba.get_num_threads(),
        "threading layer": "Python threads around kernels that release the GIL",
        "cache directory": str(directory),
        "compiled kernels in it": compiled,
        "cache": "warm" if compiled else ("cold" if _writable(directory) else "not writable: compiles in each process"),
    }


def lines() -> list[str]:
    """The report, one fact on a line."""
    facts = {name: ", ".join(map(str, fact)) if isinstance(fact, list) else fact for name, fact in report().items()}
    return [f"{name:22} {fact}" for name, fact in facts.items()]


def _writable(directory: Any) -> bool:
    """Whether the directory can be made, judged by the nearest one that exists."""
    place = next((parent for parent in (directory, *directory.parents) if parent.exists()), None)
    return place is not None and place.is_dir() and os.access(place, os.W_OK)
