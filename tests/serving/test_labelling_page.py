"""The labelling page over HTTP: decisions, who may make them, and a second press that decides nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from retrieval_bench.labelling.output import write_list
from retrieval_bench.labelling.session import LabellingSession
from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.labelling_app import create_labelling_app
from tests.support.half_labelled import EACH, KNOWN, LABELS, half_labelled_at, session_at
from tests.support.served import LOCAL


class AsSent:
    """Shows pictures as they are stored; decoding in children is tested with the service."""

    def show(self, data: bytes, side: int) -> bytes:
        return data


@pytest.fixture
def session(tmp_path: Path) -> LabellingSession:
    return session_at(half_labelled_at(tmp_path / "shop"), tmp_path / "log.jsonl")


@pytest.fixture
def page(session: LabellingSession, tmp_path: Path) -> Iterator[TestClient]:
    save = lambda: write_list(session, tmp_path / "shop" / "labelled.csv")  # noqa: E731
    app = create_labelling_app(session, cast(DecodingPool, AsSent()), save)
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def form_of(text: str, action: str, which: int = 0) -> dict[str, str]:
    forms = re.findall(rf'<form method="post" action="{action}".*?</form>', text, re.S)
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', forms[which])
    return {name: value for name, value in fields if value or name == "queue"}


def test_a_press_decides_and_the_next_image_comes(page: TestClient, session: LabellingSession) -> None:
    first = page.get("/").text
    sent = form_of(first, "/decide")
    answer = page.post("/decide", data=sent)
    assert answer.status_code == 200
    assert session.standing().person == 1
    assert form_of(answer.text, "/decide")["id"] != sent["id"]
    late = page.post("/decide", data=sent)  # the same press again
    assert "Nothing was noted" in late.text
    assert session.standing().person == 1
    back = page.post("/undo", data=form_of(late.text, "/undo"))
    assert "Taken back" in back.text
    assert form_of(back.text, "/decide")["id"] == sent["id"]


def test_all_that_is_sure_and_the_list(page: TestClient, session: LabellingSession, tmp_path: Path) -> None:
    text = page.get("/").text
    answer = page.post("/accept", data=form_of(text, "/accept"))
    assert f"Accepted {session.standing().machine}" in answer.text
    saved = page.post("/save", data=form_of(answer.text, "/save"))
    assert "The list is written" in saved.text
    assert len((tmp_path / "shop" / "labelled.csv").read_text().splitlines()) > LABELS * KNOWN
    assert page.get("/?queue=suspects").text.count("No label looks wrong") == 1


@pytest.mark.parametrize(
    ("headers", "change"),
    [
        ({"origin": "http://evil.example"}, {}),
        ({"sec-fetch-site": "cross-site"}, {}),
        ({}, {"csrf": "0" * 64}),
        ({"host": "evil.example"}, {}),
    ],
)
def test_foreign_pages_decide_nothing(
    page: TestClient, session: LabellingSession, headers: dict[str, str], change: dict[str, str]
) -> None:
    sent = form_of(page.get("/").text, "/decide") | change
    assert page.post("/decide", data=sent, headers=headers).status_code in (403, 421)
    assert session.log.decisions == []


def test_mistakes_are_sentences(page: TestClient, session: LabellingSession) -> None:
    sent = form_of(page.get("/").text, "/decide")
    for change, sentence in (
        ({"id": "nobody"}, "there is no image &#39;nobody&#39; here"),
        ({"label": " "}, "a label is missing"),
        ({"do": "burn"}, "is none of label, nothing, keep, skip"),
    ):
        answer = page.post("/decide", data=sent | change)
        assert answer.status_code == 400
        assert sentence in answer.text
    assert page.get("/pictures/999").json() == {"error": "there is no image 999"}


def test_pictures_and_names(page: TestClient, session: LabellingSession) -> None:
    assert page.get("/pictures/0?side=240").content == session.pool.images.read(0)
    assert page.get("/names.json").json() == [f"product-{label}" for label in range(LABELS)]
    assert page.get("/healthz").json() == {"status": "ok"}


def test_markup_in_a_label_is_text(page: TestClient, session: LabellingSession) -> None:
    sent: dict[str, Any] = form_of(page.get("/").text, "/decide")
    answer = page.post("/decide", data=sent | {"label": "<script>alert(1)</script>"})
    assert "<script>alert" not in answer.text
    assert "<script>alert" not in page.get("/").text
    assert session.standing().open == LABELS * (EACH - KNOWN) - 1
