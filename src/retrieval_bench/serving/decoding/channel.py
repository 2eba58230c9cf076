"""Messages between this process and a child that decodes for it: a line of JSON, and arrays of bytes.

On Linux the bytes go through memory that both share, with one call on each side. Through a pipe they would come in
pieces of 64 KiB, for each of which a server that is busy waits its turn to run Python again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

_KEEP_BYTES = 16 << 20
"""Shared memory that is not given back between two messages."""
_MOST_HEADER = 1 << 16


class Closed(Exception):
    """The other side is gone."""


def shared_memory() -> int | None:
    """A descriptor of memory that a child can inherit; None where the system has none. Nothing of it is on a disk."""
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return None
    try:
        return os.memfd_create("retrieval_bench-pixels", 0)
    except OSError:
        return None


class Channel:
    """One end. Both ends take turns: who has sent waits for the answer.

    Args:
        reader: what the other side writes.
        writer: what the other side reads.
        shared: the same shared memory on both sides; None: bytes go through the streams.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO, shared: int | None) -> None:
        self._reader, self._writer, self._shared = reader, writer, shared

    def send(self, header: Mapping[str, Any], payloads: Sequence[bytes | np.ndarray] = ()) -> None:
        """Send a message.

        Args:
            header: what JSON can hold; "sizes" is ours.
            payloads: bytes, or contiguous uint8 arrays.

        Raises:
            Closed: The other side is gone.
        """
        views = [_bytes_of(payload) for payload in payloads]
        sizes = [len(view) for view in views]
        line = json.dumps({**header, "sizes": sizes}).encode() + b"\n"
        try:
            if self._shared is not None:
                at = 0
                for view in views:
                    at += _written(self._shared, view, at)
            self._writer.write(line)
            if self._shared is None:
                for view in views:
                    self._writer.write(view)
            self._writer.flush()
        except (OSError, ValueError):  # a stream that `end` has closed
            raise Closed from None

    def receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Wait for a message.

        Returns:
            Its header, and its payloads as uint8 arrays of one dimension.

        Raises:
            Closed: The other side is gone, in the middle of a message or before it.
        """
        try:
            line = self._reader.readline(_MOST_HEADER)
            if not line.endswith(b"\n"):
                raise Closed
            header = json.loads(line)
            payloads = []
            at = 0
            for size in header["sizes"]:
                payload = np.empty(size, np.uint8)
                if self._shared is None:
                    _read(self._reader, payload)
                else:
                    at += _read_at(self._shared, payload, at)
                payloads.append(payload)
            if self._shared is not None and at > _KEEP_BYTES:
                os.ftruncate(self._shared, 0)
        except (OSError, ValueError, KeyError, TypeError):
            raise Closed from None
        return header, payloads


def _bytes_of(payload: bytes | np.ndarray) -> memoryview:
    return memoryview(payload.reshape(-1).data if isinstance(payload, np.ndarray) else payload)


def _written(descriptor: int, view: memoryview, start: int) -> int:
    write = getattr(os, "pwrite", None)
    if write is None:  # where there is none, there is no shared memory
        raise Closed
    done = 0
    while done < len(view):
        done += write(descriptor, view[done:], start + done)
    return done


def _read_at(descriptor: int, into: np.ndarray, start: int) -> int:
    if not hasattr(os, "preadv"):  # where there is none, there is no shared memory
        raise Closed
    done = 0
    while done < len(into):
        got = os.preadv(descriptor, [into[done:].data], start + done)
        if not got:
            raise Closed
        done += got
    return done


def _read(reader: BinaryIO, into: np.ndarray) -> None:
    done = 0
    while done < len(into):
        got = reader.readinto(into[done:].data)  # type: ignore[attr-defined]
        if not got:
            raise Closed
        done += got
