"""Pictures as pages show them: small, encoded anew without anything but pixels, found by numbers alone."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from retrieval_bench.core import BadImage
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.requests.errors import NoSuchThing

SIDES = (96, 160, 240, 320, 480, 640, 960, 1280)
"""Sizes that are made; another one is rounded up, so that a client cannot make us keep any number of them."""


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """jpeg: the bytes. tag: changes when the picture does."""

    jpeg: bytes
    tag: str


class PictureCache:
    """Makes small pictures in other processes, and keeps them for a while.

    Args:
        pool: what decodes.
        most_bytes: that are kept.
    """

    def __init__(self, pool: DecodingPool, most_bytes: int = 64 << 20) -> None:
        self._pool, self._most_bytes = pool, most_bytes
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def shown(self, digest: str, side: int, read: Callable[[], bytes]) -> ShownPicture:
        """A picture of at most `side` pixels along the longer side, rounded up to one of SIDES.

        Args:
            digest: what identifies its content.
            side: pixels.
            read: gives the encoded bytes where they are needed.

        Raises:
            NoSuchThing: It cannot be read or decoded.
        """
        key = hashlib.sha256(digest.encode()).hexdigest(), _rounded(side)
        tag = digest[:20]
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return ShownPicture(known, tag)
        try:
            jpeg = self._pool.show(read(), key[1])
        except BadImage as bad:
            raise NoSuchThing(f"the picture cannot be shown: {bad.detail}") from None
        with self._lock:
            if key not in self._kept:
                self._kept[key] = jpeg
                self._bytes += len(jpeg)
            while self._bytes > self._most_bytes:
                _, gone = self._kept.popitem(last=False)
                self._bytes -= len(gone)
        return ShownPicture(jpeg, tag)


class ShownPictures:
    """The pictures of items and queries of a service.

    Args:
        service: whose pictures.
    """

    def __init__(self, service: SearchService) -> None:
        self._service = service
        self._cache = PictureCache(service.pool)

    def tag(self, index: int, number: int) -> str:
        """What identifies the picture of an item; raises NoSuchThing where there is no such item."""
        return self._service.index(index).item(number).digest[:20]

    def of_item(self, index: int, number: int, side: int) -> ShownPicture:
        """The picture of an item, removed ones among them.

        Args:
            index: number of an index.
            number: of an item in it.
            side: pixels along the longer side, rounded up to one of SIDES.

        Returns:
            The picture.

        Raises:
            NoSuchThing: There is no such item, or its picture is gone.
        """
        item = self._service.index(index).item(number)
        opened = self._service.index(index)
        return self._cache.shown(item.digest, side, lambda: opened.picture(item))

    def of_query(self, index: int, row: int, side: int) -> ShownPicture:
        """The picture of a query of an index's dataset; raises NoSuchThing."""
        queries = self._service.index(index).queries
        if not 0 <= row < len(queries):
            raise NoSuchThing(f"index {index} has no query {row}")
        return self._cache.shown(queries.images.digest(row), side, lambda: queries.images.read(row))

    def of_upload(self, word: str, side: int) -> ShownPicture:
        """The picture that was sent a moment ago; it is not kept a second time. Raises NoSuchThing."""
        kept = self._service.recent.get(word)
        if kept is None:
            raise NoSuchThing("this picture is no longer here; send it again")
        return ShownPicture(self._service.pool.show(kept.encoded, _rounded(side)), kept.digest[:20])


def _rounded(side: int) -> int:
    return next((one for one in SIDES if one >= side), SIDES[-1])
