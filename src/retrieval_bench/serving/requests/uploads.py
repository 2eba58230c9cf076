"""Reading what a client sends: never more than the cap, never longer than the time, in memory alone."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retrieval_bench.serving.requests.errors import RequestRefused

MOST_PARTS = 100
MOST_FIELD_BYTES = 64 << 10


@dataclass(frozen=True)
class UploadLimits:
    """bytes: of a whole request. seconds: for all of it; idle_seconds: between two pieces. files: in one request."""

    bytes: int = 20 << 20
    seconds: float = 30.0
    idle_seconds: float = 5.0
    files: int = 1


@dataclass(frozen=True)
class UploadedFile:
    """name: as the client says, for showing alone; it is never a path of ours."""

    name: str
    data: bytes


@dataclass
class Form:
    """fields: by name, every value. files: in the order of the request."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)

    def first(self, name: str, default: str = "") -> str:
        """The first value of a field."""
        return self.fields.get(name, [default])[0]

    def all(self, name: str) -> list[str]:
        """Every value of a field that is not empty; commas divide further ones."""
        return [part.strip() for value in self.fields.get(name, []) for part in value.split(",") if part.strip()]


async def read_form(request: Request, limits: UploadLimits) -> Form:
    """Read a form (multipart or urlencoded), or a picture that is the whole body (any image/* type).

    Args:
        request: whose body is read.
        limits: what it may take.

    Returns:
        Its fields and files. Those of the query string are fields, too.

    Raises:
        RequestRefused: It is too large (413), too slow (408), of another type (415) or malformed (400).
    """
    form = Form()
    for name, value in request.query_params.multi_items():
        form.fields.setdefault(name, []).append(value)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limits.bytes:
        raise _too_large(limits)
    pieces = _pieces(request, limits)
    try:
        if kind == "multipart/form-data":
            await _multipart(request, pieces, limits, form)
        elif kind == "application/x-www-form-urlencoded":
            from urllib.parse import parse_qsl

            text = b"".join([piece async for piece in pieces]).decode("utf-8", "replace")
            for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARTS):
                form.fields.setdefault(name, []).append(value)
        elif kind.startswith("image/") or kind == "application/octet-stream":
            form.files.append(UploadedFile("", b"".join([piece async for piece in pieces])))
        elif kind or [piece async for piece in pieces if piece]:
            raise RequestRefused(
                415, "send a form (multipart/form-data), or a picture as the body with its image/* type", unread=True
            )
    except MultiPartException as error:
        raise RequestRefused(400, f"the form cannot be read: {error.message}", unread=True) from None
    except ClientDisconnect:
        raise RequestRefused(400, "the request ended before it was whole", unread=True) from None
    except ValueError:
        raise RequestRefused(400, "the form cannot be read", unread=True) from None
    return form


class _MemoryFile(UploadFile):
    """A file in memory, without a change of threads for each of its calls."""

    async def write(self, data: bytes) -> None:
        self.file.write(data)

    async def read(self, size: int = -1) -> bytes:
        return self.file.read(size)

    async def seek(self, offset: int) -> None:
        self.file.seek(offset)

    async def close(self) -> None:
        self.file.close()


class _InMemory(MultiPartParser):
    """Uploads stay in memory: the cap is so small that nothing of strangers needs to touch a disk."""

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        if part.file is not None:
            part.file.file.close()
            part.file = _MemoryFile(io.BytesIO(), filename=part.file.filename, headers=part.file.headers)


async def _multipart(request: Request, pieces: AsyncGenerator[bytes, None], limits: UploadLimits, form: Form) -> None:
    if "boundary=" not in request.headers["content-type"]:
        raise RequestRefused(400, "the form cannot be read: it names no boundary", unread=True)
    parser = _InMemory(
        request.headers, pieces, max_files=limits.files, max_fields=MOST_PARTS, max_part_size=MOST_FIELD_BYTES
    )
    read = await parser.parse()
    try:
        for name, value in read.multi_items():
            if isinstance(value, UploadFile):
                data = await value.read()
                if data or value.filename:  # a form whose file was not chosen sends an empty one
                    form.files.append(UploadedFile(value.filename or "", data))
            else:
                form.fields.setdefault(name, []).append(value)
    finally:
        await read.close()


async def _pieces(request: Request, limits: UploadLimits) -> AsyncGenerator[bytes, None]:
    """The body piece by piece, as long as the limits hold."""
    deadline = time.monotonic() + limits.seconds
    total = 0
    stream = request.stream()
    while True:
        left = min(limits.idle_seconds, deadline - time.monotonic())
        try:
            async with asyncio.timeout(max(left, 0)):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestRefused(408, "the request came too slowly; send it again", unread=True) from None
        total += len(piece)
        if total > limits.bytes:
            raise _too_large(limits)
        yield piece


def _too_large(limits: UploadLimits) -> RequestRefused:
    return RequestRefused(
        413, f"the request is larger than the {limits.bytes / 2**20:g} MiB that are read", unread=True
    )
