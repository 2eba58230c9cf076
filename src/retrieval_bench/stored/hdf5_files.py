"""Vectors in an HDF5 file: a dataset of numbers and a dataset of ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.stored.vectors import (
    ID_NAMES,
    VECTOR_NAMES,
    StoredVectors,
    as_float32,
    as_text,
    chosen,
    of_text,
)


def hdf5(file: Path, called: str, vectors: str, ids: str) -> StoredVectors:
    """As `read_vectors` has it; names of datasets are paths within the file, as group/vectors."""
    try:
        import h5py
    except ImportError:
        raise BenchError(
            f"{called}: HDF5 needs h5py, which is not installed; install it by pip install 'retrieval-bench[hdf5]'"
        ) from None
    try:
        with h5py.File(file, "r") as opened:
            found: dict[str, Any] = {}
            opened.visititems(lambda name, one: found.update({name: one}) if isinstance(one, h5py.Dataset) else None)
            flat = {name: one.dtype.kind for name, one in found.items() if one.ndim == 1}
            ids = ids.strip("/")
            tables = [name for name, one in found.items() if one.ndim == 2 and one.dtype.kind in "fi"]
            of_ids = chosen([ids] if ids in flat else of_text(flat), ids, ID_NAMES, "ids", file, called)
            of_vectors = chosen(tables, vectors.strip("/"), VECTOR_NAMES, "vectors", file, called)
            names = as_text(np.asarray(found[of_ids][()]))
            return StoredVectors(names, as_float32(found[of_vectors], file, called, of_vectors))
    except OSError as error:
        raise BenchError(f"{called}: {printable(file)} is no HDF5 file that can be read ({error})") from None
