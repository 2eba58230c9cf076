"""Files of web servers, whole or by ranges: each answer is bounded in size and time, and leads to no other host."""

from __future__ import annotations

import importlib.util
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from retrieval_bench.core import BadImage, BenchError, printable
from retrieval_bench.remote.limits import CONNECT_SECONDS, MOST_BYTES, Again, Limits, asked
from retrieval_bench.remote.place import address_of, is_allowed

PIECE = 64 * 2**10
REDIRECTS = 5
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which it is worth asking again."""

_local = threading.local()


@dataclass(frozen=True)
class WebAnswer:
    """What a server sent.

    Args:
        content: the bytes; None where they are those that are known already.
        size: bytes of the whole file; None where the server does not say.
        stamp: what tells versions of the file apart; "" where nothing does.
        ranges: whether the server gave the range that was asked for.
    """

    content: bytes | None
    size: int | None
    stamp: str
    ranges: bool


def fetch(
    url: str, span: tuple[int, int] | None = None, known: str = "", own: frozenset[str] = frozenset()
) -> WebAnswer:
    """Read a file, or a part of it.

    Args:
        url: of http or https.
        span: bytes from .. to (exclusive); None for all. A server without ranges gives no content for a span.
        known: the stamp of what is in the cache.
        own: hosts that are allowed beside those that the user named.

    Returns:
        The answer; its content is whole.

    Raises:
        BadImage: What the server says of the file: it is missing, refused, too large, or moved to another host.
        BenchError: The server gives no whole answer, however often it is asked.
    """
    if importlib.util.find_spec("requests") is None:
        raise BenchError(
            f"{url} needs requests, which is not installed; install it by pip install 'retrieval-bench[remote]'"
        )
    return asked(lambda limits: _once(url, span, known, own, limits), url, address_of(url).host)


def _once(
    url: str, span: tuple[int, int] | None, known: str, own: frozenset[str], limits: Limits, followed: int = 0
) -> WebAnswer:
    import requests
    import urllib3

    address = address_of(url)
    if not is_allowed(address, own):
        raise BadImage("host not allowed", f"{address.host} is not allowed; --allow-host {address.host} allows it")
    headers = {"Accept-Encoding": "identity"}
    headers |= {} if span is None else {"Range": f"bytes={span[0]}-{span[1] - 1}"}
    headers |= _condition(known)
    began = time.monotonic()
    try:
        answer = _session().get(
            url,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(min(CONNECT_SECONDS, limits.timeout), limits.timeout),
        )
        with answer:
            if answer.is_redirect:
                if followed == REDIRECTS:
                    raise BadImage("unreadable", f"it is redirected more than {REDIRECTS} times")
                return _once(urljoin(url, answer.headers["Location"]), span, known, own, limits, followed + 1)
            return _taken(answer, span, limits, began)
    except requests.ConnectTimeout:
        raise Again("no connection within seconds", last=True) from None
    except (requests.ConnectionError, urllib3.exceptions.HTTPError, requests.Timeout, OSError) as error:
        raise Again(_reason(error, limits)) from None


def _condition(known: str) -> dict[str, str]:
    """Headers that ask for the content only where it is another."""
    kind, _, value = known.partition(" ")
    return {"If-None-Match": value} if kind == "etag" else {"If-Modified-Since": value} if kind == "date" else {}


def _taken(answer: Any, span: tuple[int, int] | None, limits: Limits, began: float) -> WebAnswer:
    status, headers = answer.status_code, answer.headers
    if status in PASSING:
        after = headers.get("Retry-After", "")
        raise Again(f"it answers {status}", float(after) if after.isdecimal() else 0.0)
    if status in (404, 410):
        raise BadImage("missing file", f"the server has no such file ({status})")
    if status in (401, 403):
        raise BadImage("refused", f"the server refuses it ({status})")
    length = _whole_number(headers.get("Content-Length", ""))
    size = _whole_number(headers.get("Content-Range", "").rpartition("/")[2]) if status == 206 else length
    stamp = f"etag {tag}" if (tag := headers.get("ETag", "")) else ""
    stamp = stamp or (f"date {date}" if (date := headers.get("Last-Modified", "")) else "")
    if status == 304:
        return WebAnswer(None, None, stamp, False)
    if status == 416:
        raise BadImage("truncated file", "it ends before the part that is asked for")
    if status not in (200, 206):
        raise BadImage("unreadable", f"the server answers {status}")
    if span is not None and status == 200:
        return WebAnswer(None, size, stamp, False)
    if span is not None and not headers.get("Content-Range", "").startswith(f"bytes {span[0]}-"):
        raise BadImage("unreadable", "the server answers with another part than the one asked for")
    if length is not None and length > limits.most:
        raise BadImage("too many bytes", _too_many(f"{length:,} bytes", limits))
    content = bytearray()
    while piece := answer.raw.read1(PIECE):
        content += piece
        if len(content) > limits.most:
            raise BadImage("too many bytes", _too_many("it goes on", limits))
        if time.monotonic() - began > limits.total:
            raise Again(f"not whole within {limits.total:g} s", last=True)
    if length is not None and len(content) != length:
        raise Again(f"it ends after {len(content):,} of {length:,} bytes")
    return WebAnswer(bytes(content), size, stamp, span is not None)


def _too_many(what: str, limits: Limits) -> str:
    return f"{what}; at most {limits.most:,} are read, or as many as {MOST_BYTES} says"


def _whole_number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _session() -> Any:
    """One for each thread, which keeps its connections open; it takes no cookies from one file to the next."""
    import requests

    if not hasattr(_local, "session"):
        _local.session = requests.Session()
        _local.session.cookies.set_policy(_no_cookies())
    return _local.session


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])


def _reason(error: Exception, limits: Limits) -> str:
    """The innermost reason of a failed request, in one line."""
    import requests
    import urllib3

    short = next((one for one in (error, *error.args) if isinstance(one, urllib3.exceptions.IncompleteRead)), None)
    if short is not None:
        return f"it ends before its last {short.expected:,} bytes"
    if isinstance(error, requests.Timeout | TimeoutError) or "timed out" in str(error):
        return f"no byte for {limits.timeout:g} s"
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    text = str(getattr(inner, "reason", inner))
    return printable(text.rpartition(": ")[2].strip("'()\"<> "))[:120] or type(error).__name__
