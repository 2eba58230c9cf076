"""Pictures as pages show them: small, encoded anew without anything but pixels, found by numbers alone."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from retrieval_bench.core import BadImage
from retrieval_bench.serving.open_indexes import NoSuchThing
from retrieval_bench.serving.service import SearchService

SIDES = (96, 160, 240, 320, 480, 640, 960, 1280)
"""Sizes that are made; another one is rounded up, so that a client cannot make us keep any number of them."""


@dataclass(frozen=True, eq=False)
class ShownPicture:
    """jpeg: the bytes. tag: changes when the picture does."""

    jpeg: bytes
    tag: str


class ShownPictures:
    """Makes pictures to be shown, and keeps those of items and queries for a while.

    Args:
        service: whose pictures.
        most_bytes: that are kept.
    """

    def __init__(self, service: SearchService, most_bytes: int = 64 << 20) -> None:
        self._service, self._most_bytes = service, most_bytes
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

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
        return self._shown(item.digest, side, lambda: opened.picture(item))

    def of_query(self, index: int, row: int, side: int) -> ShownPicture:
        """The picture of a query of an index's dataset; raises NoSuchThing."""
        queries = self._service.index(index).queries
        if not 0 <= row < len(queries):
            raise NoSuchThing(f"index {index} has no query {row}")
        return self._shown(queries.images.digest(row), side, lambda: queries.images.read(row))

    def of_upload(self, word: str, side: int) -> ShownPicture:
        """The picture that was sent a moment ago; it is not kept a second time. Raises NoSuchThing."""
        kept = self._service.recent.get(word)
        if kept is None:
            raise NoSuchThing("this picture is no longer here; send it again")
        return ShownPicture(self._service.pool.show(kept.encoded, _rounded(side)), kept.digest[:20])

    def _shown(self, digest: str, side: int, read: Callable[[], bytes]) -> ShownPicture:
        key = hashlib.sha256(digest.encode()).hexdigest(), _rounded(side)
        tag = digest[:20]
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return ShownPicture(known, tag)
        try:
            jpeg = self._service.pool.show(read(), key[1])
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


def _rounded(side: int) -> int:
    return next((one for one in SIDES if one >= side), SIDES[-1])
