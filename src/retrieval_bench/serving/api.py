"""The API: search, items, methods, health, metrics, feedback. Every answer is JSON but those of `/metrics`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi import Query as Param
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from retrieval_bench.core import BenchError
from retrieval_bench.registry import unknown
from retrieval_bench.serving.answering.catalogue import AddingOptions, attributes_of
from retrieval_bench.serving.answering.feedback import HitJudgement
from retrieval_bench.serving.answering.service import Query, SearchService
from retrieval_bench.serving.answering.telemetry import CONTENT_TYPE
from retrieval_bench.serving.client.answers import Answer, Filters, Question
from retrieval_bench.serving.client.changes import AddedPictures, CatalogueChange, KeptJudgement, ListedItem, Listing
from retrieval_bench.serving.client.facts import Health, IndexFacts, MethodFactsShown, Methods, OperationShown
from retrieval_bench.serving.requests.guards import FIELD, require_own
from retrieval_bench.serving.requests.uploads import Form, read_form
from retrieval_bench.serving.requests.words import checked_text
from retrieval_bench.serving.served import Served, served

router = APIRouter()

Side = Annotated[int, Param(ge=1, description="Pixels along the longer side; rounded up to one of a few sizes.")]

_SAID = dict.fromkeys(("true", "1", "on", "yes"), True) | dict.fromkeys(("false", "0", "off", "no"), False)


_ANSWER, _ADDED, _LISTING = TypeAdapter(Answer), TypeAdapter(AddedPictures), TypeAdapter(Listing)
_CHANGES, _ITEM, _KEPT = TypeAdapter(list[CatalogueChange]), TypeAdapter(ListedItem), TypeAdapter(KeptJudgement)
_METHODS, _HEALTH, _CHANGE = TypeAdapter(Methods), TypeAdapter(Health), TypeAdapter(CatalogueChange)
_OPERATIONS = TypeAdapter(list[OperationShown])


def _json(adapter: TypeAdapter[Any], value: Any, status: int = 200) -> Response:
    return Response(adapter.dump_json(value), status, media_type="application/json")


def _form_of(fields: dict[str, tuple[str, str]], file: str = "", required: Sequence[str] = ()) -> dict[str, Any]:
    """What OpenAPI says of a form that we read ourselves. fields: name -> (type, meaning)."""
    properties: dict[str, Any] = {name: {"type": kind, "description": about} for name, (kind, about) in fields.items()}
    if file:
        properties["file"] = {"type": "string", "format": "binary", "description": file}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


_FILTERS = {
    "label": ("string", "Only items of these labels; again, or with commas, for more."),
    "category": ("string", "Only items of these categories."),
    "attribute": ("string", "Only items with this value of an attribute, as name=value; again for more."),
    "in_id": ("string", "Only items whose id holds this."),
    "not_label": ("string", "No items of these labels."),
    "not_category": ("string", "No items of these categories."),
}
_SEARCH = {
    "text": ("string", "Words to search for, at most 2,000 characters: alone, or beside a picture."),
    "query": ("string", "In place of a file: the word of a picture that was sent before, from the answer to it."),
    "item": ("string", "In place of a file: the id of an item."),
    "known": ("string", "In place of a file: a query of an index's dataset, as index:row."),
    "k": ("integer", "Hits of each column, 1 to 200. Default 10."),
    "methods": ("string", "Keys of columns, with commas; see /methods. Default: all."),
    **_FILTERS,
    "exclude": ("string", "Ids of items that are not found; again for more."),
    "threshold": ("string", "Largest distance of a column, as key=distance; again for more."),
    "more": ("string", "Ids of items to find more of; again for more."),
    "less": ("string", "Ids of items to find less of; again for more."),
    "crop": ("string", "left,top,right,bottom of the part to search for, as shares from 0 to 1."),
    "turn": ("integer", "Degrees to turn the picture clockwise before: 0, 90, 180 or 270."),
    "joined": ("boolean", "false: no joined row."),
}


@router.post("/search", response_model=Answer, openapi_extra=_form_of(_SEARCH, "A picture, of any format."))
async def search(request: Request) -> Response:
    """Search by a picture, by words, or by both; by an item or a known query: the k nearest items by each method, and
    all joined. A method that cannot read what is given says so, and the others answer."""
    own = served(request)
    with own.service.admitted():
        form = await read_form(request, own.settings.upload)
        _refuse_others(form, _SEARCH)
        query, question = query_of(form), question_of(form)
        answer = await own.run(lambda: answered(own, query, question))
    return _json(_ANSWER, answer)


def answered(own: Served, query: Query, question: Question) -> Answer:
    """The answer of the service; a picture that was sent is kept where that was asked for."""
    answer = own.service.search(query, question)
    if own.settings.keep and query.encoded is not None:
        own.feedback.keep_upload(query.encoded)
    return answer


@router.get("/methods", response_model=Methods)
async def methods(request: Request) -> Response:
    """The columns that answer, and the indexes that they search in."""
    own = served(request)
    return _json(_METHODS, await own.run(lambda: methods_shown(own.service)))


@router.get("/items", response_model=Listing)
async def items(
    request: Request,
    index: int = 0,
    start: Annotated[int, Param(ge=0)] = 0,
    count: Annotated[int, Param(ge=0, le=1000)] = 50,
) -> Response:
    """Items of an index, filtered as in a search (label, category, attribute, in_id, ...), by number."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    _refuse_others(form, (*_FILTERS, "index", "start", "count"))
    return _json(_LISTING, await own.run(lambda: own.catalogue.listing(index, filters_of(form), start, count)))


