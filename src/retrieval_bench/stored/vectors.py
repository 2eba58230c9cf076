"""A file of vectors, whatever its format: (n, d) float32 with an id for each row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_bench.core import BenchError, printable

ID_NAMES = ("ids", "id", "image_id", "image_ids", "path", "paths", "file", "files", "filename", "filenames", "image")
"""What the ids may be called in a file with names, in the order in which they are taken."""
VECTOR_NAMES = ("vectors", "vector", "embeddings", "embedding", "features", "feature", "emb")
"""The same for the vectors."""
NUMBERS = ("float16", "float32", "float64", "int8")
"""Types of numbers that are read; all become float32."""
ROWS_AT_ONCE = 8192
"""Rows that are converted together, so that a file of float64 is never in memory whole."""
_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class StoredVectors:
    """ids: n names, each once. rows: (n, d) float32, all finite."""

    ids: tuple[str, ...]
    rows: np.ndarray


def read_vectors(file: Path, called: str, vectors: str = "", ids: str = "") -> StoredVectors:
    """Read a file of vectors.

    called: the method, for sentences. vectors, ids: what the array, column or tensor of each is called; "": told by its
    name or type. Where the format keeps no text (npy, safetensors), ids: the text file that holds them.
    Raises BenchError where the file is no such file, or a row has no id, an id of another row, or no finite numbers.
    """
    from retrieval_bench.stored import hdf5_files, numpy_files, parquet_files, safetensors_files

    readers = {
        ".npy": numpy_files.npy,
        ".npz": numpy_files.npz,
        ".parquet": parquet_files.parquet,
        ".h5": hdf5_files.hdf5,
        ".hdf5": hdf5_files.hdf5,
        ".safetensors": safetensors_files.safetensors,
    }
    there(file, called)
    if file.suffix.lower() not in readers:
        raise BenchError(f"{called}: {printable(file)} must end in {', '.join(readers)}, which says what the file is")
    found = readers[file.suffix.lower()](file, called, vectors, ids)
    if len(found.ids) != len(found.rows):
        raise BenchError(f"{called}: {printable(file)} holds {len(found.rows)} vectors and {len(found.ids)} ids")
    if not len(found.rows) or not found.rows.shape[1]:
        raise BenchError(f"{called}: {printable(file)} holds no vector")
    _refuse_doubled(found.ids, file, called)
    _refuse_not_finite(found, file, called)
    return found


def there(file: Path, called: str) -> None:
    """BenchError where there is no such file."""
    if not file.is_file():
        raise BenchError(f"{called}: there is no file {printable(file)}")


def sha256_of(file: Path) -> str:
    """sha256 (hex) of a file's bytes; a block of it is in memory at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def as_float32(rows: np.ndarray, file: Path, called: str, what: str = "") -> np.ndarray:
    """(n, d) of any of NUMBERS -> a float32 copy, some rows at a time."""
    where = f"{what} in {printable(file)}" if what else printable(file)
    if rows.ndim != 2:
        raise BenchError(f"{called}: {where} has the shape {_shape(rows.shape)}; a row for each image is wanted, n x d")
    if rows.dtype.name not in NUMBERS:
        raise BenchError(f"{called}: {where} holds {rows.dtype}; vectors are {', '.join(NUMBERS)}")
    copy = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that
        for start in range(0, len(rows), ROWS_AT_ONCE):
            copy[start : start + ROWS_AT_ONCE] = rows[start : start + ROWS_AT_ONCE]
    return copy


def ids_beside(file: Path, called: str, named: str) -> tuple[str, ...]:
    """The ids of a format that keeps no text: a line for each row, in NAME.ids.txt or ids.txt beside the file."""
    places = [Path(named)] if named else [file.with_suffix(".ids.txt"), file.with_name("ids.txt")]
    place = next((one for one in places if one.is_file()), None)
    if place is None:
        wanted = " or ".join(printable(one.name if not named else one) for one in places)
        raise BenchError(
            f"{called}: {printable(file)} keeps no ids and there is no file {wanted}"
            f"{'' if named else ' beside it'}; write the id of each row into it, one a line"
        )
    try:
        text = place.read_text(encoding="utf-8-sig").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{called}: {printable(place)} cannot be read as UTF-8 text ({error})") from None
    return tuple(text.split("\n")) if text else ()


def chosen(names: Sequence[str], wanted: str, usual: Sequence[str], what: str, file: Path, called: str) -> str:
    """Which of these names holds the vectors or the ids: the wanted one, one that is called as usual, or the only one.

    BenchError where none does or several may.
    """
    option = "ids" if what == "ids" else "vectors"
    if wanted:
        if wanted not in names:
            raise BenchError(
                f"{called}: {printable(file)} has no {what} called {wanted!r}; it has {', '.join(names) or 'none'}"
            )
        return wanted
    folded = {name.rpartition("/")[2].casefold(): name for name in names}
    known = next((folded[name] for name in usual if name in folded), None)
    if known is not None:
        return known
    if len(names) == 1:
        return names[0]
    if not names:
        raise BenchError(f"{called}: {printable(file)} holds no {what}")
    raise BenchError(
        f"{called}: {printable(file)} may hold its {what} in {', '.join(names)}; say which by {option}=NAME"
    )


def of_text(kinds: Mapping[str, str]) -> list[str]:
    """Which arrays may be ids, by name -> kind of dtype: those of text, and where there are none whole numbers."""
    return [name for name, kind in kinds.items() if kind in "OSU"] or [n for n, kind in kinds.items() if kind in "iu"]


def as_text(ids: np.ndarray) -> tuple[str, ...]:
    """(n,) text, bytes or whole numbers -> ids."""
    return tuple(item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in ids.tolist())


def _refuse_doubled(ids: Sequence[str], file: Path, called: str) -> None:
    if len(set(ids)) == len(ids):
        return
    first: dict[str, int] = {}
    for row, item in enumerate(ids):
        if item in first:
            raise BenchError(
                f"{called}: {printable(file)} has two vectors of {item!r}, in rows {first[item] + 1} and {row + 1}"
            )
        first[item] = row


def _refuse_not_finite(found: StoredVectors, file: Path, called: str) -> None:
    for start in range(0, len(found.rows), ROWS_AT_ONCE):
        whole = np.isfinite(found.rows[start : start + ROWS_AT_ONCE]).all(axis=1)
        if not whole.all():
            bad = sum(
                int((~np.isfinite(found.rows[one : one + ROWS_AT_ONCE]).all(axis=1)).sum())
                for one in range(start, len(found.rows), ROWS_AT_ONCE)
            )
            raise BenchError(
                f"{called}: {printable(file)} holds NaN or infinite numbers in {bad} of {len(found.rows)} vectors; the "
                f"first is that of {found.ids[start + int(whole.argmin())]!r}"
            )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "of one number"
