"""Clients that cost next to nothing: each answer is read whole, and one that is no success ends the measurement."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.peer_benchmarks.serving_clients import answers_a_second, posted

Serve = Callable[[list[bytes]], str]


@pytest.fixture
def served_in_pieces() -> Iterator[tuple[Serve, list[bytes]]]:
    """A server that answers each request by the same pieces, and keeps what it was asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []

        def talk(connection: socket.socket, pieces: list[bytes]) -> None:
            with connection, contextlib.suppress(ConnectionError):  # who asks may go at any moment
                while asked := connection.recv(1 << 16):
                    heard.append(asked)
                    for piece in pieces:
                        connection.sendall(piece)

        def serve(pieces: list[bytes]) -> str:
            def accept() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:  # the test is over
                        return
                    threading.Thread(target=talk, args=(connection, pieces), daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            return "http://{}:{}".format(*listener.getsockname())

        yield serve, heard
        listener.shutdown(socket.SHUT_RDWR)


def test_answers_in_pieces_are_counted_once(served_in_pieces: tuple[Serve, list[bytes]]) -> None:
    serve, heard = served_in_pieces
    address = serve([b"HTTP/1.1 200 OK\r\nContent-", b"Length: 5\r\n\r\n", b"he", b"llo"])
    requests = [posted(address, "/search", b"picture", "image/jpeg"), posted(address, "/search", b"other", "image/png")]
    rate = answers_a_second(address, requests, clients=3, seconds=0.5)
    assert 0 < rate * 0.5 <= len(heard) + 3
    assert set(heard) == set(requests)
    assert heard[0].endswith(b"Content-Length: 7\r\n\r\npicture")


@pytest.mark.parametrize(
    "pieces",
    [[b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"], [b"HTTP/1.1 200 OK\r\n\r\n"]],
    ids=["refused", "without a length"],
)
def test_an_answer_that_is_no_success_ends_it(served_in_pieces: tuple[Serve, list[bytes]], pieces: list[bytes]) -> None:
    address = served_in_pieces[0](pieces)
    with pytest.raises(BenchError, match=r"the service answered b'HTTP/1.1"):
        answers_a_second(address, [posted(address, "/", b"x", "image/png")], clients=1, seconds=5.0)