@router.get("/items/{index}/{number}", response_model=ListedItem)
async def item(request: Request, index: int, number: int) -> Response:
    """One item."""
    own = served(request)
    return _json(_ITEM, await own.run(lambda: own.catalogue.item(index, number)))


_ADDING = {
    "label": ("string", "Label: one for all files, or one for each, in their order."),
    "text": ("string", "Text, at most 2,000 characters: one for all files, or one for each, in their order."),
    "id": ("string", "Id of each file, in their order. Default: made of the content."),
    "category": ("string", "Category of all."),
    "attributes": ("string", "Attributes of all, as a JSON object of texts."),
    "duplicates": ("string", "add: also add a picture that is there already."),
    "preview": ("boolean", "true: only tell what would be added, and what it may be a copy of."),
}


@router.post(
    "/items", response_model=AddedPictures, openapi_extra=_form_of(_ADDING, "Pictures; many at once.", ("file",))
)
async def add(request: Request) -> Response:
    """Add pictures to every index that is open for writing, by all methods at once; copies are pointed out."""
    own = served(request)
    with own.service.admitted(adding=True):
        form = await read_form(request, own.settings.adding)
        require_own(request.scope, form)
        _refuse_others(form, _ADDING)
        added = await own.run(lambda: add_form(own, form))
    failed = [change for change in added.changes if change.error]
    return _json(_ADDED, added, 409 if failed and len(failed) == len(added.changes) else 200)


def add_form(own: Served, form: Form) -> AddedPictures:
    """Add what a form holds, or only look at it."""
    if not form.files:
        raise BenchError("no picture was sent; send files in fields called file")
    duplicates = form.first("duplicates")
    if duplicates not in ("", "add"):
        raise BenchError(f"duplicates={duplicates[:40]!r}: must be add, or left out")
    said = AddingOptions(
        labels=tuple(form.fields.get("label", ())),
        texts=tuple(map(checked_text, form.fields.get("text", ()))),
        ids=tuple(form.fields.get("id", ())),
        category=form.first("category"),
        attributes=attributes_of(form.first("attributes")),
        allow_duplicates=duplicates == "add",
    )
    return (own.catalogue.look if _yes_or_no(form, "preview", default=False) else own.catalogue.add)(form.files, said)


_REMOVING = {"id": ("string", "Ids of items.")}


