"""The pages of people: search with every method side by side, the catalogue, the record. They work without a script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.responses import Response

from retrieval_bench.core import BadImage, BenchError
from retrieval_bench.explaining.by_extractor import why
from retrieval_bench.explaining.clues import Clue, Shown, WordPair
from retrieval_bench.explaining.pairs import pair_of
from retrieval_bench.indexing.items import Item
from retrieval_bench.methods.modalities import IMAGE
from retrieval_bench.serving.answering.catalogue import AddingOptions
from retrieval_bench.serving.answering.explanations import DrawnPair, LayerShown, WordBar
from retrieval_bench.serving.answering.feedback import HitJudgement
from retrieval_bench.serving.answering.open_indexes import OpenIndex, SearchColumn
from retrieval_bench.serving.answering.recent_queries import RecentQuery
from retrieval_bench.serving.answering.service import Query, turned_and_cropped
from retrieval_bench.serving.client.answers import Answer, Filters, picture_address
from retrieval_bench.serving.client.changes import AddedPictures, CatalogueChange
from retrieval_bench.serving.page_state import PageState
from retrieval_bench.serving.page_view import column_views
from retrieval_bench.serving.record_page import RecordPage
from retrieval_bench.serving.rendering import rendered
from retrieval_bench.serving.requests.errors import NoSuchThing, RequestRefused
from retrieval_bench.serving.requests.guards import csrf_word, require_own
from retrieval_bench.serving.requests.refusals import told_by
from retrieval_bench.serving.requests.uploads import UploadedFile, read_form
from retrieval_bench.serving.requests.words import MOST_CHARACTERS, checked_text
from retrieval_bench.serving.served import Served, served

router = APIRouter(include_in_schema=False)

OFFERED = 12
"""Known queries on a page."""
PAGE = 48
"""Items on a page of the catalogue."""
WHY_SIDE = 420
"""Pixels of each image of an explanation."""

_TABS = {"search.html": "Search", "catalogue.html": "Catalogue", "record.html": "Record"}


def page(template: str, request: Request, status: int = 200, /, **values: Any) -> HTMLResponse:
    """A page, or the part of it that htmx asked for; what it shows is text, wherever it came from."""
    own = served(request)
    text = rendered(
        template,
        title=own.settings.title,
        tab=_TABS.get(template, ""),
        csrf=csrf_word(request.scope),
        has_record=own.record is not None,
        indexes=own.service.indexes,
        reads_texts=own.service.reads_texts,
        **values,
    )
    return HTMLResponse(text, status)


async def _refusal_page(request: Request, refused: RequestRefused) -> Response:
    """One sentence, and counted."""
    served(request).service.telemetry.refused.labels(str(refused.status)).inc()
    heading = HTTPStatus(refused.status).phrase
    return page("error.html", request, refused.status, sentence=str(refused), heading=heading)


told_as_page = told_by(_refusal_page)


# --- search -----------------------------------------------------------------------------------------------------------


@router.get("/")
@told_as_page
async def search_page(request: Request) -> Response:
    """The search page of an address."""
    own = served(request)
    state = PageState.read(request.query_params.multi_items())
    shown = _shown_columns(own, state)
    answer: Answer | None = None
    lost = ""
    if state.query or state.more or state.text:
        with own.service.admitted():
            try:
                answer = await own.run(lambda: own.service.search(_query(own, state), state.question(shown)))
            except NoSuchThing as error:
                lost = str(error)
    calibrations = await own.run(own.calibrations)
    kinds = {key: _kind(own, column) for key, column in own.service.columns.items()}
    query = None if lost else await own.run(lambda: _query_view(own, state))
    label = "" if query is None else query["label"]
    views = [] if answer is None else column_views(answer, state, shown, kinds, calibrations, label)
    facets = await own.run(lambda: _facets(own))
    return page(
        "search.html",
        request,
        200 if not lost else 404,
        state=state,
        answer=answer,
        columns=views,
        lost=lost,
        query=query,
        hidden=[key for key in own.service.columns if key not in shown],
        shown=shown,
        facets=facets,
        known=await own.run(lambda: _known(own, state.seed)),
    )


@router.post("/upload")
@told_as_page
async def upload(request: Request) -> Response:
    """Take a picture, or words, or both, and show the page that searches for them: a picture is kept in memory alone,
    for a while, and words in the address of the page. Without a new picture the words belong to the one that is there.
    """
    own = served(request)
    with own.service.admitted():
        form = await read_form(request, own.settings.upload)
        require_own(request.scope, form)
        state = PageState.read(parse_qsl(form.first("state")))
        text = checked_text(form.first("text"))
        file = next((file for file in form.files if file.data), None)
        if file is None:
            if not text and not state.text:
                raise RequestRefused(400, _NOTHING_CHOSEN[own.service.reads_texts])
            return RedirectResponse(state.with_words(text), 303)
        word = await own.run(lambda: own.service.receive(file.data))
        if own.settings.keep:
            await own.run(lambda: own.feedback.keep_upload(file.data))
    return RedirectResponse(state.of_another(f"up:{word}", text), 303)


@router.get("/why")
@told_as_page
async def why_page(request: Request) -> Response:
    """Why a column found an item: what is near in both pictures, or which words made it near."""
    own = served(request)
    values = dict(request.query_params)
    state = PageState.read([(name, value) for name, value in request.query_params.multi_items() if name not in _WHY])
    key, index, number = values.get("column", ""), _number(values, "index"), _number(values, "number")
    with own.service.admitted():
        item = await own.run(lambda: own.catalogue.item(index, number))
        layers = await own.run(lambda: _layers(own, state, key, index, number))
    template = "_why.html" if request.headers.get("hx-request") else "why.html"
    return page(template, request, layers=layers, item=item, column=key, back=state.address())


@router.post("/judge")
@told_as_page
async def judge(request: Request) -> Response:
    """A user says that a hit is right or wrong."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    state = PageState.read(parse_qsl(form.first("state")))
    fields = {name: values[0] for name, values in form.fields.items()}
    verdict = HitJudgement(
        _query(own, state, whole=False),
        _number(fields, "index"),
        _number(fields, "number"),
        form.first("right") == "true",
        form.first("column"),
    )
    kept = await own.run(lambda: own.feedback.add(verdict))
    if request.headers.get("hx-request"):
        return page("_judged.html", request, right=verdict.right, kept=kept)
    return page("judged.html", request, right=verdict.right, kept=kept, back=state.address())


