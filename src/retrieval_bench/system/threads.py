"""Work on many items by several threads, with few of them in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def mapped(
    function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int, *, in_order: bool = True
) -> Iterator[_Result]:
    """function(item) of each item; at most two items a thread are under way.

    Args:
        function: what the threads do.
        items: taken one by one in the calling thread, as late as possible.
        threads: at least 1.
        in_order: results come in the order of the items; else in the order in which they are ready.

    Returns:
        An iterator over the results. An error of `function` is raised where its result would be; what has not begun by
        then is not begun.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="mapped")
    under_way: deque[Future[_Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) >= 2 * threads:
                yield from _ready(under_way, in_order)
        while under_way:
            yield from _ready(under_way, in_order)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ready(under_way: deque[Future[_Result]], in_order: bool) -> Iterator[_Result]:
    """The result of the first, or of all that are ready; they are under way no more."""
    if in_order:
        yield under_way.popleft().result()
        return
    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
    for one in done:
        under_way.remove(one)
    yield from (one.result() for one in done)
