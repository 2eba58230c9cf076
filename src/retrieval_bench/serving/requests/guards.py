"""Who may ask what: known hosts alone, a token where others can reach us, no writes on behalf of foreign pages.

A browser of the user sends requests for any page that the user looks at. What such a page must not do here:

- read anything, by a name of its own that leads to our address (DNS rebinding): the header Host must name us;
- write anything (CSRF): Sec-Fetch-Site and Origin must say that the request comes from our own page, and every write
  carries a header that foreign pages cannot set, or a word that only our pages hold.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_bench.serving.requests.errors import RequestRefused
from retrieval_bench.serving.requests.refusals import refusal
from retrieval_bench.serving.requests.uploads import Form

HEADER = "x-retrieval-bench"
"""The header of clients that are no browser; any value. A foreign page cannot send it without our leave."""
FIELD = "csrf"
"""The field of our forms that holds the word of the session."""
SESSION, TOKEN = "retrieval_bench_session", "retrieval_bench_token"
"""Our cookies."""
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/healthz",)
"""Answered without a token: they say nothing but that we are here."""
MOST_CLIENTS = 10_000

HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # with no-referrer, our own forms would come from Origin null
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), microphone=()",
}
"""On every answer. No script or style within a page runs, so a label that holds one is text."""
_EVERYWHERE = [(name.encode(), value.encode()) for name, value in (HEADERS | {"cache-control": "no-store"}).items()]


@dataclass(frozen=True)
class Guarded:
    """What is allowed.

    Args:
        hosts: names by which we may be called, besides localhost and numeric addresses.
        token: what clients must show; "": nothing.
        requests_a_second: of one client, on average; 0: any number.
        burst: that a client may send at once.
    """

    hosts: tuple[str, ...] = ()
    token: str = ""
    requests_a_second: float = 50.0
    burst: int = 200


def is_loopback(host: str) -> bool:
    """Whether nobody on another machine can reach this address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_names(host: str) -> tuple[str, ...]:
    """Names by which a service that listens on `host` may be called."""
    return tuple(dict.fromkeys(name.lower() for name in (host, socket.gethostname(), socket.getfqdn())))


def csrf_word(scope: Scope) -> str:
    """The word for the forms of this session, to be sent in the field `FIELD`."""
    return str(scope["state"]["csrf"]())


def require_own(scope: Scope, form: Form | None = None) -> None:
    """Raise RequestRefused unless a write comes from a page of ours or from a client that is no browser.

    Args:
        scope: of the request.
        form: what the request holds, where it may come from a form.
    """
    if scope["state"]["own_client"]:
        return
    word = "" if form is None else form.first(FIELD)
    if not hmac.compare_digest(word.encode(), csrf_word(scope).encode()):
        raise RequestRefused(
            403, f"a write needs the header {HEADER}, or the field {FIELD} of a form of this service; reload the page"
        )


class Buckets:
    """How many requests each client may send: so many at once, and so many a second from then on."""

    def __init__(self, a_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_second, self._burst, self._clock = a_second, burst, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_for(self, client: str, cost: float) -> float:
        """Seconds that a client must wait before its request is served; 0: it is served now, and counted."""
        if not self._a_second:
            return 0.0
        with self._lock:
            now = self._clock()
            left, seen = self._left.pop(client, (float(self._burst), now))
            left = min(self._burst, left + (now - seen) * self._a_second)
            missing = max(0.0, cost - left)
            self._left[client] = (left if missing else left - cost, now)
            while len(self._left) > MOST_CLIENTS:
                self._left.popitem(last=False)
        return missing / self._a_second


class Guards:
    """The middleware. `scope["state"]` tells routes `own_client`, and `csrf`, a function that makes the word of forms.

    Args:
        app: what is guarded.
        allowed: what is allowed.
    """

    def __init__(self, app: ASGIApp, allowed: Guarded) -> None:
        self._app, self._allowed = app, allowed
        self._hosts = {"localhost", *(name.lower() for name in allowed.hosts)}
        self._buckets = Buckets(allowed.requests_a_second, allowed.burst)
        self._secret = secrets.token_bytes(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies = _cookies(headers.get("cookie", ""))
        session = cookies.get(SESSION, "")
        fresh = not (session.isalnum() and len(session) == 32)
        if fresh:
            session = secrets.token_hex(16)
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["csrf"] = lambda: hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()
        state["own_client"] = HEADER in headers

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = dict(message["headers"])
                message["headers"] = [*message["headers"], *(own for own in _EVERYWHERE if own[0] not in given)]
                if fresh and given.get(b"content-type", b"").startswith(b"text/html"):
                    message["headers"].append((b"set-cookie", _cookie(SESSION, session).encode("latin-1")))
            await send(message)

        try:
            answer = self._instead(scope, headers, cookies)
        except RequestRefused as refused:
            answer = refusal(refused)
        await (self._app if answer is None else answer)(scope, receive, sent)

    def _instead(self, scope: Scope, headers: Headers, cookies: MutableMapping[str, str]) -> Response | None:
        """What is answered before anything is done; None: go on."""
        method, path = scope["method"], scope["path"]
        if not self._is_us(headers.get("host", "")):
            raise RequestRefused(421, "this service is not known by that name; allow it with --allow-host")
        _refuse_foreign(method, headers)
        client = (scope.get("client") or ("",))[0]
        if wait := self._buckets.wait_for(client, 1.0 if method not in SAFE else 0.05):
            raise RequestRefused(429, "too many requests from this address; send fewer a second", max(1, round(wait)))
        return self._ask_for_token(scope, headers, cookies) if self._allowed.token and path not in OPEN else None

    def _is_us(self, host: str) -> bool:
        """A page that leads its own name to our address would be called by that name. A number is nobody's name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.rstrip(".") in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _ask_for_token(self, scope: Scope, headers: Headers, cookies: MutableMapping[str, str]) -> Response | None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._right(shown.strip()):
            scope["state"]["own_client"] = True
            return None
        if self._right(cookies.get(TOKEN, "")):
            return None
        if scope["method"] in SAFE and self._right(query.pop("token", "")):
            # So that it is in no further address: those are in the history, and are sent on.
            path = "/" + scope["path"].lstrip("/")
            answer = RedirectResponse(path + (f"?{urlencode(query)}" if query else ""), 303)
            answer.headers.append("set-cookie", _cookie(TOKEN, self._allowed.token))
            return answer
        raise RequestRefused(
            401, "this service needs its token: open its address with ?token=..., or send it as bearer"
        )

    def _right(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), self._allowed.token.encode())


def _refuse_foreign(method: str, headers: Headers) -> None:
    """What browsers say of where a request comes from, for everything that is more than a look."""
    if method in SAFE:
        return
    site = headers.get("sec-fetch-site", "")
    origin = headers.get("origin", "")
    foreign = site not in ("", "same-origin", "none")
    if origin and not foreign:
        foreign = origin == "null" or urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    if foreign:
        raise RequestRefused(403, "this request comes from a page of another site")


def _cookies(header: str) -> MutableMapping[str, str]:
    if not header:
        return {}
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def _cookie(name: str, value: str) -> str:
    return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict"
