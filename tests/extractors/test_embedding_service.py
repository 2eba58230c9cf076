"""`embed:URL` against a real server on the loopback: each shape of answer, retries, limits, and sentences."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_bench.core import BenchError, Setup
from retrieval_bench.extractors import embedding_service
from retrieval_bench.extractors.embedding_service import ServiceFeatures, vectors_of
from retrieval_bench.registry import EXTRACTORS, parse
from tests.support.pictures import photo_of

IMAGES = [np.asarray(photo_of(40 + 9 * seed, 50, seed)) for seed in range(5)]
Answer = tuple[int, Any, dict[str, str]]


def vector(image: bytes) -> list[float]:
    """What the server computes: the mean colour and the size, from the real picture."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.float64)
    return [*pixels.mean((0, 1)).tolist(), *map(float, pixels.shape[:2])]


def expected(images: list[np.ndarray]) -> np.ndarray:
    return np.array([[*image.mean((0, 1)), *image.shape[:2]] for image in images], np.float32)


@dataclass
class Service:
    """answer: (path, headers, body) -> (status, JSON or bytes, headers). asked: what came."""

    answer: Callable[[str, Any, bytes], Answer]
    asked: list[tuple[str, Any, bytes]] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, Any, bytes], Answer]], Service]]:
    servers = []

    def start(answer: Callable[[str, Any, bytes], Answer]) -> Service:
        service = Service(answer)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.asked.append((self.path, self.headers, body))
                status, content, headers = service.answer(self.path, self.headers, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(data))}).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
                    self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        service.address = f"http://127.0.0.1:{server.server_port}"
        return service

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_service, "BACKOFF_SECONDS", 0.0)


def build(text: str) -> ServiceFeatures:
    return parse(EXTRACTORS, text).build(Setup())


def raw(path: str, headers: Any, body: bytes) -> Answer:
    return 200, vector(body), {}


def from_url(text: str) -> bytes:
    head, _, data = text.partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data)


def openai(path: str, headers: Any, body: bytes) -> Answer:
    asked = json.loads(body)
    found = [{"index": n, "embedding": vector(from_url(one))} for n, one in enumerate(asked["input"])]
    return 200, {"object": "list", "model": asked["model"], "data": found[::-1]}, {}


def in_base64(path: str, headers: Any, body: bytes) -> Answer:
    rows = [np.array(vector(base64.b64decode(one["image"])), "<f4") for one in json.loads(body)["input"]]
    return 200, {"data": [{"embedding": base64.b64encode(row.tobytes()).decode()} for row in rows]}, {}


def tei(path: str, headers: Any, body: bytes) -> Answer:
    return 200, [vector(from_url(one)) for one in json.loads(body)["inputs"]], {}


def clip(path: str, headers: Any, body: bytes) -> Answer:
    asked = json.loads(body)
    assert asked["execEndpoint"] == "/"
    return 200, {"data": [{"embedding": vector(base64.b64decode(one["blob"]))} for one in asked["data"]]}, {}


@pytest.mark.parametrize(
    ("answer", "rest", "requests"),
    [
        (raw, "/vector", 5),
        (lambda *asked: (200, {"vector": raw(*asked)[1]}, {}), "/v", 5),
        (openai, "/v1/embeddings:model=clip-b:batch=2", 3),
        (openai, "/v1/embeddings:api=infinity:batch=5", 1),
        (in_base64, "/v1/embeddings:api=jina", 1),
        (tei, "/embed", 1),
        (lambda *asked: (200, {"embeddings": {"float": tei(*asked)[1]}}, {}), "/embed", 1),
        (clip, "/post:batch=3", 2),
    ],
)
def test_every_kind_of_service_gives_its_vectors(serve: Any, answer: Any, rest: str, requests: int) -> None:
    service = serve(answer)
    extractor = build(f"embed:{service.address}{rest}")
    before = len(service.asked)
    np.testing.assert_allclose(extractor.transform(IMAGES), expected(IMAGES), rtol=1e-5)
    assert len(service.asked) - before == requests


def test_the_record_says_where_and_what_but_no_key(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "s3cr3t")
    service = serve(raw)
    extractor = build(f"embed:{service.address}/v:key_env=SECRET_OF_MINE:cost=0.002")
    facts = extractor.weights
    assert service.asked[0][1]["Authorization"] == "Bearer s3cr3t"
    assert facts["source"] == f"service at {service.address}/v"
    assert facts["cost"] == "0.002 an image, as stated"
    assert "times include the call" in facts["notice"]
    assert "1,000 images cost 2, as stated" in facts["notice"]
    assert "s3cr3t" not in str(facts)


