"""Arrays of an npz file, which is believed only as far as it agrees with itself.

The header of each array is read before anything is allocated: a file of a few bytes may promise a terabyte, and one
that is damaged may promise anything.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np

MOST_BYTES = 256 << 20
"""Of all arrays of a file together; a larger file may hold `MOST_TIMES` its own size."""
MOST_TIMES = 40
MOST_ARRAYS = 20_000
_HEADERS: dict[tuple[int, int], Callable] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_SUFFIX = ".npy"


def read_arrays(file: IO[bytes]) -> dict[str, np.ndarray]:
    """The arrays of an npz file.

    Args:
        file: open for reading; it can seek.

    Returns:
        name -> array. No array holds Python objects.

    Raises:
        ValueError: The file is none, is cut or damaged, or would take more memory than its size explains.
        OSError: It cannot be read.
    """
    size = file.seek(0, 2)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ARRAYS or len({entry.filename for entry in entries}) < len(entries):
                raise ValueError(f"{len(entries)} arrays, or two of one name")
            if any(not entry.filename.endswith(_SUFFIX) or entry.flag_bits & 1 for entry in entries):
                raise ValueError("there is more in it than arrays")
            promised = sum(_promised(archive, entry) for entry in entries)
            most = max(MOST_BYTES, MOST_TIMES * size)
            if promised > most:
                raise ValueError(f"its arrays have {promised:,} bytes, more than {most:,}")
            return {entry.filename.removesuffix(_SUFFIX): _array(archive, entry) for entry in entries}
    except (
        *(EOFError, KeyError, AttributeError, TypeError, IndexError, SyntaxError, NotImplementedError, RuntimeError),
        *(OverflowError, MemoryError, RecursionError, UnicodeError),
        *(zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    ) as error:  # each has been seen, of a file in which bytes were changed
        raise ValueError(f"{error or type(error).__name__}") from None


def _promised(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> int:
    """How many bytes an array will take; ValueError where that is not what lies in the file."""
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("an array in it is compressed in a way that numpy does not write")
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError("an array in it is of another version of the format")
        shape, _, dtype = _HEADERS[version](member)
        start = member.tell()
    if dtype.hasobject or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError("an array in it holds objects, or has no shape")
    promised: int = math.prod(shape) * dtype.itemsize
    if start + promised != entry.file_size:
        raise ValueError(f"an array of {promised:,} bytes is in it, and {entry.file_size - start:,} are there")
    return promised


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as member:
        array: np.ndarray = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # to the end, so that its checksum is compared
            raise ValueError("an array in it is longer than it says")
        return array
