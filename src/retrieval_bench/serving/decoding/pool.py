"""Children that decode, kept warm: what takes too long or too much memory ends its child, and no other request."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import psutil

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.images.decoding import Decoded
from retrieval_bench.serving.decoding.channel import Channel, Closed, shared_memory
from retrieval_bench.system.child_process import end, own_bytes, started, why_it_ended

log = logging.getLogger("retrieval_bench")

LOOK_EVERY_S = 0.05
"""How often the time and the memory of children that work are looked at."""
BYTES_A_PIXEL = 40
"""That decoding may take at its highest: 16-bit greys as float64, several times; RGBA and the white below it."""
SMALLEST_BYTES = 256 << 20
START_S = 60.0
"""For a child to load its libraries."""
_CODE = "from retrieval_bench.serving.decoding.child import main; main()"


@dataclass(frozen=True, eq=False)
class KeptPicture:
    """A picture as it is kept. pixels: (h, w, 3) uint8, those of `encoded`; suffix: ".jpg" or ".png"."""

    pixels: np.ndarray
    encoded: bytes
    suffix: str


@dataclass(eq=False)
class _Child:
    """deadline: when its work must be done, by time.monotonic; None while it has none. ended: why it was ended.

    ready: it has told that it has loaded what it needs.
    """

    process: subprocess.Popen[bytes]
    channel: Channel
    shared: int | None
    deadline: float | None = None
    ended: BadImage | None = None
    ready: bool = False


class DecodingPool:
    """Decodes in child processes. Several threads may call it at once; as many are served as there are children.

    Args:
        children: how many.
        seconds: for one picture.
        max_pixels: pictures of more are refused, by their header.
    """

    def __init__(self, children: int, seconds: float = 10.0, max_pixels: int = 50_000_000) -> None:
        self.seconds, self.max_pixels = seconds, max_pixels
        self.most_bytes = max(SMALLEST_BYTES, BYTES_A_PIXEL * max_pixels)
        self.replaced = 0
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()  # the warmest first
        self._all: list[_Child] = []
        self._gone: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        self._wanted = children
        self._closed = False
        # Linux ends a child with the very thread that started it, so one thread that stays starts them all.
        self._keeper = threading.Thread(target=self._keep, name="decoding-pool", daemon=True)
        self._keeper.start()

    def decode(self, data: bytes, wanted: int = 0) -> Decoded:
        """Decode a picture: the same pixels as `images.decoding.decoded` gives. wanted: as in `Decoding`.

        Raises BadImage where it is none, is damaged or too large, or where its decoder took too long or crashed.
        """
        header, (pixels,) = self._ask("decode", data, {"wanted": wanted})
        return Decoded(pixels.reshape(header["shape"]), tuple(header["notes"]))

    def keep(self, data: bytes) -> KeptPicture:
        """Encode a picture anew, without anything but its pixels; raises as `decode` does."""
        header, (pixels, encoded) = self._ask("keep", data)
        return KeptPicture(pixels.reshape(header["shape"]), encoded.tobytes(), header["suffix"])

    def show(self, data: bytes, side: int) -> bytes:
        """A JPEG of at most `side` pixels along the longer side; raises as `decode` does."""
        _, (encoded,) = self._ask("show", data, {"side": side})
        return encoded.tobytes()

    def wait_until_ready(self) -> None:
        """Return when all children have loaded what they need; BenchError where one cannot."""
        taken = [self._idle.get() for _ in range(self._wanted)]
        try:
            for child in taken:
                self._wait_for(child)
        except Closed:
            raise BenchError("a process that decodes pictures does not start; what it printed says why") from None
        finally:
            for child in taken:
                self._idle.put(child)

    def close(self) -> None:
        """End all children."""
        self._closed = True
        self._gone.put(None)
        self._keeper.join()

    def _ask(
        self, do: str, data: bytes, how: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        if not data:
            raise BadImage("empty file", "the file holds no byte")
        child = self._idle.get()
        try:
            self._wait_for(child)
            child.deadline = time.monotonic() + self.seconds
            child.channel.send({"do": do, "how": {"max_pixels": self.max_pixels, **(how or {})}}, [data])
            header, payloads = child.channel.receive()
        except Closed:
            self._gone.put(child)
            raise child.ended or BadImage("damaged", "its decoder crashed on it") from None
        except BaseException:
            self._gone.put(child)
            raise
        finally:
            child.deadline = None
        self._idle.put(child)
        if "reason" in header:
            raise BadImage(header["reason"], header["detail"])
        return header, payloads

    def _wait_for(self, child: _Child) -> None:
        if not child.ready:
            child.deadline = time.monotonic() + START_S
            child.channel.receive()
            child.ready, child.deadline = True, None

    def _keep(self) -> None:
        """Of the keeper: start children, look after those that work, replace those that are gone."""
        for _ in range(self._wanted):
            self._start()
        while not self._closed:
            try:
                gone = self._gone.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                gone = None
            if gone is not None:
                self._bury(gone)
                self.replaced += 1
                self._start()
            now = time.monotonic()
            for child in self._all:
                if (deadline := child.deadline) is not None:
                    self._look(child, now > deadline)
        for child in self._all:
            end(child.process)

    def _look(self, child: _Child, late: bool) -> None:
        if child.ended is not None:
            return
        try:
            held = own_bytes(child.process.pid)
        except psutil.Error:  # gone; who waits for it hears of it
            return
        if late:
            child.ended = BadImage("too slow to decode", f"it took more than {self.seconds:g} s")
        elif held > 2 * self.most_bytes:
            child.ended = BadImage("too many pixels", "decoding it takes more memory than it may")
        else:
            return
        log.warning("a picture was refused: %s", child.ended.detail)
        child.process.kill()

    def _start(self) -> None:
        shared = shared_memory()
        inherited = [] if shared is None else [shared]
        process = started(_CODE, [str(-1 if shared is None else shared), str(self.most_bytes)], inherited)
        reader, writer = cast(Any, process.stdout), cast(Any, process.stdin)
        child = _Child(process, Channel(reader, writer, shared), shared)
        self._all.append(child)
        self._idle.put(child)

    def _bury(self, child: _Child) -> None:
        self._all.remove(child)
        returncode = child.process.poll()
        if returncode is not None and child.ended is None:
            log.warning("a decoder %s", why_it_ended(returncode))
        end(child.process)
        if child.shared is not None:
            os.close(child.shared)
