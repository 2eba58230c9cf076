"""A service that listens on a port: slow and lying clients, many at once, a client for programs, and its end."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.images.reading import encode_png
from retrieval_bench.serving import running
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.application import create_app
from retrieval_bench.serving.client import SearchClient, ServiceRefused
from retrieval_bench.serving.requests.guards import Guarded
from retrieval_bench.serving.requests.settings import ServingSettings
from retrieval_bench.serving.requests.uploads import UploadLimits
from tests.support.command import call
from tests.support.shop import picture

pytestmark = pytest.mark.slow(reason="builds an index, and listens")

LIMITS = UploadLimits(bytes=100_000, seconds=1.0, idle_seconds=0.3)
HEAD = "POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n"


@contextlib.contextmanager
def listening(service: SearchService, settings: ServingSettings) -> Iterator[str]:
    listener = running.listening("127.0.0.1", 0)
    server = running.server_of(create_app(service, settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield running.address_of(listener)
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def address(own_service: SearchService, tmp_path: Path) -> Iterator[str]:
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), upload=LIMITS, feedback=tmp_path / "feedback")
    with listening(own_service, settings) as found:
        yield found


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def connected(address: str) -> socket.socket:
    place = urlsplit(address)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def status_of(connection: socket.socket) -> int:
    """Of the answer, which is read to its end; 0: the connection was closed without one."""
    data, end = b"", 0
    with contextlib.suppress(ConnectionError):
        while (not end or len(data) < end) and (some := connection.recv(65536)):
            data += some
            if not end and b"\r\n\r\n" in data:
                length = re.search(rb"content-length: (\d+)", data)
                end = data.index(b"\r\n\r\n") + 4 + (int(length[1]) if length else 0)
    return int(data.split()[1]) if data else 0


def test_a_slow_sender_is_not_waited_for(address: str) -> None:
    with connected(address) as connection:
        connection.sendall(HEAD.format(1000).encode() + b"x")
        began = time.monotonic()
        assert status_of(connection) == 408
        assert time.monotonic() - began < 3
    with connected(address) as connection:  # never idle, and never done
        connection.sendall(HEAD.format(1000).encode())
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 5:
                connection.sendall(b"x")
                time.sleep(0.1)
                connection.settimeout(0.001)
                with contextlib.suppress(TimeoutError):
                    assert b" 408 " in connection.recv(100)
                    break
        assert 0.5 < time.monotonic() - began < 3


def test_a_length_that_lies_costs_nobody_else_anything(address: str) -> None:
    data = encode_png(picture(1, 1))
    with connected(address) as connection:  # it promises more than it may
        connection.sendall(HEAD.format(10**12).encode())
        assert status_of(connection) == 413
    with connected(address) as connection:  # more than comes
        connection.sendall(HEAD.format(len(data) + 50).encode() + data)
        assert status_of(connection) == 408
    with connected(address) as connection:  # less than comes: the rest is no request, and nobody waits for one
        connection.sendall(HEAD.format(len(data) - 50).encode() + data)
        assert status_of(connection) == 400
    with connected(address) as connection:  # two lengths
        connection.sendall(HEAD.format(5).replace("\r\n\r\n", "\r\nContent-Length: 6\r\n\r\n").encode() + b"xxxxxx")
        assert status_of(connection) == 400
    with connected(address) as connection:  # none at all, and no end
        head = HEAD.replace("Content-Length: {}", "Transfer-Encoding: chunked").encode()
        connection.sendall(head + b"186A1\r\n" + bytes(100_001) + b"\r\n")
        assert status_of(connection) == 413
    with connected(address) as connection:
        connection.sendall(HEAD.format(len(data)).encode() + data)
        assert status_of(connection) == 200


def test_headers_that_do_not_come_are_not_waited_for(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "HEADERS_S", 0.5)
    for begin in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
        with connected(address) as connection:
            connection.sendall(begin)
            began = time.monotonic()
            assert status_of(connection) == 0
            assert time.monotonic() - began < 3
    with connected(address) as connection:
        request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        for _ in range(2):  # between two requests there may be a pause
            connection.sendall(request)
            assert status_of(connection) == 200
            time.sleep(0.7)
        connection.sendall(request[:20])
        assert status_of(connection) == 0
    with connected(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000)
        assert status_of(connection) == 400


def test_a_client_for_programs_does_all_of_it(
    own_service: SearchService, address: str, closing: contextlib.ExitStack
) -> None:
    client = SearchClient(address)
    closing.callback(client.close)
    assert [one.key for one in client.methods().columns] == list(own_service.columns)
    data = encode_png(picture(2, 501))
    answer = client.search(data, k=4, label=["product-2"], threshold={"phash": 64}, crop=(0, 0, 1, 1), joined=False)
    assert [len(column.hits) for column in answer.columns] == [4, 4, 4]
    assert answer.joined is None
    assert client.search(data, text="red mug").text == "red mug"
    look = client.add([data], label="new", attributes={"colour": "red"}, preview=True)
    assert look.changes == ()
    (change,) = client.add([data], label="new", attributes={"colour": "red"}).changes
    assert client.items(label="new", attribute={"colour": "red"}).total == 1
    assert client.picture(client.items(label="new").items[0].picture)[:2] == b"\xff\xd8"
    (gone,) = client.remove([look.candidates[0].id])
    assert gone.operation is not None
    client.undo(0, gone.operation)
    assert client.operations(last=1)[0].what == "undo"
    assert client.feedback(0, change.items[0], True, known="0:3").query_id
    with pytest.raises(ServiceRefused, match="no column") as refused:
        client.search(data, methods="sift")
    assert refused.value.status == 404
    with pytest.raises(ServiceRefused, match="no service answers"):
        SearchClient("http://127.0.0.1:9").methods()


def test_beyond_the_bound_some_are_refused_and_the_others_answered(own_service: SearchService, tmp_path: Path) -> None:
    own_service.capacity = replace(own_service.capacity, requests=3)
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback")
    with listening(own_service, settings) as address:
        client, told, waits = SearchClient(address), [], []
        data = encode_png(picture(1, 7, 400))

        def ask() -> None:
            for _ in range(3):
                try:
                    client.search(data)
                    told.append(200)
                except ServiceRefused as refused:
                    told.append(refused.status)
                    waits.append(refused.retry_after)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(told) == {200, 503}
        assert min(waits) >= 1
        assert client.search(data).columns
        client.close()
    assert own_service.under_way == 0


def test_a_port_in_use_is_one_sentence(index_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = call("serve", index_folder, "--port", port)
    assert done.exit_code == 2
    assert done.stderr.strip() == f"error: port {port} is in use; choose another with --port, or --port 0 for any"
    with pytest.raises(BenchError, match="no address"):
        running.listening("nowhere.invalid", 0)


def test_without_the_extra_it_says_what_to_install(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "retrieval_bench.serving.application")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = call("serve", index_folder)
    assert done.exit_code == 2
    assert done.stderr == "error: serve needs more packages: pip install 'retrieval-bench[serve]'\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "is no index"),
        (("--methods", "random,oracle"), "no method is left"),
        (("--token", "short"), "8 to 200"),
        (("INDEX", "--dataset", "products"), "leave --dataset"),
        (("INDEX", "nowhere"), "nowhere: is no index"),
    ],
)
@pytest.mark.usefixtures("own_cache")
def test_mistakes_are_one_sentence(index_folder: Path, words: tuple[str, ...], said: str) -> None:
    given = [index_folder if word == "INDEX" else word for word in words]
    done = call("serve", *given, "--port", "0")
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.count("\n") <= 2


@pytest.mark.long(reason="starts the command in a process of its own")
@pytest.mark.skipif("sys.platform == 'win32'", reason="Windows has no SIGINT for another process")
def test_the_command_says_its_address_and_ends_when_it_is_asked_to(index_folder: Path) -> None:
    command = [sys.executable, "-m", "benchmark", "serve", str(index_folder), "--port", "0", "--read-only"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"ready: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())
        assert found is not None
        with contextlib.closing(SearchClient(found[1])) as client:
            assert client.search(encode_png(picture(1, 1))).joined is not None
        with connected(found[1]) as idle:  # who keeps a connection open keeps no service up
            idle.sendall(HEAD.format(1000).encode())
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - began < 3
        assert process.stderr is not None
        assert process.stderr.read() == ""
