"""What was computed from arrays is kept for those arrays, and for no others."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from retrieval_bench.system.by_identity import KEPT, by_identity


class CountedSum:
    """A sum of two arrays, and how often it was computed."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.calls += 1
        return a + b


def test_the_same_arrays_are_computed_once_and_equal_ones_again() -> None:
    counted = CountedSum()
    summed = by_identity(counted)
    a, b = np.arange(3), np.ones(3)
    assert summed(a, b) is summed(a, b)
    assert counted.calls == 1
    np.testing.assert_array_equal(summed(a.copy(), b), summed(a, b))
    np.testing.assert_array_equal(summed(b, a), a + b)
    assert counted.calls == 3


def test_only_the_last_few_are_kept() -> None:
    counted = CountedSum()
    summed = by_identity(counted)
    arrays = [np.full(2, value) for value in range(KEPT + 1)]
    for array in arrays:
        summed(array, array)
    summed(arrays[-KEPT], arrays[-KEPT])
    assert counted.calls == KEPT + 1
    summed(arrays[0], arrays[0])
    assert counted.calls == KEPT + 2


def test_arrays_and_what_was_made_of_them_do_not_outlive_their_user() -> None:
    summed = by_identity(CountedSum())
    a = np.zeros(2)
    array, result = weakref.ref(a), weakref.ref(summed(a, a))
    del a
    gc.collect()
    assert array() is None
    assert result() is None


def test_threads_with_arrays_of_their_own_get_their_own_results() -> None:
    summed = by_identity(CountedSum())
    arrays = [np.full(50, value) for value in range(KEPT + 2)]
    with ThreadPoolExecutor(KEPT + 2) as pool:
        for value, result in pool.map(lambda k: (k % len(arrays), summed(*[arrays[k % len(arrays)]] * 2)), range(3000)):
            assert (result == 2 * value).all()