@router.delete("/items", response_model=list[CatalogueChange], openapi_extra=_form_of(_REMOVING))
async def remove(request: Request) -> Response:
    """Remove items by their ids from every index that is open for writing."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    _refuse_others(form, _REMOVING)
    ids = form.fields.get("id", [])
    if not ids:
        raise BenchError("no id was sent; send fields called id")
    return _json(_CHANGES, await own.run(lambda: own.catalogue.remove(ids)))


@router.get("/operations", response_model=list[OperationShown])
async def operations(request: Request, index: int = 0, last: Annotated[int, Param(ge=1, le=1000)] = 100) -> Response:
    """The last changes of an index, the newest first."""
    own = served(request)
    found = await own.run(lambda: own.catalogue.operations(index, last))
    shown = [OperationShown(one.number, one.at, one.what, one.count, one.note, one.undone_by) for one in found]
    return _json(_OPERATIONS, shown)


@router.post("/operations/{index}/{number}/undo", response_model=CatalogueChange)
async def undo(request: Request, index: int, number: int) -> Response:
    """Undo a change of an index."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    return _json(_CHANGE, await own.run(lambda: own.catalogue.undo(index, number)))


_FEEDBACK = {
    "query": ("string", "The word of the picture that was searched for, from the answer."),
    "known": ("string", "Or a query of an index's dataset, as index:row."),
    "item": ("string", "Or the id of the item that was searched for."),
    "text": ("string", "The words that were searched for; alone, they are no query of a manifest."),
    "index": ("integer", "Number of the index of the hit."),
    "number": ("integer", "Number of the hit."),
    "right": ("boolean", "true: the hit shows what the query shows."),
    "label": ("string", "What the query shows, where the hit is wrong."),
    "column": ("string", "Key of the column of the hit."),
}


@router.post(
    "/feedback", response_model=KeptJudgement, openapi_extra=_form_of(_FEEDBACK, required=("index", "number", "right"))
)
async def feedback(request: Request) -> Response:
    """Say that a hit is right or wrong. What is known of queries becomes a manifest that `run` reads."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    _refuse_others(form, _FEEDBACK)
    right = form.first("right")
    if right not in ("true", "false"):
        raise BenchError("right: must be true or false")
    judgement = HitJudgement(
        query_of(form),
        _number(form, "index"),
        _number(form, "number"),
        right == "true",
        form.first("column"),
        form.first("label"),
    )
    return _json(_KEPT, await own.run(lambda: own.feedback.add(judgement)))


@router.get("/pictures/{index}/{number}", response_class=Response)
async def picture(request: Request, index: int, number: int, side: Side = 320, v: str = "") -> Response:
    """The picture of an item as a JPEG; it never changes where `v` is its tag."""
    own = served(request)
    tag = await own.run(lambda: own.pictures.tag(index, number))
    return await _shown(
        request, own, f"{tag}-{side}", bool(v) and v == tag, lambda: own.pictures.of_item(index, number, side).jpeg
    )


@router.get("/queries/{index}/{row}", response_class=Response)
async def known_query(request: Request, index: int, row: int, side: Side = 320) -> Response:
    """The picture of a query of an index's dataset as a JPEG."""
    own = served(request)
    return await _shown(request, own, "", False, lambda: own.pictures.of_query(index, row, side).jpeg)


@router.get("/uploads/{word}", response_class=Response)
async def upload(request: Request, word: str, side: Side = 640) -> Response:
    """The picture that was sent a moment ago as a JPEG; `word` is that of the answer."""
    own = served(request)
    return await _shown(request, own, "", False, lambda: own.pictures.of_upload(word, side).jpeg)


