"""Where networks run when nobody says it: on a GPU if one is there and anything in the run can use it."""

from __future__ import annotations

import logging

from retrieval_bench.core import BenchError
from retrieval_bench.methods.parse import Method
from retrieval_bench.registry import BACKENDS
from retrieval_bench.system.device import check_device, gpu_is_there
from retrieval_bench.system.python_sources import short

log = logging.getLogger("retrieval_bench")


def resolve_device(wanted: str, methods: tuple[Method, ...], backend: str = "exact") -> str:
    """Resolve "auto" to a device. torch is loaded only if a method or the backend can use a GPU.

    Args:
        wanted: "auto", "cpu" or "cuda".
        methods: the methods that will run.
        backend: name of the search backend.

    Returns:
        "cpu" or "cuda".

    Raises:
        BenchError: "cuda" is wanted and there is no such device, or torch, which would use it, cannot be loaded.
    """
    useful = "device" in BACKENDS[backend].options or any(method.deep for method in methods)
    if wanted == "cpu" or (wanted == "auto" and not useful):
        return "cpu"
    try:
        if wanted == "auto":
            return "cuda" if gpu_is_there() else "cpu"
        return check_device(wanted)
    except BenchError:
        raise
    except Exception as error:  # a broken installation raises nearly anything
        if wanted == "auto":  # each method that needs torch says in its row what is wrong
            log.debug("no GPU is looked for: torch cannot be loaded: %s", short(error))
            return "cpu"
        raise BenchError(f"--device {wanted}: torch cannot be loaded ({short(error)}); repair it") from error
