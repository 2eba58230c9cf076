"""Vectors in a Parquet file: a column of lists beside the ids, or a column for each of the d numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrieval_bench.core import BenchError, printable
from retrieval_bench.stored.vectors import ID_NAMES, ROWS_AT_ONCE, VECTOR_NAMES, StoredVectors, chosen

_BUFFER = 1 << 20
"""Bytes of a column that are read at once: a file may be one row group, which would be in memory whole."""


def parquet(file: Path, called: str, vectors: str, ids: str) -> StoredVectors:
    """As `read_vectors` has it; rows are converted as they are read, so that only the float32 copy is in memory.

    vectors: the column of lists, or how the names of the d columns begin.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BenchError(
            f"{called}: Parquet needs pyarrow, which is not installed; install it by "
            "pip install 'retrieval-bench[parquet]'"
        ) from None
    types = pyarrow.types
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            schema, n = opened.schema_arrow, opened.metadata.num_rows
            text = [f.name for f in schema if types.is_string(f.type) or types.is_large_string(f.type)]
            text += [
                f.name for f in schema if types.is_integer(f.type) and (f.name.casefold() in ID_NAMES or f.name == ids)
            ]
            of_ids = chosen(text, ids, ID_NAMES, "ids", file, called)
            columns = _columns(schema, of_ids, vectors, file, called)
            names: list[str] = []
            rows: np.ndarray | None = None
            for batch in opened.iter_batches(ROWS_AT_ONCE, columns=[of_ids, *columns]):
                some = _numbers(batch, columns, file, called)
                if rows is None:
                    rows = np.empty((n, some.shape[1]), np.float32)
                if some.shape[1] != rows.shape[1]:
                    raise BenchError(_lengths(file, called, columns[0]))
                if batch.column(of_ids).null_count:
                    raise BenchError(f"{called}: {printable(file)} has rows without a value in {of_ids}")
                with np.errstate(over="ignore"):  # as in `as_float32`
                    rows[len(names) : len(names) + len(some)] = some
                names += map(str, batch.column(of_ids).to_pylist())
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchError(f"{called}: {printable(file)} is no Parquet file that can be read ({error})") from None
    finally:
        pyarrow.default_memory_pool().release_unused()  # it would keep as much as the vectors take
    return StoredVectors(tuple(names), np.empty((0, 0), np.float32) if rows is None else rows)


def _columns(schema: Any, of_ids: str, wanted: str, file: Path, called: str) -> list[str]:
    """The column of lists, or those of numbers."""
    from pyarrow import types

    def is_list(kind: Any) -> bool:
        return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)

    lists = [field.name for field in schema if is_list(field.type) and _is_number(field.type.value_type)]
    numbers = [field.name for field in schema if _is_number(field.type) and field.name != of_ids]
    if wanted and wanted not in lists:
        begun = [name for name in numbers if name.startswith(wanted)]
        if begun:
            return begun
    if lists or (wanted and not numbers):
        return [chosen(lists, wanted, VECTOR_NAMES, "vectors", file, called)]
    if wanted or not numbers:
        raise BenchError(
            f"{called}: {printable(file)} has no vectors{f' called {wanted!r}' if wanted else ''}; a column of lists "
            "is wanted, or a column for each number (float16, float32, float64 or int8)"
        )
    return numbers


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_floating(kind) or types.is_int8(kind))


def _numbers(batch: Any, columns: list[str], file: Path, called: str) -> np.ndarray:
    """(some, d) of the numbers of these rows, in the type of the file."""
    from pyarrow import types

    first = batch.column(columns[0])
    if any(batch.column(name).null_count for name in columns):
        raise BenchError(f"{called}: {printable(file)} has rows without a value in {columns[0]}")
    if not hasattr(first.type, "value_type"):
        return np.stack([batch.column(name).to_numpy(zero_copy_only=False) for name in columns], axis=1)
    flat = first.flatten()
    if flat.null_count:
        raise BenchError(f"{called}: {printable(file)} has vectors with a number missing in {columns[0]}")
    if not types.is_fixed_size_list(first.type):
        lengths = np.diff(first.offsets.to_numpy())
        if len(set(lengths.tolist())) > 1:
            raise BenchError(_lengths(file, called, columns[0]))
    return flat.to_numpy(zero_copy_only=False).reshape(len(first), -1)


def _lengths(file: Path, called: str, column: str) -> str:
    return f"{called}: the vectors in {column} of {printable(file)} do not all have one length"