async def _shown(request: Request, own: Served, tag: str, unchanging: bool, make: Any) -> Response:
    headers = {"cache-control": "no-store"}
    if tag:
        headers = {
            "etag": f'"{tag}"',
            "cache-control": "private, max-age=31536000, immutable" if unchanging else "no-cache",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
    return Response(await own.run(make), media_type="image/jpeg", headers=headers)


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Response:
    """Whether the service answers."""
    service = served(request).service
    return _json(_HEALTH, Health("ok", service.under_way, service.queue.waiting))


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counts, latencies, queue and memory, as Prometheus reads them."""
    own = served(request)
    return Response(await own.run(own.service.telemetry.text), headers={"content-type": CONTENT_TYPE})


def search_route() -> APIRoute:
    """The route of `POST /search`."""
    return next(route for route in router.routes if isinstance(route, APIRoute) and route.endpoint is search)


def methods_shown(service: SearchService) -> Methods:
    """What is searched in, and by what."""
    indexes = []
    for index in service.indexes:
        snapshot = index.stored.snapshot()
        indexes.append(
            IndexFacts(
                index.number, index.name, index.stored.dataset_spec, len(snapshot), snapshot.version, index.writable
            )
        )
    columns = tuple(
        MethodFactsShown(
            key,
            column.index.number,
            column.method.name,
            column.method.family,
            column.method.distance,
            column.method.bytes_per_item,
            column.method.comparable,
            column.method.learns,
            column.method.notice,
            str(column.method.sides),
        )
        for key, column in service.columns.items()
    )
    return Methods(tuple(indexes), columns)


def query_of(form: Form) -> Query:
    """What a form searches for; BenchError where it names several things."""
    known = form.first("known")
    place = None
    if known:
        index, _, row = known.partition(":")
        if not (index.isdecimal() and row.isdecimal()):
            raise BenchError(f"known={known[:40]!r}: write index:row, such as 0:12")
        place = int(index), int(row)
    file = next((one for one in form.files if one.data or one.name), None)
    text = checked_text(form.first("text")) if "text" in form.fields else None
    query = Query(None if file is None else file.data, form.first("query"), form.first("item"), place, text)
    named = (file is not None, bool(query.recent), bool(query.item), place is not None)
    if sum(named) > 1:
        raise BenchError("search for one thing: a file, query, item or known, each with words in text or without")
    return query


def question_of(form: Form) -> Question:
    """How a form searches; BenchError where a value is out of its range."""
    crop = None
    if parts := form.all("crop"):
        try:
            left, top, right, bottom = map(float, parts)
        except ValueError:
            raise BenchError("crop: write left,top,right,bottom as shares from 0 to 1") from None
        crop = left, top, right, bottom
    thresholds = {}
    for text in form.fields.get("threshold", []):
        key, _, value = text.rpartition("=")
        if not value:
            continue
        try:
            thresholds[key] = float(value)
            if math.isnan(thresholds[key]):  # nothing is farther than it
                raise ValueError
        except ValueError:
            raise BenchError(f"threshold={text[:40]!r}: write column=distance, such as phash=12") from None
    return Question(
        k=_number(form, "k", 10),
        columns=tuple(form.all("methods")),
        filters=filters_of(form),
        exclude=_texts(form, "exclude"),
        thresholds=thresholds,
        more=_texts(form, "more"),
        less=_texts(form, "less"),
        crop=crop,
        turn=_number(form, "turn", 0),
        joined=_yes_or_no(form, "joined", default=True),
    )


def filters_of(form: Form) -> Filters:
    """Which items a form wants; BenchError where an attribute has no value."""
    attributes: dict[str, tuple[str, ...]] = {}
    for text in _texts(form, "attribute"):
        name, equals, value = text.partition("=")
        if not equals:
            raise BenchError(f"attribute={text[:40]!r}: write name=value")
        attributes[name] = (*attributes.get(name, ()), value)
    return Filters(
        labels=_texts(form, "label"),
        categories=_texts(form, "category"),
        attributes=attributes,
        text_in_id=form.first("in_id"),
        not_labels=_texts(form, "not_label"),
        not_categories=_texts(form, "not_category"),
    )


def _refuse_others(form: Form, known: Collection[str]) -> None:
    """Raise BenchError for a field that is none of these: a misspelt filter would answer another question."""
    for name in form.fields:
        if name not in known and name != FIELD:
            raise BenchError(unknown("field", name[:40], known))


def _texts(form: Form, name: str) -> tuple[str, ...]:
    """Every value of a field that is not empty, as it is: a label may hold a comma."""
    return tuple(value for value in form.fields.get(name, []) if value)


def _yes_or_no(form: Form, name: str, default: bool) -> bool:
    text = form.first(name)
    if not text:
        return default
    if text.lower() not in _SAID:
        raise BenchError(f"{name}={text[:40]!r}: must be true or false")
    return _SAID[text.lower()]


def _number(form: Form, name: str, default: int | None = None) -> int:
    text = form.first(name)
    if not text and default is not None:
        return default
    if not text.isdecimal() or len(text) > 15:
        raise BenchError(f"{name}={text[:40]!r}: must be a whole number")
    return int(text)
