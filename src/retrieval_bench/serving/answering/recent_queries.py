"""Pictures that were searched for a moment ago, in memory alone, so that a page can search again with another setting.

A picture is found by a random word that only its page knows. Nothing of it is on a disk, unless a user
judges what was found and the service keeps pictures of such queries (`feedback.py`).
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(eq=False)
class RecentQuery:
    """encoded: as it was sent. digest: sha256 of that. pixels: (h, w, 3) uint8, upright; None: to be decoded again.

    Who has decoded it tells `RecentQueries.decoded`. held: it is among those that are found.
    """

    encoded: bytes
    digest: str
    pixels: np.ndarray | None
    held: bool = False

    @classmethod
    def of(cls, encoded: bytes) -> Self:
        """A picture that nobody has decoded yet."""
        return cls(encoded, hashlib.sha256(encoded).hexdigest(), None)


class RecentQueries:
    """The last pictures, each for a while.

    Args:
        most: pictures; the oldest go first.
        most_bytes: of all encoded pictures together.
        most_pixel_bytes: of all pixels together; where there are more, the oldest pictures keep none.
        seconds: how long a picture stays after it was last asked for.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        most: int = 256,
        most_bytes: int = 128 << 20,
        most_pixel_bytes: int = 64 << 20,
        seconds: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._most_bytes, self._most_pixel_bytes = most, most_bytes, most_pixel_bytes
        self._seconds, self._clock = seconds, clock
        self._held: OrderedDict[str, tuple[float, RecentQuery]] = OrderedDict()
        self._with_pixels: OrderedDict[int, RecentQuery] = OrderedDict()
        """Those that are held and have pixels, by `id`, the first to lose them first."""
        self._lock = threading.Lock()
        self._bytes = self._pixel_bytes = 0

    def put(self, query: RecentQuery) -> str:
        """Keep a picture; returns the word by which it is found."""
        word = secrets.token_urlsafe(18)
        with self._lock:
            self._held[word] = (self._clock(), query)
            query.held = True
            self._bytes += len(query.encoded)
            self._count(query)
            self._forget()
        return word

    def get(self, word: str) -> RecentQuery | None:
        """The picture of that word, if it is still here."""
        with self._lock:
            self._forget()
            found = self._held.get(word)
            if found is None:
                return None
            self._held[word] = (self._clock(), found[1])
            self._held.move_to_end(word)
            if found[1].pixels is not None:
                self._with_pixels.move_to_end(id(found[1]))
            return found[1]

    def decoded(self, query: RecentQuery, pixels: np.ndarray) -> None:
        """Keep the pixels of a picture, too."""
        with self._lock:
            if query.pixels is None:
                query.pixels = pixels
                if query.held:
                    self._count(query)
                self._forget()

    def __len__(self) -> int:
        return len(self._held)

    def _forget(self) -> None:
        now = self._clock()
        while self._held:
            seen, query = next(iter(self._held.values()))
            fits = len(self._held) <= self._most and self._bytes <= self._most_bytes
            if fits and now - seen <= self._seconds:
                break
            self._held.popitem(last=False)
            self._bytes -= len(query.encoded)
            self._drop(query)
            query.held = False
        while self._pixel_bytes > self._most_pixel_bytes:
            self._drop(next(iter(self._with_pixels.values())))

    def _count(self, query: RecentQuery) -> None:
        if query.pixels is not None:
            self._pixel_bytes += query.pixels.nbytes
            self._with_pixels[id(query)] = query

    def _drop(self, query: RecentQuery) -> None:
        self._pixel_bytes -= 0 if query.pixels is None else query.pixels.nbytes
        query.pixels = None
        self._with_pixels.pop(id(query), None)