# --- catalogue --------------------------------------------------------------------------------------------------------


@router.get("/catalogue")
@told_as_page
async def catalogue_page(request: Request) -> Response:
    """What the indexes hold, and what was done to them."""
    return await _catalogue(request)


async def _catalogue(
    request: Request, looked: AddedPictures | None = None, changes: tuple[CatalogueChange, ...] = (), **more: Any
) -> Response:
    own = served(request)
    values = dict(request.query_params)
    index = _number(values, "index", 0)
    start = _number(values, "start", 0)
    filters = Filters(
        labels=tuple(request.query_params.getlist("label")) if values.get("label") else (),
        text_in_id=values.get("in-id", ""),
    )
    listing = await own.run(lambda: own.catalogue.listing(index, filters, start, PAGE))
    operations = await own.run(lambda: own.catalogue.operations(index, 30))

    def address(place: int) -> str:
        parts = [f"start={place}"] if place else []
        parts += [f"index={index}"] if index else []
        parts += [f"{name}={quote(values[name])}" for name in ("label", "in-id") if values.get(name)]
        return "/catalogue?" + "&".join(parts) if parts else "/catalogue"

    return page(
        "catalogue.html",
        request,
        200,
        index=own.service.index(index),
        listing=listing,
        operations=operations,
        here=address(start).removeprefix("/catalogue"),
        before=address(max(0, start - PAGE)) if start else "",
        after=address(start + PAGE) if start + PAGE < listing.total else "",
        label=values.get("label", ""),
        in_id=values.get("in-id", ""),
        looked=looked,
        changes=changes,
        **more,
    )


@router.post("/catalogue/look")
@told_as_page
async def look(request: Request) -> Response:
    """Pictures that are to be added, and what they may be copies of; nothing is changed yet."""
    own = served(request)
    with own.service.admitted(adding=True):
        form = await read_form(request, own.settings.adding)
        require_own(request.scope, form)
        files = [file for file in form.files if file.data]
        if not files:
            raise RequestRefused(400, "no picture was chosen; choose one or several")
        said = AddingOptions(labels=(form.first("label"),), category=form.first("category"))
        text = checked_text(form.first("text"))
        looked = await own.run(lambda: own.catalogue.look(files, said))
        words = [own.service.recent.put(RecentQuery.of(file.data)) for file in files]
    of_all: dict[str, Any] = {"new_label": said.labels[0], "new_category": said.category, "new_text": text}
    return await _catalogue(request, looked=looked, words=words, **of_all)


