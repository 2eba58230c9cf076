"""Vectors from a service over HTTP: `embed:URL`. Nothing is sent anywhere unless such a method is named.

Each image goes out upright and in RGB, as every method sees it, so that its row can be compared with the others.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import SplitResult, urlsplit

import numpy as np

from retrieval_bench.core import BenchError, Distance, Setup, Split, printable
from retrieval_bench.images.pictures import pictures
from retrieval_bench.images.resize import shrunk
from retrieval_bench.registry import EXTRACTORS, Range

Api = Literal["auto", "raw", "openai", "infinity", "jina", "tei", "clip"]
Sent = Literal["png", "jpeg"]

CONNECT_SECONDS = 4.0
RETRIED = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed a little later."""
BACKOFF_SECONDS = 0.5
"""Before the second retry; each further one waits twice as long, or as long as the service's Retry-After says."""
JPEG_QUALITY = 95
PROBE = 64
"""Side of the picture that is sent first; its answer tells the width, and one service from another."""
TOLD_APART_BY = 16
"""Of that answer the places of so many of the largest numbers go into the record: rounding moves none, a model does."""
SHOWN = 160


def _data_url(image: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(image).decode()}"


def _openai(images: Sequence[bytes], mime: str, model: str) -> dict[str, Any]:
    return {"model": model, "input": [_data_url(one, mime) for one in images], "encoding_format": "float"}


REQUESTS: dict[str, Callable[[Sequence[bytes], str, str], dict[str, Any]]] = {
    "openai": _openai,
    "infinity": lambda images, mime, model: _openai(images, mime, model) | {"modality": "image"},
    "jina": lambda images, mime, model: {
        "model": model,
        "input": [{"image": base64.b64encode(one).decode()} for one in images],
    },
    "tei": lambda images, mime, model: {"inputs": [_data_url(one, mime) for one in images]},
    "clip": lambda images, mime, model: {
        "data": [{"blob": base64.b64encode(one).decode(), "mime_type": mime} for one in images],
        "execEndpoint": "/",
    },
}
"""How each kind of service is asked; `raw` has no such thing: the image itself is what is posted, one a request."""

PATHS = (("/post", "clip"), ("/embeddings", "openai"), ("/embed", "tei"))
"""By the end of the URL's path, which kind `auto` takes; else `raw`."""


