"""Rows and vectors as PostgreSQL's binary format has them, made by NumPy all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

Kind = Literal["vector", "halfvec", "bit"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_ROWS_AT_ONCE = 4096


def values_of(kind: Kind, vectors: np.ndarray) -> np.ndarray:
    """(n, d) float32 or uint8 -> (n, bytes) uint8: each row as a value of its type."""
    n, d = vectors.shape
    if kind == "bit":
        head = np.frombuffer(np.array(8 * d, ">i4").tobytes(), np.uint8)
        body = vectors
    else:
        head = np.frombuffer(np.array([d, 0], ">i2").tobytes(), np.uint8)
        with np.errstate(over="ignore"):
            body = np.ascontiguousarray(vectors.astype(">f2" if kind == "halfvec" else ">f4")).view(np.uint8)
    whole = np.empty((n, len(head) + body.shape[1]), np.uint8)
    whole[:, : len(head)], whole[:, len(head) :] = head, body
    return whole


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
