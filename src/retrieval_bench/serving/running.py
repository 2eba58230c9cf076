"""A service that listens: one address, no waiting for clients that send no request, and an end within two seconds."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from retrieval_bench.core import BenchError

HEADERS_S = 10.0
"""For the headers of a request, from its first byte on; for the first request of a connection, from its start on."""
MOST_HEADER_BYTES = 64 << 10
END_S = 1


class _Impatient(HttpToolsProtocol):
    """HTTP that closes connections whose headers do not come."""

    _late: asyncio.TimerHandle | None = None
    _unfinished = 0
    """Bytes that came while headers are expected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        expected = self._late
        super().data_received(data)
        if expected is not None and expected is self._late:  # all of it belongs to headers that go on
            self._unfinished += len(data)
            if self._unfinished > MOST_HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("The headers of this request are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._stop_expecting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._late is None:
            self._unfinished = 0
            self._late = self.loop.call_later(HEADERS_S, self.transport.abort)

    def _stop_expecting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: an address of this machine, or a name of one.
        port: 0: any that is free.

    Returns:
        The socket.

    Raises:
        BenchError: The port is in use or not allowed, or the host is not this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BenchError(f"--host {host}: is no address ({error.strerror}); use 127.0.0.1") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise BenchError(f"port {port} is in use; choose another with --port, or --port 0 for any") from None
        raise BenchError(f"{host}, port {port}: cannot be listened at ({error.strerror}); choose another") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """What one types into a browser."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def server_of(app: Any) -> uvicorn.Server:
    """A server for an application."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_Impatient,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # what a bug of ours raises, the application logs itself
            access_log=False,
            proxy_headers=False,  # a client could say that it is another one
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=END_S,
        )
    )


def run(app: Any, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until the process is asked to end (SIGINT, SIGTERM).

    Args:
        app: the application.
        listener: where it is asked.
        ready: called when clients may come.
    """
    server = server_of(app)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: the collector need not walk through all libraries again and again
    ready()
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn, after it has ended in order
        server.run(sockets=[listener])
