"""The parts of the service that need no index: the queue, the bounds, who may ask, what is kept in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Bundle
from retrieval_bench.methods.fusion import rrf
from retrieval_bench.search.index import ExactIndex
from retrieval_bench.serving.answering.joined_row import joined_row
from retrieval_bench.serving.answering.recent_queries import RecentQueries, RecentQuery
from retrieval_bench.serving.answering.relevance_feedback import moved
from retrieval_bench.serving.answering.service import turned_and_cropped
from retrieval_bench.serving.answering.work_queue import LARGEST_BATCH, ExtractionQueue
from retrieval_bench.serving.client.answers import Question
from retrieval_bench.serving.requests.errors import QueueFull, RequestRefused
from retrieval_bench.serving.requests.guards import Buckets, Guarded, Guards, require_own


class Slow:
    """A method that says how many pictures it was given at once, and waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.go = threading.Event()

    def rows(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return features[0]

    def features(self, pictures: Sequence[np.ndarray | None], texts: Sequence[str]) -> list[np.ndarray]:
        self.batches.append(len(pictures))
        assert self.go.wait(10)
        sums = [0 if picture is None else picture.sum() for picture in pictures]
        if 0 in sums:
            raise ValueError("black")
        return [np.array(sums, np.float32)[:, None]]


def picture_of(value: int) -> np.ndarray:
    return np.full((2, 2, 3), value, np.uint8)


def asked(queue: ExtractionQueue, method: Slow, values: Sequence[int]) -> tuple[list[threading.Thread], dict[int, Any]]:
    answers: dict[int, Any] = {}

    def ask(value: int) -> None:
        try:
            (done,) = queue.describe([method], [picture_of(value)], 10)
            answers[value] = (float(done.rows[0, 0]), done.together)
        except Exception as error:
            answers[value] = error

    threads = [threading.Thread(target=ask, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    return threads, answers


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_what_waits_is_described_together_and_one_that_cannot_be_stops_no_other() -> None:
    queue, method = ExtractionQueue(1, bound=8), Slow()
    first, answers = asked(queue, method, [1])
    until(lambda: method.batches == [1])
    others, more = asked(queue, method, [2, 0, 4])
    until(lambda: queue.waiting == 3)
    method.go.set()
    for thread in first + others:
        thread.join()
    assert answers[1] == (12.0, 1)
    assert more[2][0] == 24.0
    assert more[4][0] == 48.0
    assert isinstance(more[0], ValueError)
    assert 3 in method.batches
    queue.close()
    with pytest.raises(QueueFull):
        queue.describe([method], [picture_of(1)], 1)


def test_beyond_the_bound_nothing_is_taken_on() -> None:
    queue, method = ExtractionQueue(1, bound=2), Slow()
    threads, _ = asked(queue, method, [1])
    until(lambda: method.batches == [1])
    others, _ = asked(queue, method, [2, 3])
    until(lambda: queue.waiting == 2)
    with pytest.raises(QueueFull, match="busy") as full:
        queue.describe([method], [picture_of(9)], 1)
    assert full.value.retry_after >= 1
    method.go.set()
    for thread in threads + others:
        thread.join()
    queue.close()


def test_a_worker_lingers_until_the_batch_is_full_and_no_longer_than_it_may() -> None:
    queue, method = ExtractionQueue(1, bound=99, linger_s=5), Slow()
    method.go.set()
    began = time.monotonic()
    threads, answers = asked(queue, method, range(1, LARGEST_BATCH + 1))
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 4
    assert {answer[1] for answer in answers.values()} == {LARGEST_BATCH}
    queue.close()
    queue = ExtractionQueue(1, bound=99, linger_s=0.05)
    (done,) = queue.describe([method], [picture_of(1)], 10)
    assert (done.together, done.waited_ms >= 45) == (1, True)
    queue.close()


def test_a_client_may_send_a_burst_and_then_so_many_a_second() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 4, lambda: now[0])
    assert [buckets.wait_for("a", 1) for _ in range(4)] == [0] * 4
    assert buckets.wait_for("a", 1) == 0.5
    assert buckets.wait_for("b", 1) == 0
    now[0] = 0.5
    assert buckets.wait_for("a", 1) == 0
    assert buckets.wait_for("a", 1) > 0
    assert Buckets(0, 1).wait_for("a", 100) == 0


def test_pictures_are_forgotten_by_size_and_by_time() -> None:
    now = [0.0]
    recent = RecentQueries(most_bytes=25, most_pixel_bytes=30, seconds=10, clock=lambda: now[0])
    words = [recent.put(RecentQuery(b"0123456789", str(n), picture_of(n))) for n in range(3)]
    assert recent.get(words[0]) is None
    held = [recent.get(word) for word in words[1:]]
    assert [one is not None for one in held] == [True, True]
    again = recent.get(words[1])
    assert again is not None
    recent.decoded(again, picture_of(1))
    recent.put(RecentQuery(b"", "big", np.zeros((3, 3, 3), np.uint8)))
    assert again.pixels is None, "pixels go before pictures do"
    few = RecentQueries(most=2)
    held_words = [few.put(RecentQuery(b"x", str(n), None)) for n in range(3)]
    assert [few.get(word) is not None for word in held_words] == [False, True, True]
    now[0] = 11
    assert recent.get(words[2]) is None
    assert len(recent) == 0


def test_a_joined_row_is_what_a_run_joins() -> None:
    rng = np.random.default_rng(0)
    gallery = {name: rng.normal(size=(40, 3)).round(1).astype(np.float32) for name in "ab"}
    query = Bundle({name: rng.normal(size=(1, 3)).astype(np.float32) for name in "ab"})
    build = lambda name, rows: ExactIndex(rows, "euclidean").search  # noqa: E731
    expected = rrf(depth=15).searcher(Bundle(gallery), build)(query, 12)
    lists = {name: build(name, gallery[name])(query.arrays[name], 15).indices[0].tolist() for name in "ab"}
    found = joined_row(lists, 12, depth=15)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.distances, expected.distances)
    assert joined_row({"a": []}, 5).indices.shape == (1, 0)


def test_a_query_is_moved_by_unit_vectors() -> None:
    query, liked, disliked = np.float32([[2, 0]]), np.float32([[0, 3], [0, 5]]), np.float32([[4, 0]])
    np.testing.assert_allclose(moved(query, liked, disliked, "cosine"), [[1 - 0.15, 0.75]])
    np.testing.assert_allclose(moved(query, liked, disliked, "euclidean"), [[2 - 0.6, 3.0]])
    np.testing.assert_allclose(moved(None, liked, None, "cosine"), [[0, 0.75]])


def test_pictures_are_turned_before_they_are_cropped() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    clockwise = turned_and_cropped(pixels, Question(turn=90))
    np.testing.assert_array_equal(clockwise[0, -1], pixels[0, 0])
    part = turned_and_cropped(pixels, Question(crop=(0.5, 0, 1, 0.5)))
    np.testing.assert_array_equal(part, pixels[:2, 3:])
    assert turned_and_cropped(pixels, Question(crop=(0.99, 0.99, 1, 1))).shape == (1, 1, 3)
    for wrong in ({"turn": 45}, {"crop": (0.5, 0, 0.5, 1)}, {"k": 0}, {"crop": (0, 0, float("nan"), 1)}):
        with pytest.raises(BenchError):
            Question(**wrong)  # type: ignore[arg-type]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["method"] != "GET":
        try:
            require_own(scope)
        except RequestRefused:
            await send({"type": "http.response.start", "status": 418, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b""})


def answer_of(
    allowed: Guarded, method: str = "GET", path: str = "/", query: str = "", **headers: str
) -> tuple[int, Any]:
    """Status and headers. A name of a header has _ in place of -."""
    given = {"host": "localhost:8000"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("10.0.0.1", 1),
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guards(_app, allowed)(scope, None, send))  # type: ignore[arg-type]
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("shop.example:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_a_name_that_is_not_ours_is_not_served(host: str, status: int) -> None:
    """A foreign page may lead its own name to 127.0.0.1; the browser then sends that name."""
    assert answer_of(Guarded(hosts=("Shop.example",)), host=host)[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 418),  # no page of another site, and no client of ours
        ({"x_retrieval_bench": "1"}, 200),
        ({"x_retrieval_bench": "1", "origin": "http://evil.example"}, 403),
        ({"x_retrieval_bench": "1", "origin": "null"}, 403),
        ({"x_retrieval_bench": "1", "origin": "http://localhost:9999"}, 403),
        ({"x_retrieval_bench": "1", "origin": "http://localhost:8000"}, 200),
        ({"x_retrieval_bench": "1", "sec_fetch_site": "cross-site"}, 403),
        ({"x_retrieval_bench": "1", "sec_fetch_site": "same-site"}, 403),
        ({"x_retrieval_bench": "1", "sec_fetch_site": "same-origin"}, 200),
    ],
)
def test_no_page_of_another_site_writes(headers: dict[str, str], status: int) -> None:
    assert answer_of(Guarded(), "POST", "/items", **headers)[0] == status


