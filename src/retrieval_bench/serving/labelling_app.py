"""The page on which a person labels: one proposal at a time, by keyboard, its evidence beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlencode

import anyio
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from retrieval_bench import __version__
from retrieval_bench.labelling.output import WrittenList
from retrieval_bench.labelling.session import LabellingSession
from retrieval_bench.serving.application import STATIC
from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.pictures import PictureCache
from retrieval_bench.serving.rendering import rendered
from retrieval_bench.serving.requests.bugs import BugsTold
from retrieval_bench.serving.requests.errors import NoSuchThing, RequestRefused
from retrieval_bench.serving.requests.guards import Guarded, Guards, csrf_word, require_own
from retrieval_bench.serving.requests.refusals import EXPECTED, as_refused, refusal, told_by
from retrieval_bench.serving.requests.uploads import Form, UploadLimits, read_form

log = logging.getLogger("retrieval_bench")

TITLE = "retrieval_bench label"
LIMITS = UploadLimits(bytes=64 << 10, seconds=10.0)
SUSPECTS = "suspects"
_SAID = {
    "late": "Nothing was noted: a decision was made elsewhere meanwhile.",
    "undone": "Taken back.",
    "none": "There is nothing to take back.",
}

_Result = TypeVar("_Result")
router = APIRouter(include_in_schema=False)


class LabellingDesk:
    """What the routes work with.

    Args:
        session: whose images are labelled.
        pictures: makes small ones.
        save: writes the list; None: there is no place for one.
    """

    def __init__(
        self, session: LabellingSession, pictures: PictureCache, save: Callable[[], WrittenList] | None
    ) -> None:
        self.session, self.pictures, self.save = session, pictures, save
        self._deciding = anyio.CapacityLimiter(1)
        self._showing = anyio.CapacityLimiter(8)

    async def decided(self, work: Callable[[], _Result]) -> _Result:
        """Run what may take a while, one after the other."""
        return await anyio.to_thread.run_sync(work, limiter=self._deciding)

    async def shown(self, work: Callable[[], _Result]) -> _Result:
        """Run what makes a picture."""
        return await anyio.to_thread.run_sync(work, limiter=self._showing)


def create_labelling_app(
    session: LabellingSession, pool: DecodingPool, save: Callable[[], WrittenList] | None = None
) -> FastAPI:
    """The application of a labelling session, for this machine alone.

    Args:
        session: whose images are labelled.
        pool: what decodes pictures; whoever made it closes it.
        save: writes the list; None: there is no place for one.

    Returns:
        An ASGI application, for uvicorn or a test client.
    """
    app = FastAPI(title=TITLE, version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.desk = LabellingDesk(session, PictureCache(pool), save)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(router)

    async def told(request: Request, error: Exception) -> Response:
        return refusal(as_refused(error))

    for kind in (*EXPECTED, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, told)
    app.add_middleware(BugsTold)
    app.add_middleware(Guards, allowed=Guarded(requests_a_second=0))
    return app


def _desk(request: Request) -> LabellingDesk:
    desk = request.app.state.desk
    assert isinstance(desk, LabellingDesk)
    return desk


async def _refusal_page(request: Request, refused: RequestRefused) -> Response:
    """The desk as it is, with the sentence above it."""
    return await _page(request, "", str(refused), refused.status)


_told_as_page = told_by(_refusal_page)


@router.get("/")
@_told_as_page
async def label_page(request: Request) -> Response:
    """The next image, with what is proposed for it."""
    said = request.query_params.get("said", "")
    return await _page(request, request.query_params.get("queue", ""), _SAID.get(said, _counted(said)))


async def _page(request: Request, queue: str, said: str, status: int = 200) -> HTMLResponse:
    desk = _desk(request)
    session = desk.session

    def look() -> dict[str, Any]:
        one = session.next(queue == SUSPECTS)
        first = one.candidates[0].label if one is not None and one.candidates else ""
        evidence = [(row, session.label_of(row)) for row in (() if one is None else one.evidence)]
        return {
            "one": one,
            "evidence": [{"row": row, "label": label, "agrees": label == first} for row, label in evidence],
            "standing": session.standing(),
            "seen": len(session.log.decisions),
            "names_version": len(session.names()),
            "can_undo": bool(session.log.holding()),
            "why_not": session.confidence.why_not,
            "calibrated": session.confidence.calibrated,
        }

    values = await desk.decided(look)
    text = rendered(
        "label.html",
        title=TITLE,
        tab="",
        csrf=csrf_word(request.scope),
        suspects=queue == SUSPECTS,
        said=said,
        heading=HTTPStatus(status).phrase,
        can_save=desk.save is not None,
        **values,
    )
    return HTMLResponse(text, status)


def _counted(said: str) -> str:
    """What was done, from the address; anything else says nothing."""
    what, _, count = said.partition("-")
    if not count.isdigit() or len(count) > 9:
        return ""
    if what == "accepted":
        return f"Accepted {int(count):,} at once; u takes all of them back."
    return f"The list is written: {int(count):,} images." if what == "saved" else ""


@router.post("/decide")
@_told_as_page
async def decide(request: Request) -> Response:
    """A person decides about one image."""
    form = await _own(request)
    do = form.first("do")
    if do not in ("label", "nothing", "keep", "skip"):
        raise RequestRefused(400, f"do: {do!r} is none of label, nothing, keep, skip")

    def work(session: LabellingSession) -> str:
        session.decide(form.first("id"), do, form.fields.get("label", [""])[-1])  # type: ignore[arg-type]
        return ""

    return await _changed(request, form, work)


@router.post("/undo")
@_told_as_page
async def undo(request: Request) -> Response:
    """Take the last decision back."""
    return await _changed(request, await _own(request), lambda session: "none" if session.undo() is None else "undone")


@router.post("/accept")
@_told_as_page
async def accept(request: Request) -> Response:
    """Accept all that is sure."""
    return await _changed(request, await _own(request), lambda session: f"accepted-{session.accept_confident()}")


@router.post("/save")
@_told_as_page
async def save(request: Request) -> Response:
    """Write the list."""
    form = await _own(request)
    write = _desk(request).save
    if write is None:
        raise RequestRefused(400, "there is no place for the list; give one with --out")
    written = await _desk(request).decided(write)
    return _on(form, f"saved-{written.rows}")


@router.get("/names.json")
async def names(request: Request) -> Response:
    """All labels, in alphabetical order."""
    found = sorted(_desk(request).session.names(), key=lambda name: (name.casefold(), name))
    return JSONResponse(found, headers={"cache-control": "private, max-age=3600"})


@router.get("/pictures/{row}")
async def picture(request: Request, row: int, side: int = 240) -> Response:
    """An image as a small JPEG."""
    desk = _desk(request)
    images = desk.session.pool.images
    if not 0 <= row < len(images):
        raise NoSuchThing(f"there is no image {row}")
    shown = await desk.shown(lambda: desk.pictures.shown(images.digest(row), side, lambda: images.read(row)))
    headers = {"cache-control": "private, max-age=3600", "etag": f'"{shown.tag}"'}
    return Response(shown.jpeg, media_type="image/jpeg", headers=headers)


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """That we are here."""
    return JSONResponse({"status": "ok"})


async def _own(request: Request) -> Form:
    form = await read_form(request, LIMITS)
    require_own(request.scope, form)
    return form


async def _changed(request: Request, form: Form, work: Callable[[LabellingSession], str]) -> Response:
    """Do the work, which returns what is said of it, unless the page is late; then on to the next image."""
    desk = _desk(request)
    said = await desk.decided(lambda: "late" if _late(form, desk.session) else work(desk.session))
    return _on(form, said)


def _late(form: Form, session: LabellingSession) -> bool:
    """The page shows what was before a decision that it does not know of: a second press, or another window."""
    return form.first("seen") != str(len(session.log.decisions))


def _on(form: Form, said: str) -> Response:
    """To the next image."""
    asked = {"queue": SUSPECTS} if form.first("queue") == SUSPECTS else {}
    if said:
        asked["said"] = said
    return RedirectResponse("/" + (f"?{urlencode(asked)}" if asked else ""), 303)
