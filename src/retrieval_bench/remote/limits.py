"""Limits of every request: time, attempts and bytes; and how it is repeated where it fails for a while."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from retrieval_bench.core import BenchError

T = TypeVar("T")

TIMEOUT = "RETRIEVAL_BENCH_TIMEOUT"
REQUESTS = "RETRIEVAL_BENCH_REQUESTS"
MOST_BYTES = "RETRIEVAL_BENCH_MAX_DOWNLOAD"
RETRIES = 3
BACKOFF_SECONDS = 0.2
CONNECT_SECONDS = 3.0
LONGEST_WAIT = 5.0
"""Seconds between two attempts, at most, whatever a server asks for."""


class Again(Exception):
    """A request failed in a way that may pass. The text says how, as the end of a sentence."""

    def __init__(self, why: str, wait: float = 0.0, last: bool = False) -> None:
        super().__init__(why)
        self.wait, self.last = wait, last


@dataclass(frozen=True)
class Limits:
    """What the user's environment says.

    Args:
        timeout: seconds without a byte after which an answer is given up.
        requests: open requests, at most.
        most: bytes of one file, or of one range of it, at most.
    """

    timeout: float = 10.0
    requests: int = 8
    most: int = 256 * 2**20

    @property
    def total(self) -> float:
        """Seconds that one answer may take in all, however slowly its bytes come."""
        return 30 * self.timeout


def limits() -> Limits:
    """The limits as they are now. BenchError where a variable is no number in its range."""
    return Limits(
        _number(TIMEOUT, Limits.timeout, 0.05, 3600),
        int(_number(REQUESTS, Limits.requests, 1, 256)),
        int(_number(MOST_BYTES, Limits.most, 1, 2**50)),
    )


def _number(name: str, default: float, least: float, most: float) -> float:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BenchError(f"{name}={text!r}: write a number from {least:,g} to {most:,}")
    return value


@cache
def _turns(requests: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(requests)


def asked(work: Callable[[Limits], T], url: str, host: str) -> T:
    """Make a request, and repeat it where it fails for a while; no more at a time than the limits allow.

    Args:
        work: one attempt; raises `Again` for what may pass.
        url: what is asked for, for the sentence.
        host: who is asked.

    Returns:
        What `work` returns.

    Raises:
        BenchError: It failed each time.
    """
    allowed = limits()
    turns = _turns(allowed.requests)
    attempts = 0
    while True:
        attempts += 1
        try:
            with turns:
                return work(allowed)
        except Again as failed:
            if attempts > RETRIES or (failed.last and attempts > 1):
                times = "once" if attempts == 1 else f"{attempts} times"
                raise BenchError(
                    f"{url}: {host} gives no whole answer ({failed}), asked {times}; is it reachable from here? What "
                    f"was read before is kept: run again, or wait longer with {TIMEOUT}=SECONDS"
                ) from None
            wait = max(failed.wait, BACKOFF_SECONDS * 2 ** (attempts - 1) * random.uniform(0.5, 1.0))
        time.sleep(min(wait, LONGEST_WAIT))