@router.post("/catalogue/add")
@told_as_page
async def add(request: Request) -> Response:
    """Add the pictures that were looked at and chosen."""
    own = served(request)
    with own.service.admitted(adding=True):
        form = await read_form(request, own.settings.adding)
        require_own(request.scope, form)
        files = []
        for word in form.fields.get("word", []):
            held = own.service.recent.get(word)
            if held is None:
                raise NoSuchThing("these pictures are no longer here; choose them again")
            files.append(UploadedFile("", held.encoded))
        if not files:
            raise RequestRefused(400, "no picture was ticked; nothing was added")
        said = AddingOptions(
            labels=(form.first("label"),),
            texts=(checked_text(form.first("text")),),
            category=form.first("category"),
            allow_duplicates=True,
        )
        added = await own.run(lambda: own.catalogue.add(files, said))
    return await _catalogue(request, changes=added.changes, done="added")


@router.post("/catalogue/remove")
@told_as_page
async def remove(request: Request) -> Response:
    """Remove an item from every index that has it."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    changes = await own.run(lambda: own.catalogue.remove(form.fields.get("id", [])))
    return await _catalogue(request, changes=tuple(changes), done="removed")


@router.post("/catalogue/undo")
@told_as_page
async def undo(request: Request) -> Response:
    """Undo an operation."""
    own = served(request)
    form = await read_form(request, own.settings.upload)
    require_own(request.scope, form)
    fields = {name: values[0] for name, values in form.fields.items()}
    change = await own.run(lambda: own.catalogue.undo(_number(fields, "index"), _number(fields, "operation")))
    return await _catalogue(request, changes=(change,), done="undone")


# --- record -----------------------------------------------------------------------------------------------------------


@router.get("/record")
@told_as_page
async def record_page(request: Request) -> Response:
    """The table of the record, and its report."""
    own = served(request)
    record = _record(own)
    table = await own.run(record.table)
    return page("record.html", request, table=table, name=record.name)


@router.get("/record/report")
@told_as_page
async def record_report(request: Request) -> Response:
    """The report of the record, with a policy of its own: it holds its style and its pictures."""
    own = served(request)
    record = _record(own)
    text, policy = await own.run(record.report)
    headers = {
        "content-security-policy": f"{policy}; frame-ancestors 'self'",
        "x-frame-options": "SAMEORIGIN",
    }
    return HTMLResponse(text, headers=headers)


def _record(own: Served) -> RecordPage:
    if own.record is None:
        raise NoSuchThing("no record is served; name one: python -m benchmark serve RECORD")
    return own.record


# --- what pages are made of -------------------------------------------------------------------------------------------

_WHY = ("column", "index", "number")
_NOTHING_CHOSEN = {
    False: "no picture was chosen; choose one, or drop it on the page",
    True: "no picture was chosen and no words were written; choose one, or write some",
}


def _kind(own: Served, column: SearchColumn) -> str:
    """The family of a column's method, and what it compares where some columns read texts."""
    family = column.method.family
    return f"{family}, compares {column.method.sides}" if own.service.reads_texts else family


