"""Features of some images in one file, which a run that was killed finds again.

A partition is named after what is in it: the digests of its images, and the recipe of the features. It is written
beside its place and then renamed, so it is there whole or not at all. A damaged one is told of, and computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_bench.core import printable
from retrieval_bench.system.files import open_regular, removed
from retrieval_bench.system.npz import read_arrays

log = logging.getLogger("retrieval_bench")

SIZE = 64
"""Images of a partition. It depends on no number of workers: another cluster finds what the first one has finished."""
_MOST_BYTES = 1 << 30


def parted(rows: Sequence[int], size: int = SIZE) -> list[list[int]]:
    """The rows in partitions: those of one stretch of `size` images of the split are together.

    What is stored already may be missing among them; the stretches of the others stay what they were.
    """
    stretches: dict[int, list[int]] = {}
    for row in rows:
        stretches.setdefault(row // size, []).append(row)
    return list(stretches.values())


class PartitionFiles:
    """The finished partitions of one recipe.

    Args:
        root: the folder of the cache. None: nothing is kept, and nothing found.
        key: of the recipe.
    """

    def __init__(self, root: Path | None, key: str) -> None:
        self._folder = None if root is None else root / "partitions" / key[:2] / key
        self._told = False

    def path(self, digests: Sequence[str]) -> Path | None:
        """Where the partition of these images lies, in whatever order they are named."""
        if self._folder is None:
            return None
        name = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
        return self._folder / f"{name}.npz"

    def get(self, digests: Sequence[str]) -> np.ndarray | None:
        """(n, d) features in the order of the digests; None where they are not there, or not whole."""
        path = self.path(digests)
        if path is None or not os.path.lexists(path):
            return None
        try:
            with open_regular(path, _MOST_BYTES) as file:
                arrays = read_arrays(file)
            features = arrays["features"]
            if arrays["digests"].tobytes() != _listed(digests) or features.ndim != 2 or len(features) != len(digests):
                raise ValueError("it is of other images")
        except (OSError, ValueError, KeyError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            log.warning("%s is damaged (%s); its %d images are described again", printable(path), why, len(digests))
            removed(path)
            return None
        place = {digest: line for line, digest in enumerate(sorted(digests))}
        return np.ascontiguousarray(features[[place[digest] for digest in digests]])

    def put(self, digests: Sequence[str], features: np.ndarray) -> None:
        """Keep the features (n, d) of these images; says once that it cannot, then stays silent."""
        path = self.path(digests)
        if path is None:
            return
        order = sorted(range(len(digests)), key=digests.__getitem__)
        content = io.BytesIO()
        listed = np.frombuffer(_listed(digests), np.uint8)
        np.savez(content, digests=listed, features=features[order])
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(content.getbuffer())
            os.replace(unfinished, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if not self._told:
                self._told = True
                log.warning("%s cannot be written (%s); continuing without storing", printable(path), error.strerror)


def _listed(digests: Sequence[str]) -> bytes:
    return "\n".join(sorted(digests)).encode()
