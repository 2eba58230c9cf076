"""Images that are decoded once for all methods: their pixels wait in a nameless file until the run is over.

Not in memory, since photos are large and methods are many; the system keeps of the file what fits. Who measures how
long decoding takes asks for the images themselves (`fresh`).
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import threading
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from retrieval_bench.core import Images
from retrieval_bench.images.reading import DecodedBy

log = logging.getLogger("retrieval_bench")

MOST_BYTES = 8 << 30
"""What the file may grow to, if so much is free twice over. Images beyond it are decoded whenever they are wanted."""


@dataclass(frozen=True)
class PixelIndex:
    """Where pixels lie in the file, as another process needs it. There may be a million, so it is packed.

    digests: of each picture, a line each. starts, heights, widths: of the same pictures, where the first byte of each
    lies, and its size. notes: by digest, what decoding told. end: where the next pixels go.
    """

    digests: str = ""
    starts: array[int] = field(default_factory=lambda: array("Q"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    widths: array[int] = field(default_factory=lambda: array("I"))
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    end: int = 0


class PixelStore:
    """Pixels by digest. Safe to use from several threads.

    directory: where the file lies; by default that of temporary files. It has no name, so nothing is left behind,
    however the process ends. A full disk ends the storing, not the run; where a system cannot read and write at a
    place of a file in one step (Windows), nothing is stored.
    notes: by digest, what decoding told of the images that it told something of.
    file: a descriptor of the file, where it is there already; it is not closed.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, directory: str | None = None, *, file: int | None = None) -> None:
        self._most, self._directory, self._given = most_bytes, directory, file
        # A number for each digest and arrays by number take a quarter of the memory of a tuple for each.
        self._numbers: dict[str, int] = {}
        self._starts, self._heights, self._widths = array("Q"), array("I"), array("I")
        self.notes: dict[str, tuple[str, ...]] = {}
        self._file: int | None = None
        self._end = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def get(self, digest: str) -> np.ndarray | None:
        """(h, w, 3) uint8, a copy of one's own; None where it is not there."""
        number = self._numbers.get(digest)
        if number is None or self._file is None or not hasattr(os, "preadv"):
            return None
        pixels = np.empty((self._heights[number], self._widths[number], 3), np.uint8)
        try:
            read = os.preadv(self._file, [pixels.reshape(-1).data], self._starts[number])
        except OSError as error:
            log.debug("stored pixels cannot be read: %s", error)
            return None
        return pixels if read == pixels.nbytes else None

    def put(self, digest: str, pixels: np.ndarray) -> None:
        write = getattr(os, "pwrite", None)
        if write is None or not hasattr(os, "preadv"):
            return
        with self._lock:
            if digest in self._numbers or self._end + pixels.nbytes > self._most or not self._opened():
                return
            try:
                written = write(self._file or 0, np.ascontiguousarray(pixels).data, self._end)
            except OSError as error:
                log.debug("pixels are not kept from here on: %s", error)
                self._most = 0
                return
            if written == pixels.nbytes:
                self._starts.append(self._end)
                self._heights.append(pixels.shape[0])
                self._widths.append(pixels.shape[1])
                self._numbers[digest] = len(self._starts) - 1  # last: `get` asks without the lock
                self._end += written

    @property
    def index(self) -> PixelIndex:
        """What another process needs to read the same file."""
        with self._lock:
            sizes = self._starts[:], self._heights[:], self._widths[:]
            return PixelIndex("\n".join(self._numbers), *sizes, dict(self.notes), self._end)

    def go_on_from(self, index: PixelIndex) -> None:
        """Read what another process has stored in the same file, and store behind it."""
        with self._lock:
            digests = index.digests.split("\n") if index.digests else []
            self._numbers = {digest: number for number, digest in enumerate(digests)}
            self._starts, self._heights, self._widths = index.starts[:], index.heights[:], index.widths[:]
            self._end = index.end
            self.notes = dict(index.notes)
            self._file = self._given

    def _opened(self) -> bool:
        if self._file is not None:
            return True
        try:
            if self._given is not None and sys.platform != "win32":
                free = os.fstatvfs(self._given)
                self._most = min(self._most, free.f_bavail * free.f_frsize // 2)
                self._file = self._given
                return self._most > 0
            self._file, path = tempfile.mkstemp(prefix="retrieval_bench-pixels-", dir=self._directory)
            os.unlink(path)
            self._most = min(self._most, shutil.disk_usage(os.path.dirname(path)).free // 2)
        except OSError as error:
            log.debug("pixels are not kept: %s", error)
            self._most = 0
            return False
        weakref.finalize(self, os.close, self._file)
        return self._most > 0


class DecodedOnce:
    """The same images; what has been decoded is taken from the store. Implements `core.Images`."""

    def __init__(self, images: Images, store: PixelStore) -> None:
        self.images, self._store = images, store

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> np.ndarray:
        digest = self.images.digest(row)
        pixels = self._store.get(digest)
        if pixels is None:
            if isinstance(self.images, DecodedBy):
                pixels, notes = self.images.decoded(row)
                if notes:
                    self._store.notes[digest] = notes
            else:
                pixels = self.images[row]
            self._store.put(digest, pixels)
        return pixels

    def notes(self, row: int) -> tuple[str, ...]:
        """What decoding told of an image, of `decoding.NOTES`; it has been decoded before."""
        return self._store.notes.get(self.digest(row), ())

    def read(self, row: int) -> bytes:
        return self.images.read(row)

    def digest(self, row: int) -> str:
        return self.images.digest(row)

    def take(self, rows: Sequence[int]) -> DecodedOnce:
        return DecodedOnce(self.images.take(rows), self._store)


def fresh(images: Images) -> Images:
    """The images themselves, decoded at every access."""
    return images.images if isinstance(images, DecodedOnce) else images
