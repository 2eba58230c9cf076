"""Rows and vectors as PostgreSQL's binary format has them, made by NumPy all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import pack
from typing import Literal

import numpy as np

Kind = Literal["vector", "halfvec", "bit"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_ROWS_AT_ONCE = 4096


def values_of(kind: Kind, vectors: np.ndarray) -> np.ndarray:
    """(n, d) float32 or uint8 -> (n, bytes) uint8: each row as a value of its type."""
    body = _body(kind, vectors).view(np.uint8)
    whole = np.empty((len(vectors), 4 + body.shape[1]), np.uint8)
    whole[:, :4], whole[:, 4:] = np.frombuffer(_head(kind, vectors.shape[1]), np.uint8), body
    return whole


def value_of(kind: Kind, vector: np.ndarray) -> bytes:
    """(d,) -> one such value."""
    return _head(kind, len(vector)) + _body(kind, vector).tobytes()


def vectors_of(kind: Kind, values: Sequence[bytes], columns: int) -> np.ndarray:
    """n values of a type, as the server sends them -> (n, d) float32, or (n, bytes) uint8."""
    head = len(_head(kind, columns))
    body = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1)[:, head:]
    if kind == "bit":
        return body
    return np.ascontiguousarray(body).view(">f4" if kind == "vector" else ">f2").astype(np.float32)


def _head(kind: Kind, columns: int) -> bytes:
    return pack(">i", 8 * columns) if kind == "bit" else pack(">hh", columns, 0)


def _body(kind: Kind, vectors: np.ndarray) -> np.ndarray:
    if kind == "bit":
        return vectors
    if kind == "vector":
        return vectors.astype(">f4", order="C")
    with np.errstate(over="ignore"):
        return vectors.astype(">f2", order="C")


def copied(ids: np.ndarray, columns: Sequence[np.ndarray], kind: Kind, vectors: np.ndarray) -> Iterator[bytes]:
    """What `COPY ... FROM STDIN (FORMAT binary)` reads: id, columns, vector of each row; some thousand at a time."""
    yield HEADER
    for first in range(0, len(ids), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        values = values_of(kind, vectors[part])
        numbers = np.stack([ids[part], *(column[part] for column in columns)], axis=1).astype(">i8")
        fields = [("fields", ">i2"), ("numbers", [("size", ">i4"), ("value", ">i8")], (numbers.shape[1],))]
        rows = np.empty(len(values), [*fields, ("size", ">i4"), ("value", np.uint8, (values.shape[1],))])
        rows["fields"] = numbers.shape[1] + 1
        rows["numbers"]["size"], rows["numbers"]["value"] = 8, numbers
        rows["size"], rows["value"] = values.shape[1], values
        yield rows.tobytes()
    yield TRAILER