def _number(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = values.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BenchError(f"{name}: must be a whole number")
    return int(text)


def _shown_columns(own: Served, state: PageState) -> tuple[str, ...]:
    """Keys in the order of the address; those that are not there (any more) are left out."""
    return tuple(key for key in state.columns if key in own.service.columns) or tuple(own.service.columns)


def _query(own: Served, state: PageState, *, whole: bool | None = None) -> Query:
    """What the service is asked for. A part of an item's picture, or the turned picture, is described anew.

    whole: True to have the picture of an item in any case, False to have its id.
    """
    kind, _, rest = state.query.partition(":")
    match kind:
        case "up":
            return Query(recent=rest, text=state.text)
        case "known":
            return Query(known=_known_place(rest), text=state.text)
        case "item":
            altered = bool(state.crop or state.turn) if whole is None else whole
            found = Query(encoded=own.service.item_picture(rest)) if altered else Query(item=rest)
            return replace(found, text=state.text)
        case "":
            return Query(text=state.text)
    raise BenchError(f"q={state.query[:40]}: must begin with up:, known: or item:")


def _known_place(text: str) -> tuple[int, int]:
    """INDEX:ROW of a known query."""
    index, _, row = text.partition(":")
    place = {"index": index, "row": row}
    return _number(place, "index"), _number(place, "row")


def _item(own: Served, name: str) -> tuple[OpenIndex, Item]:
    """The first index that has an item of this id, and the item."""
    for index in own.service.indexes:
        item = index.stored.snapshot().by_id(name)
        if item is not None:
            return index, item
    raise NoSuchThing(f"no index has an item {name!r}")


def _query_view(own: Served, state: PageState) -> dict[str, str] | None:
    """The picture that is searched for, as the page shows it: where it is, what it is called, and what it shows."""
    kind, _, rest = state.query.partition(":")
    if kind == "up":
        return {"source": f"/uploads/{quote(rest)}?side=640", "name": "your picture", "label": ""}
    if kind == "known":
        number, row = _known_place(rest)
        index = own.service.index(number)
        label = index.dataset.label_names[int(index.queries.labels[row])]
        return {"source": f"/queries/{number}/{row}?side=640", "name": index.queries.ids[row], "label": label}
    if kind == "item":
        index, item = _item(own, rest)
        source = picture_address(index.number, item.number, item.digest) + "&side=640"
        return {"source": source, "name": item.id, "label": item.label or ""}
    return None


def _facets(own: Served) -> dict[str, list[str]]:
    """Of each filter its values, over all indexes: categories and the attributes that have few."""
    found: dict[str, set[str]] = {}
    for index in own.service.indexes:
        for name, values in index.stored.snapshot().facets().items():
            found.setdefault(name, set()).update(values)
    return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def _known(own: Served, seed: int) -> list[dict[str, str]]:
    """Some queries of the first index with a known answer; none where its dataset is gone."""
    index = own.service.indexes[0]
    try:
        queries, names = index.queries, index.dataset.label_names
    except BenchError:
        return []
    texts = queries.texts if queries.texts and own.service.reads_texts else ("",) * len(queries)
    return [
        {
            "query": f"known:{index.number}:{row}",
            "source": f"/queries/{index.number}/{row}?side=160",
            "label": names[int(queries.labels[row])],
            "text": texts[row].strip()[:MOST_CHARACTERS],
        }
        for row in np.random.default_rng(seed).permutation(len(queries))[:OFFERED].tolist()
    ]


def _layers(own: Served, state: PageState, key: str, index: int, number: int) -> list[LayerShown]:
    """What each part of a column's method has to say of the query and an item, drawn."""
    column = own.service.columns.get(key)
    if column is None or column.index.number != index:
        raise NoSuchThing(f"there is no column {key!r} of index {index}")
    item = column.index.stored.snapshot().item(number)

    def make() -> list[LayerShown]:
        query = own.service.picture_of(_query(own, state, whole=True))
        text = state.text or ("" if query is None or not item_asks else _item(own, state.query[5:])[1].text)
        if query is None and not text:
            raise NoSuchThing("there is no picture and no word to compare with")
        asked = None if query is None else turned_and_cropped(query, state.question(()))
        both = Shown("query", "", asked, text), Shown(item.id, item.label or "", _pixels(own, column, item), item.text)
        return [
            LayerShown(
                layer.name,
                layer.about,
                tuple(_drawn(clue, *both) for clue in layer.clues),
            )
            for layer in why(column.method.pipeline, both[0], [both[1]], column.index.stored.snapshot().texts)
        ]

    item_asks = state.query.startswith("item:")
    return own.explanations.get((state.query, state.text, state.crop, state.turn, key, index, number), make)


def _pixels(own: Served, column: SearchColumn, item: Item) -> np.ndarray | None:
    """The picture of an item; None where it is gone and the method does not look at it."""
    try:
        return own.service.pool.decode(column.index.picture(item))[0]
    except BadImage:
        if IMAGE in column.method.sides.read:
            raise
        return None


def _drawn(clue: Clue, query: Shown, found: Shown) -> DrawnPair:
    """A clue as the page shows it: words as bars of its own, which a screen reader reads, all else as an image."""
    if not isinstance(clue, WordPair):
        return DrawnPair(clue.said, _png(pair_of(clue, query, found, WHY_SIDE)))
    most = max((abs(amount) for _, amount in clue.words), default=0.0) or 1.0
    bars = (
        WordBar(word, f"{amount:+.2g}" if amount else "0", round(100 * abs(amount) / most), amount > 0)
        for word, amount in clue.words
    )
    return DrawnPair(clue.said, bars=tuple(bars))


def _png(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