def test_another_model_behind_the_url_has_another_digest(serve: Any) -> None:
    digests = {
        build(
            f"embed:{serve(lambda path, headers, body, s=s: (200, [v + s for v in vector(body)], {})).address}/v"
        ).weights["sha256"]
        for s in (0.0, 1e-6)
    }
    assert len(digests) == 1
    other = serve(lambda path, headers, body: (200, [*vector(body), 1.0], {}))
    assert build(f"embed:{other.address}/v").weights["sha256"] not in digests


def test_what_fails_for_a_while_is_asked_again(serve: Any) -> None:
    left = iter([503, 429, 502])

    def shaky(path: str, headers: Any, body: bytes) -> Answer:
        status = next(left, 200)
        return (200, vector(body), {}) if status == 200 else (status, b"busy", {"Retry-After": "0"})

    service = serve(shaky)
    extractor = build(f"embed:{service.address}/v")
    assert len(service.asked) == 4
    np.testing.assert_allclose(extractor.transform(IMAGES[:1]), expected(IMAGES[:1]), rtol=1e-5)


@pytest.mark.parametrize(
    ("answer", "options", "sentence"),
    [
        (lambda *asked: (503, b"overloaded", {}), ":retries=1", "the service answers 503: overloaded"),
        (
            lambda *asked: (404, b"no such path", {}),
            "",
            "answers 404: no such path; api=raw posts the bytes of one image",
        ),
        (lambda *asked: (401, b"", {}), "", r"refuses \(401\); put its key into an environment variable"),
        (lambda *asked: (302, b"", {"Location": "/w"}), "", "answers 302"),
        (lambda *asked: (200, b"<html>", {}), "", "api=raw posts the bytes"),
        (lambda *asked: (200, {"error": "x"}, {}), "", "its answer has no vectors but 'error'"),
        (lambda *asked: (200, [[1.0], [2.0]], {}), "", "has 2 vectors for 1 images"),
        (lambda *asked: (200, ["a b"], {}), "", "hold something else than numbers"),
        (lambda *asked: (200, [[]], {}), "", "vectors of no or of different lengths"),
        (lambda *asked: (200, [[1.0, float("nan")]], {}), "", "vectors with NaN, or with numbers that are too large"),
        (lambda *asked: (200, [[1.0, 1e39]], {}), "", "vectors with NaN, or with numbers that are too large"),
        (
            lambda *asked: time.sleep(0.5) or (200, [1.0], {}),
            ":timeout=0.05:retries=0",
            r"no answer \(it takes too long\), asked 1 times",
        ),
    ],
)
def test_what_is_no_vector_is_a_sentence(serve: Any, answer: Any, options: str, sentence: str) -> None:
    service = serve(answer)
    with pytest.raises(BenchError, match=sentence):
        build(f"embed:{service.address}/v{options}")


def test_nobody_there_is_a_sentence() -> None:
    with pytest.raises(BenchError, match=r"no answer \(.*[Rr]efused.*\), asked 1 times; is the service running there"):
        build("embed:http://127.0.0.1:9/v:retries=0")


def test_the_limit_of_images_holds(serve: Any) -> None:
    service = serve(raw)
    extractor = build(f"embed:{service.address}/v:most=3")
    extractor.transform(IMAGES[:2])
    with pytest.raises(BenchError, match=r"most=3 images are used up; give a larger most="):
        extractor.transform(IMAGES[2:3])
    assert len(service.asked) == 3


def test_no_more_requests_at_once_than_allowed(serve: Any) -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(path: str, headers: Any, body: bytes) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return raw(path, headers, body)

    extractor = build(f"embed:{serve(slow).address}/v:at_once=2")
    threads = [threading.Thread(target=extractor.transform, args=([image],)) for image in IMAGES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_images_may_be_sent_smaller(serve: Any) -> None:
    extractor = build(f"embed:{serve(raw).address}/v:size=16:send=jpeg")
    (row,) = extractor.transform([IMAGES[0]])
    assert max(row[3:]) == 16


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("embed:ftp://h/v", "is no address of a service; write embed:http://HOST:PORT/PATH"),
        ("embed:nonsense", "is no address of a service"),
        ("embed:http://h:99999/v", "is no address of a service"),
        ("embed:http://[::1/v", "is no address of a service"),
        ("embed:http://h/v:batch=0", "batch=0 is not between 1 and 10000"),
        ("embed:http://h/v:timeout=0", "timeout=0 must be above 0 and at most 3600"),
        ("embed:http://h/v:key_env=NOT_SET_HERE", "NOT_SET_HERE, which key_env names, is not set"),
        ("embed", "say which; write embed:URL"),
    ],
)
def test_a_mistake_in_the_options_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        build(text)


def test_vectors_keep_the_order_of_the_images() -> None:
    answer = {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]}
    np.testing.assert_array_equal(vectors_of(answer, 2), [[1, 2], [3, 4]])
