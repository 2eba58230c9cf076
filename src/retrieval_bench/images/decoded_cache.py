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
    """Where pixels lie in the file: digest -> (first byte, shape); what decoding told of them; where the next go."""

    places: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
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
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.notes: dict[str, tuple[str, ...]] = {}
        self._file: int | None = None
        self._end = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def get(self, digest: str) -> np.ndarray | None:
        """(h, w, 3) uint8, a copy of one's own; None where it is not there."""
        place = self._places.get(digest)
        if place is None or self._file is None or not hasattr(os, "preadv"):
            return None
        start, shape = place
        pixels = np.empty(shape, np.uint8)
        try:
            read = os.preadv(self._file, [pixels.reshape(-1).data], start)
        except OSError as error:
            log.debug("stored pixels cannot be read: %s", error)
            return None
        return pixels if read == pixels.nbytes else None

    def put(self, digest: str, pixels: np.ndarray) -> None:
        write = getattr(os, "pwrite", None)
        if write is None or not hasattr(os, "preadv"):
            return
        with self._lock:
            if digest in self._places or self._end + pixels.nbytes > self._most or not self._opened():
                return
            try:
                written = write(self._file or 0, np.ascontiguousarray(pixels).data, self._end)
            except OSError as error:
                log.debug("pixels are not kept from here on: %s", error)
                self._most = 0
                return
            if written == pixels.nbytes:
                self._places[digest] = self._end, pixels.shape
                self._end += written

    @property
    def index(self) -> PixelIndex:
        """What another process needs to read the same file."""
        with self._lock:
            return PixelIndex(dict(self._places), dict(self.notes), self._end)

    def go_on_from(self, index: PixelIndex) -> None:
        """Read what another process has stored in the same file, and store behind it."""
        with self._lock:
            self._places, self._end = dict(index.places), index.end
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
