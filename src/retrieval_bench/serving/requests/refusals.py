"""Requests that are not served, as HTTP says it: which status, which sentence, and when to ask again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.serving.requests.errors import NoSuchThing, QueueFull, RequestRefused

Handler = Callable[[Request], Awaitable[Response]]

EXPECTED = (RequestRefused, QueueFull, NoSuchThing, BadImage, BenchError, TimeoutError)
"""What routes raise where a request cannot be served, by no fault of ours."""


def as_refused(error: Exception) -> RequestRefused:
    """What a client is told of an error: one of EXPECTED, or of those that FastAPI raises."""
    match error:
        case RequestRefused():
            return error
        case QueueFull():
            return RequestRefused(503, str(error), error.retry_after)
        case TimeoutError():
            return RequestRefused(503, "describing the picture took too long", 5)
        case NoSuchThing():
            return RequestRefused(404, str(error))
        case BadImage():
            return RequestRefused(422, f"the picture cannot be used: {error.reason}: {error.detail}")
        case HTTPException():
            return RequestRefused(error.status_code, str(error.detail))
        case RequestValidationError():
            first = error.errors()[0]
            return RequestRefused(400, f"{first['loc'][-1]}: {first['msg']}")
        case _:
            return RequestRefused(400, str(error))


def refusal(refused: RequestRefused) -> Response:
    """The answer of the API to a request that is not served."""
    return JSONResponse({"error": str(refused)}, refused.status, refusal_headers(refused))


def refusal_headers(refused: RequestRefused) -> dict[str, str]:
    """What every such answer says beside its sentence, a page as well."""
    headers = {"retry-after": str(refused.retry_after)} if refused.retry_after else {}
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refused.unread:
        headers["connection"] = "close"
    return headers


def told_by(answer: Callable[[Request, RequestRefused], Awaitable[Response]]) -> Callable[[Handler], Handler]:
    """A decorator of routes: what cannot be served becomes the page that `answer` makes of it."""

    def decorated(handler: Handler) -> Handler:
        @wraps(handler)
        async def wrapped(request: Request) -> Response:
            try:
                return await handler(request)
            except EXPECTED as error:
                refused = as_refused(error)
            response = await answer(request, refused)
            response.headers.update(refusal_headers(refused))
            return response

        return wrapped

    return decorated
