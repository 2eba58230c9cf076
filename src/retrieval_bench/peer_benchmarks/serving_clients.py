"""Clients that cost the service next to nothing: what they ask is made before, and of what comes the status is read.

Programs that measure a service share the machine with it, so what they spend is missing there.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Sequence
from itertools import cycle
from urllib.parse import urlsplit

from retrieval_bench.core import BenchError

SILENT_S = 60.0
"""Without an answer to anybody the service is taken for dead."""
_READ_BYTES = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


def posted(address: str, path: str, body: bytes, kind: str) -> bytes:
    """A whole request for `answers_a_second`. kind: of the body, such as "image/jpeg"."""
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(address).netloc}\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answers_a_second(address: str, requests: Sequence[bytes], clients: int, seconds: float) -> float:
    """Let clients ask at once, each again as soon as it is answered.

    Args:
        address: of the service.
        requests: what they ask, in turns.
        clients: how many.
        seconds: how long.

    Returns:
        Answers a second.

    Raises:
        BenchError: An answer is no success, or none comes.
    """
    place, waiting, answers = urlsplit(address), cycle(requests), 0
    with selectors.DefaultSelector() as ready:
        try:
            for _ in range(clients):
                client = socket.create_connection((place.hostname, place.port), SILENT_S)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(client, selectors.EVENT_READ, bytearray())
                client.sendall(next(waiting))
            began = time.perf_counter()
            while (spent := time.perf_counter() - began) < seconds:
                found = ready.select(SILENT_S)
                if not found:
                    raise BenchError(f"the service at {place.netloc} answered nothing for {SILENT_S:g} s")
                for key, _ in found:
                    assert isinstance(key.fileobj, socket.socket)
                    if _read(key.fileobj, key.data):
                        answers += 1
                        key.data.clear()
                        key.fileobj.sendall(next(waiting))
            return answers / spent
        finally:
            for key in list(ready.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()


def _read(client: socket.socket, so_far: bytearray) -> bool:
    """Read what has come; whether the answer is whole. BenchError where it is no success."""
    piece = client.recv(_READ_BYTES)
    so_far += piece
    head = so_far.find(b"\r\n\r\n")
    if piece and head < 0:
        return False
    length = _LENGTH.search(so_far, 0, max(head, 0))
    if not so_far.startswith(b"HTTP/1.1 200 ") or length is None:
        raise BenchError(f"the service answered {bytes(so_far[:80])!r} while it was loaded")
    return len(so_far) >= head + 4 + int(length[1])
