"""The service as an ASGI application: guards, routes, and errors as one sentence each."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval_bench import __version__
from retrieval_bench.serving import api, operations_page, pages
from retrieval_bench.serving.answering.catalogue import Catalogue
from retrieval_bench.serving.answering.column_calibration import ColumnCalibrations
from retrieval_bench.serving.answering.explanations import Explanations
from retrieval_bench.serving.answering.feedback import FeedbackLog
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.answering.telemetry import Telemetry
from retrieval_bench.serving.pictures import ShownPictures
from retrieval_bench.serving.record_page import RecordPage
from retrieval_bench.serving.requests.bugs import BugsTold
from retrieval_bench.serving.requests.guards import Guards
from retrieval_bench.serving.requests.refusals import EXPECTED, as_refused, refusal
from retrieval_bench.serving.requests.settings import ServingSettings
from retrieval_bench.serving.served import Served

STATIC = Path(__file__).parent / "static"


def create_app(service: SearchService, settings: ServingSettings) -> FastAPI:
    """The application of a service.

    Args:
        service: what answers; whoever made it closes it.
        settings: who may ask, and what a request may take.

    Returns:
        An ASGI application, for uvicorn or a test client.
    """
    app = FastAPI(
        title=settings.title,
        version=__version__,
        description="Search by a picture: every method side by side.",
        docs_url=None,  # FastAPI's own pages load scripts from the network
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.state.served = Served(
        service=service,
        catalogue=Catalogue(service),
        pictures=ShownPictures(service),
        feedback=FeedbackLog(service, settings.feedback, settings.keep),
        settings=settings,
        threads=anyio.CapacityLimiter(service.capacity.requests),
        calibrations=ColumnCalibrations(service.columns),
        explanations=Explanations(),
        record=None if settings.record is None else RecordPage(settings.record, settings.record_root),
    )
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(api.router)
    app.include_router(operations_page.router)
    app.include_router(pages.router)
    _tell_errors_in_a_sentence(app, service)
    app.add_middleware(_SearchesDirectly, service=service)
    app.add_middleware(BugsTold)  # so far inside that its answers, too, pass the guards and are counted
    app.add_middleware(Guards, allowed=settings.guarded)
    app.add_middleware(_Counted, telemetry=service.telemetry)
    return app


def _tell_errors_in_a_sentence(app: FastAPI, service: SearchService) -> None:
    """Whatever goes wrong, the client gets {"error": sentence}; what is our fault goes to the log whole."""

    async def told(request: Request, error: Exception) -> Response:
        return _told(service, error)

    for kind in (*EXPECTED, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, told)


def _told(service: SearchService, error: Exception) -> Response:
    refused = as_refused(error)
    service.telemetry.refused.labels(str(refused.status)).inc()
    return refusal(refused)


class _SearchesDirectly:
    """Leads a search past the framework, whose routing, parameters and handlers take it longer than the search itself;
    innermost, so that all else that is done with a request is done with these, too."""

    def __init__(self, app: ASGIApp, service: SearchService) -> None:
        self._app, self._service, self._route = app, service, api.search_route()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", self._route.path):
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        try:
            answer = await api.search(Request(scope, receive))
        except EXPECTED as error:
            answer = _told(self._service, error)
        await answer(scope, receive, send)


class _Counted:
    """Counts every request by its route, with the time to its last byte; outermost, so that refused ones count, too."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route = getattr(scope.get("route"), "path", "") or "other"
            self._telemetry.request(route, scope["method"], status, time.perf_counter() - began)