def test_a_token_is_shown_once_and_then_lies_in_a_cookie() -> None:
    allowed = Guarded(token="right-token")
    status, headers = answer_of(allowed)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert answer_of(allowed, query="token=wrong")[0] == 401
    assert answer_of(allowed, path="/healthz")[0] == 200
    assert answer_of(allowed, authorization="Bearer right-token")[0] == 200
    assert answer_of(allowed, "POST", authorization="Bearer right-token")[0] == 200
    status, headers = answer_of(allowed, path="//evil.example", query="a=1&token=right-token")
    assert (status, headers["location"]) == (303, "/evil.example?a=1")
    assert "HttpOnly; SameSite=Strict" in headers["set-cookie"]
    assert answer_of(allowed, cookie=headers["set-cookie"].partition(";")[0])[0] == 200
    assert answer_of(allowed, "POST", query="token=right-token")[0] == 401, "an address writes nothing"


def test_every_answer_forbids_what_pages_do_not_need() -> None:
    for status, headers in (answer_of(Guarded()), answer_of(Guarded(), host="evil.example")):
        assert status in (200, 421)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy


def test_a_client_that_asks_too_often_is_told_when_to_come_again() -> None:
    guards = Guards(_app, Guarded(requests_a_second=1, burst=2))

    async def ask() -> list[tuple[int, Any]]:
        found = []
        for _ in range(4):
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            headers = [(b"host", b"localhost"), (b"x-retrieval-bench", b"1")]
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/",
                "query_string": b"",
                "headers": headers,
                "client": ("a", 1),
            }
            await guards(scope, None, send)  # type: ignore[arg-type]
            found.append((sent[0]["status"], dict(sent[0]["headers"])))
        return found

    answers = asyncio.run(ask())
    assert [status for status, _ in answers] == [200, 200, 429, 429]
    assert int(answers[2][1][b"retry-after"]) >= 1
