"""Vectors in a safetensors file, with the ids in its metadata or in a text file beside it."""

from __future__ import annotations

import json
from pathlib import Path

from retrieval_bench.core import BenchError, printable
from retrieval_bench.stored.vectors import VECTOR_NAMES, StoredVectors, as_float32, chosen, ids_beside


def safetensors(file: Path, called: str, vectors: str, ids: str) -> StoredVectors:
    """As `read_vectors` has it; the metadata may hold the ids under the key "ids", as a JSON list."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            names = list(opened.keys())
            tables = [name for name in names if len(opened.get_slice(name).get_shape()) == 2]
            of_vectors = chosen(tables, vectors, VECTOR_NAMES, "vectors", file, called)
            kind = opened.get_slice(of_vectors).get_dtype()
            if kind not in ("F16", "F32", "F64", "I8"):
                raise BenchError(f"{called}: {of_vectors} in {printable(file)} holds {kind}; save it as F32 or F16")
            rows = as_float32(opened.get_tensor(of_vectors), file, called, of_vectors)
            told = (opened.metadata() or {}).get("ids")
    except (SafetensorError, OSError) as error:
        raise BenchError(f"{called}: {printable(file)} is no whole safetensors file ({error})") from None
    if ids or told is None:
        return StoredVectors(ids_beside(file, called, ids), rows)
    try:
        listed = json.loads(told)
    except ValueError:
        listed = None
    if not isinstance(listed, list):
        raise BenchError(f"{called}: ids in the metadata of {printable(file)} is no JSON list")
    return StoredVectors(tuple(map(str, listed)), rows)
