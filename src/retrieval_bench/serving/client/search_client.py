"""A client of the service, for programs: what the service answers, as the same typed data."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import TypeAdapter

from retrieval_bench.core import BenchError
from retrieval_bench.serving.client.answers import Answer
from retrieval_bench.serving.client.changes import AddedPictures, CatalogueChange, KeptJudgement, Listing
from retrieval_bench.serving.client.facts import Methods, OperationShown

_Result = TypeVar("_Result")
Fields = Iterable[tuple[str, object]]
_LONGEST_QUERY = 4000
"""Characters of fields that go into an address; more go into a form."""


class ServiceRefused(BenchError):
    """The service did not do what was asked. status: of HTTP; retry_after: seconds, 0 where that is of no use."""

    def __init__(self, status: int, sentence: str, retry_after: int = 0) -> None:
        super().__init__(sentence)
        self.status, self.retry_after = status, retry_after


class SearchClient:
    """Asks one service. Several threads may use it at once; each has a connection that stays open.

    Args:
        address: of the service.
        token: where the service wants one.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str = "http://127.0.0.1:8000", token: str = "", timeout: float = 60.0) -> None:
        self.address, self._timeout, self._own = address, timeout, threading.local()
        self._place = urlsplit(address)
        self._opened: list[http.client.HTTPConnection] = []
        self._headers = {"X-Retrieval-Bench": "client"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def search(self, picture: Path | bytes | None = None, text: str | None = None, **question: Any) -> Answer:
        """Search by a picture, by words, or by both.

        Args:
            picture: its file, or its bytes.
            text: words, at most 2,000 characters.
            **question: fields of `POST /search` (k=5, label=["cup"], threshold={"phash": 12}, query=...).
        """
        fields = list(_fields(question if text is None else {"text": text, **question}))
        asked = urlencode(fields)
        body = picture.read_bytes() if isinstance(picture, Path) else picture
        if not body or len(asked) > _LONGEST_QUERY:
            return self._ask("POST", "/search", Answer, fields, [] if body is None else [body])
        # The picture as it is, so that neither side has to take a form apart.
        return self._asked("POST", f"/search?{asked}", Answer, body, "application/octet-stream")

    def methods(self) -> Methods:
        """The columns that answer, and the indexes that they search in."""
        return self._ask("GET", "/methods", Methods)

    def items(self, **filters: Any) -> Listing:
        """Items of an index: index=0, start=0, count=50, and filters as in a search."""
        return self._ask("GET", f"/items?{urlencode(list(_fields(filters)))}", Listing)

    def add(self, pictures: Sequence[Path | bytes], **said: Any) -> AddedPictures:
        """Add pictures. said: fields of `POST /items` (label=["cup"], text="Red cup", attributes={"colour": "red"})."""
        if "attributes" in said:
            said["attributes"] = json.dumps(said["attributes"])
        return self._ask("POST", "/items", AddedPictures, _fields(said), pictures)

    def remove(self, ids: Sequence[str]) -> list[CatalogueChange]:
        """Remove items."""
        return self._ask("DELETE", "/items", list[CatalogueChange], _fields({"id": list(ids)}))

    def operations(self, index: int = 0, last: int = 100) -> list[OperationShown]:
        """The last changes of an index, the newest first."""
        return self._ask("GET", f"/operations?index={index}&last={last}", list[OperationShown])

    def undo(self, index: int, operation: int) -> CatalogueChange:
        """Undo a change."""
        return self._ask("POST", f"/operations/{index}/{operation}/undo", CatalogueChange)

    def feedback(self, index: int, number: int, right: bool, **query: Any) -> KeptJudgement:
        """Say that a hit is right or wrong. query: query=word, known="0:12" or item=id; and label, column."""
        fields = _fields({"index": index, "number": number, "right": right, **query})
        return self._ask("POST", "/feedback", KeptJudgement, fields)

    def picture(self, address: str, side: int = 320) -> bytes:
        """A JPEG. address: as in a hit."""
        return self._send("GET", f"{address}{'&' if '?' in address else '?'}side={side}", b"", "")

    def close(self) -> None:
        """Close all connections."""
        for connection in self._opened:
            connection.close()

    def metrics(self) -> bytes:
        """What Prometheus reads."""
        return self._send("GET", "/metrics", b"", "")

    def _ask(
        self, method: str, path: str, kind: type[_Result], fields: Fields = (), files: Sequence[Path | bytes] = ()
    ) -> _Result:
        body, content_type = _multipart(fields, files) if method != "GET" else (b"", "")
        return self._asked(method, path, kind, body, content_type)

    def _asked(self, method: str, path: str, kind: type[_Result], body: bytes, content_type: str) -> _Result:
        kind_of_answer: Any = kind
        return _adapter(kind_of_answer).validate_json(self._send(method, path, body, content_type))

    def _send(self, method: str, path: str, body: bytes, content_type: str) -> bytes:
        headers = self._headers | ({"Content-Type": content_type} if content_type else {})
        for again in (True, False):
            fresh = not hasattr(self._own, "connection")
            if fresh:
                kind = http.client.HTTPSConnection if self._place.scheme == "https" else http.client.HTTPConnection
                self._own.connection = kind(self._place.netloc, timeout=self._timeout)
                self._opened.append(self._own.connection)
            try:
                self._own.connection.request(method, path, body or None, headers)
                answer = self._own.connection.getresponse()
                content: bytes = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._own.connection.close()
                del self._own.connection
                if fresh or not again or isinstance(error, TimeoutError):  # else the service had closed an idle one
                    raise ServiceRefused(0, f"no service answers at {self._place.netloc}: {error}") from None
        if answer.status >= 300:
            try:
                sentence = json.loads(content)["error"]
            except (ValueError, KeyError, TypeError):
                sentence = answer.reason
            raise ServiceRefused(answer.status, str(sentence), int(answer.headers.get("Retry-After", "0")))
        return content


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _fields(values: Mapping[str, Any]) -> Fields:
    """Each value as forms have it: lists one by one, mappings as key=value."""
    for name, value in values.items():
        pairs = [f"{key}={one}" for key, one in value.items()] if isinstance(value, Mapping) else value
        for one in pairs if isinstance(pairs, list | tuple) else [pairs]:
            yield name, str(one).lower() if isinstance(one, bool) else one


def _multipart(fields: Fields, files: Sequence[Path | bytes]) -> tuple[bytes, str]:
    boundary = secrets.token_hex(16)
    parts = [(f'name="{name}"', str(value).encode()) for name, value in fields]
    for file in files:
        named = quote(file.name) if isinstance(file, Path) else "picture"
        parts.append((f'name="file"; filename="{named}"', file.read_bytes() if isinstance(file, Path) else file))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
