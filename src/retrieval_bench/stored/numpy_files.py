"""Vectors in numpy's files: npy with the ids in a text file beside it, and npz with both."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.stored.vectors import (
    ID_NAMES,
    VECTOR_NAMES,
    StoredVectors,
    as_float32,
    as_text,
    chosen,
    ids_beside,
    of_text,
)

_ERRORS = (OSError, EOFError, KeyError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error)


def npy(file: Path, called: str, vectors: str, ids: str) -> StoredVectors:
    """As `read_vectors` has it; the file is mapped, so that only the float32 copy is in memory."""
    if vectors:
        raise BenchError(f"{called}: {printable(file)} holds one array, which has no name; drop vectors={vectors}")
    try:
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except _ERRORS as error:
        raise BenchError(f"{called}: {printable(file)} is no whole npy file ({error})") from None
    if not isinstance(rows, np.ndarray):
        raise BenchError(f"{called}: {printable(file)} is an npz file; let its name end in .npz")
    return StoredVectors(ids_beside(file, called, ids), as_float32(rows, file, called))


def npz(file: Path, called: str, vectors: str, ids: str) -> StoredVectors:
    """As `read_vectors` has it."""
    arrays = read_npz(file, called)
    flat = {name: array.dtype.kind for name, array in arrays.items() if array.ndim == 1}
    tables = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fi"]
    of_ids = chosen([ids] if ids in flat else of_text(flat), ids, ID_NAMES, "ids", file, called)
    # Of arrays that hold no vectors, the one that was meant is read all the same: what is wrong with it is then told.
    tables = tables or [name for name in arrays if name != of_ids]
    of_vectors = chosen(tables, vectors, VECTOR_NAMES, "vectors", file, called)
    return StoredVectors(as_text(arrays[of_ids]), as_float32(arrays[of_vectors], file, called, of_vectors))


def read_npz(file: Path, called: str) -> dict[str, np.ndarray]:
    """All arrays of a file. BenchError where it is damaged, or holds Python objects."""
    try:
        with file.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is an npy file")
            return {name: stored[name] for name in stored.files}
    except _ERRORS as error:
        hint = "; save text as an array of str, not of objects" if "Object arrays" in str(error) else ""
        raise BenchError(f"{called}: {printable(file)} is no npz file that can be read ({error}){hint}") from None
