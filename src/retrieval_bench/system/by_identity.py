"""Results that are kept as long as the very arrays live that they were computed from."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np

_Arrays = ParamSpec("_Arrays")
_Result = TypeVar("_Result")

KEPT = 4
"""Results of one function: as many as there are methods at work at once."""


def by_identity(function: Callable[_Arrays, _Result]) -> Callable[_Arrays, _Result]:
    """Remember what a function of arrays gave for the last few arrays: the same objects, not equal ones.

    To compare contents would take longer than what is saved. So nobody may write into the arrays afterwards. Neither
    the arrays nor the results are kept longer than the arrays live elsewhere. Several threads may call at once; where
    two come first with the same arrays, both compute.

    Args:
        function: takes arrays, by position; its result holds none of them.

    Returns:
        The same function. For the same arrays it gives the same object again.
    """
    kept: list[tuple[list[weakref.ref[np.ndarray]], _Result]] = []  # replaced whole: who reads it needs no lock

    def forget(_: weakref.ref[np.ndarray]) -> None:
        nonlocal kept
        kept = [one for one in kept if all(reference() is not None for reference in one[0])]

    @functools.wraps(function)
    def remembering(*arrays: _Arrays.args, **named: _Arrays.kwargs) -> _Result:
        nonlocal kept
        for known, result in kept:
            if all(reference() is array for reference, array in zip(known, arrays, strict=True)):
                return result
        result = function(*arrays, **named)
        kept = [([weakref.ref(array, forget) for array in arrays], result), *kept[: KEPT - 1]]  # type: ignore[arg-type]
        return result

    return remembering
