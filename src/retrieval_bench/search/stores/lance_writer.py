"""A process that inserts into a LanceDB table until it is killed, and says after each batch how many rows are in."""

from __future__ import annotations

import sys

import numpy as np

from retrieval_bench.core import Distance
from retrieval_bench.search.stores.lance import LanceOptions, LanceStore

BATCH = 100


def batch_of(
    first_id: int, dim: int, distance: Distance, attributes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Ids, vectors and attributes of a batch; the same for the same first id."""
    rng = np.random.default_rng(first_id)
    codes = distance == "hamming"
    rows = rng.integers(0, 256, (BATCH, dim), np.uint8) if codes else rng.standard_normal((BATCH, dim), np.float32)
    ids = np.arange(first_id, first_id + BATCH)
    return ids, rows, dict.fromkeys(attributes, ids % 100)


def main(folder: str, dim: str, distance: Distance, first_id: str, attributes: str) -> None:
    names = tuple(filter(None, attributes.split(",")))
    options = LanceOptions("exact", 0, 0, 20, 300, 100, 1)
    store = LanceStore(int(dim), distance, options, names, folder)
    written = 0
    while True:
        store.insert(*batch_of(int(first_id) + written, int(dim), distance, names))
        written += BATCH
        print(written, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
