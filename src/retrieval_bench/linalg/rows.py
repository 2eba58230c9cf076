"""Rows and vectors of length 1, and packed bits as numbers."""

from __future__ import annotations

import math

import numpy as np


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """(n, d) floats -> the same dtype, each row at length 1; rows of zeros stay as they are."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def unit_rows_of_any_size(rows: np.ndarray) -> np.ndarray:
    """The same of rows whose squares may leave the range of float32: each is divided by its largest number first."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1).astype(np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    """(d,) floats -> (d,) float32 at length 1, which is summed in float64; zeros stay zeros."""
    length = math.sqrt(np.add.reduce(np.square(vector, dtype=np.float64)))
    return (vector / length).astype(np.float32, copy=False) if length > 0 else vector.astype(np.float32)


def signs(codes: np.ndarray) -> np.ndarray:
    """(n, bytes) packed uint8 -> (n, 8 * bytes) float32, -1 for each 0 and +1 for each 1."""
    return np.unpackbits(codes, axis=1).astype(np.float32) * np.float32(2) - np.float32(1)