@dataclass
class Service:
    """A service that answers images with vectors, over kept connections, one for each thread.

    Args:
        called: the method, for sentences.
        url: where images are posted.
        api: one of REQUESTS, or "raw".
        model: what the request says of the model, "" where it says nothing.
        key: sent as a bearer token, "" for none.
        timeout: seconds without an answer after which a request is given up.
        retries: how often a request is sent again that failed for a while.
        at_once: requests under way at the same time.
        most: images sent in all, 0 for no limit; beyond it a BenchError is raised.
    """

    called: str
    url: str
    api: str
    model: str
    key: str
    timeout: float
    retries: int
    at_once: int
    most: int
    sent: int = 0
    _local: threading.local = field(default_factory=threading.local, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._turns = threading.BoundedSemaphore(self.at_once)

    def ask(self, images: Sequence[bytes], mime: str) -> np.ndarray:
        """Encoded images -> (n, d) float32. Raises BenchError where the service does not answer with n vectors."""
        self._count(len(images))
        if self.api == "raw":
            return np.concatenate([self._posted(one, 1, data=one, headers={"Content-Type": mime}) for one in images])
        body = REQUESTS[self.api](images, mime, self.model)
        return self._posted(body, len(images), json=body)

    def _count(self, n: int) -> None:
        with self._lock:
            if self.most and self.sent + n > self.most:
                raise BenchError(
                    f"{self.called}: most={self.most} images are used up; give a larger most=, or fewer images "
                    "by --limit"
                )
            self.sent += n

    def _posted(self, what: Any, n: int, **request: Any) -> np.ndarray:
        import requests

        headers = request.pop("headers", {}) | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        with self._turns:
            try:
                answer = self._session().post(
                    self.url,
                    headers=headers,
                    timeout=(min(CONNECT_SECONDS, self.timeout), self.timeout),
                    allow_redirects=False,
                    **request,
                )
            except requests.RequestException as error:
                raise BenchError(
                    f"{self.called}: no answer ({_reason(error)}), asked {self.retries + 1} times; is the service "
                    "running there? timeout= and retries= say how long it is waited for"
                ) from None
        if answer.status_code in (401, 403):
            raise BenchError(
                f"{self.called}: the service refuses ({answer.status_code}); put its key into an environment variable "
                "and name that by key_env=VARIABLE"
            )
        if answer.status_code != 200:
            told = printable(" ".join(answer.text.split()))[:SHOWN]
            raise BenchError(
                f"{self.called}: the service answers {answer.status_code}{f': {told}' if told else ''}; "
                f"api={self.api} posts {_shape(self.api)}"
            )
        try:
            return vectors_of(_parsed(answer), n)
        except ValueError as error:
            raise BenchError(f"{self.called}: {error}; api={self.api} posts {_shape(self.api)}") from None

    def _session(self) -> Any:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util.retry import Retry

        if not hasattr(self._local, "session"):
            retry = Retry(
                total=self.retries,
                status_forcelist=RETRIED,
                allowed_methods=None,  # POST, too: to be asked twice changes nothing here
                backoff_factor=BACKOFF_SECONDS,
                respect_retry_after_header=True,
                raise_on_status=False,
            )
            self._local.session = requests.Session()
            for scheme in ("http://", "https://"):
                self._local.session.mount(scheme, HTTPAdapter(max_retries=retry))
        return self._local.session


def _parsed(answer: Any) -> Any:
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise ValueError("its answer is no JSON that can be read") from None


def _reason(error: Exception) -> str:
    """The innermost reason of a failed request, in one line."""
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "it takes too long"
    inner: Any = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    text = str(getattr(inner, "reason", inner))
    return printable(text.rpartition(": ")[2].strip("'()\"<> "))[:SHOWN]


def _shape(api: str) -> str:
    if api == "raw":
        return "the bytes of one image"
    return f"JSON with {' and '.join(map(repr, REQUESTS[api]([], '', '')))}"


def vectors_of(answer: Any, n: int) -> np.ndarray:
    """The n vectors of an answer, in the shapes that services use.

    Args:
        answer: parsed JSON: a list of lists; `{"embeddings": ...}`; `{"data": [{"embedding": ..., "index": ...}]}`; for
            one image also a plain list, `{"embedding": ...}` or `{"vector": ...}`. A vector may be base64 of float32.
        n: how many there must be.

    Returns:
        (n, d) float32, in the order of the images.

    Raises:
        ValueError: The answer holds something else; the message says what.
    """
    if isinstance(answer, Mapping):
        keys = list(answer)
        found = next((answer[key] for key in ("embeddings", "data", "embedding", "vector") if key in answer), None)
        if found is None:
            raise ValueError(f"its answer has no vectors but {', '.join(map(repr, keys[:5])) or 'nothing'}")
        answer = found.get("float", found) if isinstance(found, Mapping) else found
    if isinstance(answer, list) and answer and all(isinstance(one, Mapping) for one in answer):
        if all(isinstance(one.get("index"), int) for one in answer):
            answer = sorted(answer, key=lambda one: one["index"])
        answer = [one.get("embedding", one.get("vector")) for one in answer]
    if isinstance(answer, str) or (isinstance(answer, list) and answer and isinstance(answer[0], int | float)):
        answer = [answer]
    if not isinstance(answer, list) or len(answer) != n:
        count = len(answer) if isinstance(answer, list) else "no"
        raise ValueError(f"its answer has {count} vectors for {n} images")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as that
        rows = [_decoded(one) for one in answer]
    if any(row.ndim != 1 or not len(row) for row in rows) or len({len(row) for row in rows}) != 1:
        raise ValueError("its answer has vectors of no or of different lengths")
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("its answer has vectors with NaN, or with numbers that are too large for float32")
    return np.stack(rows)


def _decoded(vector: Any) -> np.ndarray:
    try:
        if isinstance(vector, str):
            return np.frombuffer(base64.b64decode(vector, validate=True), "<f4").astype(np.float32)
        return np.asarray(vector, np.float32)
    except (ValueError, TypeError):
        raise ValueError("its answer has vectors that hold something else than numbers") from None


@dataclass(eq=False)
class ServiceFeatures:
    """service: who answers. sent_as, size: how an image goes out. dimensions: numbers of the first vector."""

    service: Service
    sent_as: str
    size: int
    chunk: int
    distance: Distance
    dimensions: int
    weights: dict[str, str]
    elsewhere: ClassVar[bool] = True

    def fit(self, train: Split) -> Self:
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, dimensions) float32. How far a row depends on those beside it is up to the service."""
        rows = np.empty((len(images), self.dimensions), np.float32)
        for start in range(0, len(images), self.chunk):
            some = [
                _encoded(image, self.sent_as, self.size)
                for image in pictures(images[start : start + self.chunk], start)
            ]
            found = self.service.ask(some, f"image/{self.sent_as}")
            if found.shape[1] != self.dimensions:
                raise BenchError(
                    f"{self.service.called}: vectors of {found.shape[1]} numbers after such of {self.dimensions}"
                )
            rows[start : start + len(some)] = found
        return rows


def _encoded(image: np.ndarray, kind: str, size: int) -> bytes:
    import cv2

    image = shrunk(image, size) if size else image
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind == "jpeg" else []
    return cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


@EXTRACTORS(
    "embed",
    about="vectors of a service over HTTP: embed:URL",
    family="service",
    argument="url",
    colons=("url",),
)
def embed(
    setup: Setup,
    *,
    url: str = "",
    api: Api = "auto",
    model: str = "",
    key_env: str = "",
    batch: Annotated[int, Range(1, 10_000)] = 16,
    at_once: Annotated[int, Range(1, 256)] = 4,
    timeout: Annotated[float, Range(0, 3600, above=True)] = 30.0,
    retries: Annotated[int, Range(0, 100)] = 3,
    most: Annotated[int, Range(0)] = 0,
    send: Sent = "png",
    size: Annotated[int, Range(0)] = 0,
    cost: Annotated[float, Range(0)] = 0.0,
    distance: Literal["cosine", "euclidean", "inner_product"] = "cosine",
) -> ServiceFeatures:
    """A service that is asked for the vector of each image.

    Args:
        setup: what the run fixes for every method.
        url: where images are posted, as http://localhost:8080/embed.
        api: how it is asked. `raw`: the image's bytes. `openai`, `infinity`, `jina`, `tei`, `clip`: JSON in the shape
            of these services. `auto`: by the end of the URL: /embeddings, /embed, /post; else `raw`.
        model: the model's name, where the service has several.
        key_env: the environment variable that holds the service's key; the key itself is never written.
        batch: images in a request; `raw` always sends one.
        at_once: requests under way at the same time, at most; no more than --threads.
        timeout: seconds to wait for an answer.
        retries: how often a request is sent again that failed for a while.
        most: images to send at most; 0: no limit.
        send: how images are encoded: `png` keeps every pixel, `jpeg` is smaller.
        size: pixels of the longer side that larger images are shrunk to; 0 sends them whole.
        cost: what an image costs, in any currency; it is shown as stated.
        distance: how its vectors are compared.
    """
    parts = _refuse_wrong_options(
        *(url, key_env),
        batch=batch,
        at_once=at_once,
        timeout=timeout,
        retries=retries,
        most=most,
        size=size,
        cost=cost,
    )
    called = f"embed:{url}"
    if importlib.util.find_spec("requests") is None:
        raise BenchError(
            f"{called} needs requests, which is not installed; install it by pip install 'retrieval-bench[http]'"
        )
    kind = api if api != "auto" else next((name for end, name in PATHS if parts.path.rstrip("/").endswith(end)), "raw")
    service = Service(called, url, kind, model, os.environ.get(key_env, ""), timeout, retries, at_once, most)
    probe = np.tile(np.arange(PROBE, dtype=np.uint8) * 4, (PROBE, 1))
    picture = np.stack([probe, probe.T, 255 - probe], axis=2)
    (vector,) = service.ask([_encoded(picture, send, 0)], f"image/{send}")
    facts = {
        "source": f"service at {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}",
        "sha256": _told_apart(vector),
        "recipe": f"api {kind}{f', model {model}' if model else ''}, images as {send}",
        "notice": "its times include the call to the service, and what the service did for others meanwhile",
    }
    if cost:
        facts["cost"] = f"{cost:g} an image, as stated"
        facts["notice"] += f"; 1,000 images cost {1000 * cost:g}, as stated"
    chunk = 1 if kind == "raw" else batch
    return ServiceFeatures(service, send, size, chunk, distance, len(vector), facts)


def _refuse_wrong_options(url: str = "", key_env: str = "", **others: Any) -> SplitResult:
    """The parts of the URL; BenchError where that or the key is wrong. No service is asked."""
    called = f"embed:{url}"
    parts = _address(url)
    if parts is None:
        raise BenchError(f"{called}: {url!r} is no address of a service; write embed:http://HOST:PORT/PATH")
    for option, allowed in EXTRACTORS["embed"].ranges.items():
        if option in others and others[option] not in allowed:
            raise BenchError(f"{called}: {option}={others[option]} {allowed}")
    if key_env and not os.environ.get(key_env):
        raise BenchError(f"{called}: the environment variable {key_env}, which key_env names, is not set")
    return parts


embed.check = _refuse_wrong_options  # type: ignore[attr-defined]


def _address(url: str) -> SplitResult | None:
    """The parts of a URL of HTTP; None where it is none."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of brackets
        return None
    return parts if sound else None


def _told_apart(vector: np.ndarray) -> str:
    """sha256 over the width and the places of the largest numbers of the first answer: another model has others."""
    largest = np.sort(np.argsort(-np.abs(vector), kind="stable")[:TOLD_APART_BY])
    return hashlib.sha256(f"{len(vector)} {largest.tolist()}".encode()).hexdigest()
