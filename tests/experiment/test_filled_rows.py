"""Features held once: in any order, repeated, on disk where they are many, and never with a row missing."""

from __future__ import annotations

import os
import tempfile

import numpy as np
import pytest

from retrieval_bench.experiment.filled_rows import FilledRows


@pytest.mark.parametrize("most", [0, 1 << 20], ids=["on disk", "in memory"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_rows_stand_where_they_were_put(most: int, dtype) -> None:
    rows = np.arange(60).reshape(12, 5).astype(dtype)
    filled = FilledRows(12, most)
    for row in (3, 0, 11, 7, 7):
        filled.put(row, rows[row])
    assert filled.count == 4
    assert filled.has(7)
    assert not filled.has(1)
    with pytest.raises(ValueError, match="8 of 12 rows were not described"):
        filled.whole()
    for row in range(12):
        filled.put(row, rows[row])
    whole = filled.whole()
    np.testing.assert_array_equal(whole, rows)
    assert type(whole) is np.ndarray
    assert not whole.flags.writeable  # so that an index need not copy it


def test_what_occurs_twice_is_repeated() -> None:
    filled = FilledRows(4)
    filled.put(0, np.array([1.0]))
    filled.put(2, np.array([5.0]))
    filled.repeat([0, 0, 2, 0])
    np.testing.assert_array_equal(filled.whole(), [[1], [1], [5], [1]])


def test_words_stay_in_memory() -> None:
    filled = FilledRows(1, 0)
    row = np.empty(1, object)
    row[0] = ("a", "word")
    filled.put(0, row)
    assert filled.whole()[0, 0] == ("a", "word")


def test_a_row_of_another_kind_is_refused() -> None:
    filled = FilledRows(2)
    filled.put(0, np.zeros(3, np.float32))
    for other in (np.zeros(4, np.float32), np.zeros(3, np.float64)):
        with pytest.raises(ValueError, match="features of different shapes or kinds"):
            filled.put(1, other)


def test_without_room_on_disk_they_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    filled = FilledRows(1, 0)
    filled.put(0, np.ones(3, np.float32))
    assert filled.whole().base is None


def test_the_file_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    filled = FilledRows(100, 0)
    filled.put(0, np.ones(3, np.float32))
    assert list(tmp_path.iterdir()) == []
