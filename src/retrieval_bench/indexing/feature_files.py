"""The rows of an index on disk: a file for each array, rows of one width one after the other, and nothing else.

Rows are only ever added behind those that count, so that a reader's memory map never changes under it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.indexing.description import ArrayFacts, Description, features_path
from retrieval_bench.indexing.part_rows import storable
from retrieval_bench.system.files import sync_folder

_AT_ONCE = 1 << 20
"""Bytes that wait to be written together."""
LARGEST_HALF = 65504.0
"""That float16 can hold."""


class FeatureFiles:
    """The files of one generation. arrays: of all methods, in order, each with its place (method, array)."""

    def __init__(self, folder: Path, description: Description, generation: int) -> None:
        self.folder, self.generation = folder, generation
        self.arrays = [
            (method, array, facts)
            for method, own in enumerate(description.methods)
            for array, facts in enumerate(own.arrays)
        ]

    def path(self, method: int, array: int) -> Path:
        """The file of one array."""
        return self.folder / features_path(self.generation, method, array)

    def mapped(self, method: int, array: int, facts: ArrayFacts, rows: int) -> np.ndarray:
        """(rows, width), read-only, as it lies in the file.

        Raises:
            BenchError: The file is too short.
            FileNotFoundError: It is not there: another generation has taken its place, or somebody has removed it.
        """
        if not rows:
            return np.empty((0, facts.width), facts.kept)
        file = self.path(method, array)
        try:
            size = file.stat().st_size
            if size < rows * facts.row_bytes:
                raise BenchError(
                    f"{printable(file)} is damaged: {size:,} bytes, and {rows:,} rows take {rows * facts.row_bytes:,}; "
                    "build the index again"
                )
            kind = np.dtype(facts.kept).newbyteorder("<")
            return np.memmap(file, kind, "r", shape=(rows, facts.width)).view(np.ndarray)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BenchError(f"{printable(file)}: cannot be read ({error.strerror})") from None


class Appending:
    """Rows that are written behind those that count. What is behind these already, a process left that died.

    rows: how many count by now.
    """

    def __init__(self, files: FeatureFiles, rows: int) -> None:
        self._files, self._rows = files, rows
        self._open: list[IO[bytes]] = []
        self._waiting = [bytearray() for _ in files.arrays]
        try:
            for method, array, facts in files.arrays:
                path = files.path(method, array)
                if not path.parent.is_dir():
                    path.parent.mkdir(parents=True)
                file = open(path, "r+b" if path.exists() else "x+b", buffering=0)  # noqa: SIM115 - closed by `close`
                self._open.append(file)
                if file.seek(0, os.SEEK_END) > rows * facts.row_bytes:  # Windows cuts no file that is mapped
                    file.truncate(rows * facts.row_bytes)
                file.seek(rows * facts.row_bytes)
        except OSError:
            self.close()
            raise

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Write some rows of every array, in the order of `FeatureFiles.arrays`, as they are kept."""
        for place, ((_, _, facts), array) in enumerate(zip(self._files.arrays, arrays, strict=True)):
            if array.dtype.name != facts.kept or array.shape[1:] != (facts.width,):
                raise ValueError(f"{array.dtype} {array.shape} where {facts.kept} rows of {facts.width} are kept")
            self._waiting[place] += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")
            if len(self._waiting[place]) > _AT_ONCE:
                self._write(place)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        for place, file in enumerate(self._open):
            self._write(place)
            os.fsync(file.fileno())
        sync_folder(self._files.path(0, 0).parent)

    def _write(self, place: int) -> None:
        with memoryview(self._waiting[place]) as whole:
            start = 0
            while start < len(whole):
                start += self._open[place].write(whole[start:])
        self._waiting[place].clear()

    def take_back(self) -> None:
        """Leave the files as they were."""
        for (_, _, facts), file in zip(self._files.arrays, self._open, strict=True):
            with contextlib.suppress(OSError):  # the next writer does the same
                file.truncate(self._rows * facts.row_bytes)

    def close(self) -> None:
        """Close the files, each, whatever becomes of the others."""
        with contextlib.ExitStack() as stack:
            for file in self._open:
                stack.callback(file.close)


def kept_as(features: np.ndarray, facts: ArrayFacts) -> np.ndarray:
    """Features as they lie in the file.

    Of words a checksum is kept. float16 rounds each number. int8 divides a row by its largest number: a cosine does not
    see the lengths of rows.

    Raises:
        BenchError: A number is too large for float16.
    """
    features = storable(features)
    if facts.kept == facts.described:
        return features
    if facts.kept == "float16":
        largest = float(np.abs(features).max(initial=0))
        if largest > LARGEST_HALF:
            raise BenchError(
                f"{facts.name} describes a picture with a number of {largest:.3g}, and float16 holds none above "
                f"{LARGEST_HALF:,.0f}; use --dtype float32"
            )
        return features.astype(np.float16)
    rows = features.astype(np.float64)
    largest_of_each = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows * (127.0 / np.where(largest_of_each > 0, largest_of_each, 1))
    return np.rint(scaled).astype(np.int8)


def other_generations(folder: Path, generation: int) -> list[Path]:
    """Folders of features that no reader begins to read: a process died before it had removed or finished them."""
    home = folder / "features"
    return [] if not home.is_dir() else [one for one in sorted(home.iterdir()) if one.name != str(generation)]


def drop_other_generations(folder: Path, generation: int) -> None:
    """Remove them, as far as that is possible; who has mapped them goes on."""
    for one in other_generations(folder, generation):
        shutil.rmtree(one, ignore_errors=True)
