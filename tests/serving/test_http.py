"""The service over HTTP, asked by those who mean well and by those who do not."""

from __future__ import annotations

import io
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from retrieval_bench.images.decoding import decode
from retrieval_bench.images.reading import encode_png
from retrieval_bench.registry import DATASETS, parse
from retrieval_bench.serving.answering.service import Query, SearchService
from retrieval_bench.serving.application import create_app
from retrieval_bench.serving.requests.guards import FIELD, SESSION, Guarded
from retrieval_bench.serving.requests.settings import ServingSettings
from retrieval_bench.serving.requests.uploads import UploadLimits
from tests.support.served import LOCAL, OURS, service_over
from tests.support.shop import picture

pytestmark = pytest.mark.slow(reason="builds an index and starts processes that decode")

ANY_RATE = Guarded(requests_a_second=0)
MARKUP = "<script>alert(1)</script>\"'&"


def client_of(service: SearchService, folder: Path, **changes: Any) -> TestClient:
    settings = ServingSettings(guarded=ANY_RATE, feedback=folder / "feedback")
    return TestClient(create_app(service, replace(settings, **changes)), base_url=LOCAL, raise_server_exceptions=False)


@pytest.fixture
def client(service: SearchService, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(service, tmp_path) as made:
        yield made


@pytest.fixture
def writer(own_service: SearchService, tmp_path: Path) -> Iterator[TestClient]:
    with client_of(own_service, tmp_path) as made:
        yield made


def png(label: int = 1, number: int = 901) -> bytes:
    return encode_png(picture(label, number))


def error_of(answer: httpx2.Response) -> str:
    assert answer.headers["content-type"] == "application/json"
    (sentence,) = answer.json().values()
    assert "Traceback" not in sentence
    return str(sentence)


def test_an_upload_is_answered_by_every_method_and_none(client: TestClient, service: SearchService) -> None:
    answer = client.post("/search", files={"file": ("x.png", png())}, data={"k": "3"})
    assert answer.status_code == 200
    expected = service.search(Query(encoded=png()))
    for column, own in zip(answer.json()["columns"], expected.columns, strict=True):
        assert [(hit["id"], hit["distance"]) for hit in column["hits"]] == [(h.id, h.distance) for h in own.hits[:3]]
    word = answer.json()["query"]
    for body in ({"query": word}, {"item": expected.columns[0].hits[0].id}, {"known": "0:5"}):
        assert client.post("/search", data=body).status_code == 200
    raw = client.post("/search?k=2&methods=color", content=png(), headers={"content-type": "image/png"})
    assert [len(column["hits"]) for column in raw.json()["columns"]] == [2]


def test_there_is_a_page_of_operations_that_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert "POST</b> /search" in page.text
    assert not re.search(r"""(?:src|href|action)=["']?(?:https?:)?//""", page.text)
    assert not re.search(r"<script|<style|\son\w+=|style=", page.text)
    for path in re.findall(r'href="(/[^"#]*)"', page.text):
        assert client.get(path).status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    assert {"/search", "/items", "/methods", "/healthz", "/metrics", "/feedback"} <= described.keys()
    assert {"get", "post", "delete"} <= described["/items"].keys()


def test_metrics_are_counted_by_route(client: TestClient) -> None:
    client.get(f"/{secrets.token_hex(8)}")
    client.post("/search", files={"file": ("x.png", png())})
    text = client.get("/metrics").text
    assert re.search(r'retrieval_bench_requests_total\{method="POST",route="/search",status="200"\} [1-9]', text)
    assert re.search(r'retrieval_bench_requests_total\{method="GET",route="other",status="404"\} [1-9]', text)
    assert re.search(r'retrieval_bench_phase_seconds_count\{column="phash",phase="extract"\} [1-9]', text)
    assert re.search(r"retrieval_bench_memory_bytes [1-9]", text)
    assert re.search(r"retrieval_bench_queue_waiting 0", text)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"files": {"file": ("x.gif", b"GIF89a=1;alert(document.cookie);//")}}, 422, "damaged"),
        ({"files": {"file": ("x.png", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")}}, 422, "not an"),
        ({"files": {"file": ("x.png", b"")}}, 422, "empty"),
        ({"files": {"file": ("x.png", png()[:200])}}, 422, "damaged"),
        ({"data": {"k": "0"}, "files": {"file": png()}}, 400, "k=0"),
        ({"data": {"k": "9" * 40}, "files": {"file": png()}}, 400, "whole number"),
        ({"data": {"crop": "0,0,nan,1"}, "files": {"file": png()}}, 400, "crop"),
        ({"data": {"turn": "7"}, "files": {"file": png()}}, 400, "turn"),
        ({"data": {"methods": "oracle"}, "files": {"file": png()}}, 404, "no column"),
        ({"data": {"threshold": "phash=x"}, "files": {"file": png()}}, 400, "threshold"),
        ({"data": {"threshold": "phash=nan"}, "files": {"file": png()}}, 400, "threshold='phash=nan'"),
        ({"data": {"joined": "maybe"}, "files": {"file": png()}}, 400, "joined='maybe': must be true or false"),
        ({"data": {"not_lable": "x"}, "files": {"file": png()}}, 400, "unknown field 'not_lable'"),
        ({"data": {"item": "nobody"}}, 404, "no item"),
        ({"data": {"item": "nobody", "known": "0:1"}}, 400, "one thing"),
        ({"data": {"known": "../../etc/passwd:1"}}, 400, "index:row"),
        ({}, 400, "nothing is searched for"),
        ({"json": {"k": 3}}, 415, "send a form"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400, "cannot be read"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(client: TestClient, body: Any, status: int, said: str) -> None:
    answer = client.post("/search", **body)
    assert answer.status_code == status, answer.text
    assert said in error_of(answer)


def test_a_file_without_a_name_is_a_file(client: TestClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n'
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post("/search", content=head + png() + b"\r\n--b--\r\n", headers=kind)
    assert answer.status_code == 200
    nameless = head.replace(b'; name="file"; filename=""', b"")
    assert client.post("/search", content=nameless + png() + b"\r\n--b--\r\n", headers=kind).status_code == 400


def test_a_thousand_parts_are_refused(client: TestClient) -> None:
    for parts in ([("a", (None, "x"))] * 1000, [("file", ("x.png", b"x"))] * 1000):
        answer = client.post("/search", files=parts)
        assert answer.status_code == 400
        assert "Too many" in error_of(answer)


def test_an_upload_above_the_cap_is_refused_while_it_comes(service: SearchService, tmp_path: Path) -> None:
    with client_of(service, tmp_path, upload=UploadLimits(bytes=10_000)) as client:
        large = np.random.default_rng(0).bytes(30_000)
        for body in ({"files": {"file": ("x.png", large)}}, {"content": iter([large[:9_000], large])}):
            answer = client.post("/search", headers={"content-type": "image/png"} if "content" in body else {}, **body)
            assert answer.status_code == 413
            assert "larger than" in error_of(answer)


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(client: TestClient, tmp_path: Path) -> None:
    from tests.support.nasty import huge_png

    answer = client.post("/search", files={"file": ("x.png", huge_png(tmp_path).read_bytes())})
    assert answer.status_code == 422
    assert "too many pixels" in error_of(answer)


PATHS = (
    "../../../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "a%00b",
)


@pytest.mark.parametrize("path", PATHS)
def test_no_path_of_a_client_is_opened(client: TestClient, path: str) -> None:
    for route in ("/static", "/pictures/0", "/pictures", "/queries/0", "/uploads", "/items/0", "/items", ""):
        answer = client.get(f"{route}/{path}")
        assert answer.status_code in (400, 404, 405), (route, path)
        assert "root:" not in answer.text
    for field in ("item", "query", "known", "methods"):
        assert client.post("/search", data={field: path}).status_code in (400, 404)
    assert client.get("/items", params={"in_id": path}).json()["total"] == 0


def test_no_name_of_a_client_is_that_of_a_file(writer: TestClient, tmp_path: Path) -> None:
    files = [("file", (path, png(1, 900 + number))) for number, path in enumerate(PATHS)]
    added = writer.post("/items", files=files, data={"label": "x"}, headers=OURS).json()
    assert all(re.fullmatch(r"added/[0-9a-f]{32}", one["id"]) for one in added["candidates"])
    kept = [file.name for file in (tmp_path / "index" / "pictures").iterdir()]
    assert len(kept) == len(PATHS)
    assert all(re.fullmatch(r"[0-9a-f]{64}\.png", name) for name in kept)


def test_writes_come_from_us(writer: TestClient) -> None:
    page = writer.get("/docs")
    session = page.cookies[SESSION]
    assert "HttpOnly" in page.headers["set-cookie"]
    assert "SameSite=Strict" in page.headers["set-cookie"]
    files = {"file": ("x.png", png())}
    for route, send in (
        ("/items", {"files": files, "data": {"label": "x"}}),
        ("/feedback", {"data": {"known": "0:0", "index": "0", "number": "1", "right": "true"}}),
        ("/operations/0/1/undo", {}),
    ):
        for body in ({}, {FIELD: "0" * 64}, {FIELD: session}):
            sent = {**send, "data": {**send.get("data", {}), **body}}
            assert writer.post(route, **sent).status_code == 403, route  # type: ignore[arg-type]
        for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
            assert writer.post(route, headers={**OURS, **headers}, **send).status_code == 403  # type: ignore[arg-type]
    assert writer.request("DELETE", "/items?id=x").status_code == 403
    assert writer.get("/operations").json()[0]["what"] == "build"
    assert writer.get("/methods", headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(("field", "value"), [("preview", "perhaps"), ("preview", "TRUE "), ("duplicates", "yes")])
def test_an_unclear_yes_or_no_adds_nothing(writer: TestClient, field: str, value: str) -> None:
    files = [("file", ("a.png", png(1, 905)))]
    answer = writer.post("/items", files=files, data={field: value}, headers=OURS)
    assert answer.status_code == 400, answer.text
    assert f"{field}={value!r}: must be " in error_of(answer)
    assert writer.get("/items").json()["total"] == 60
    look = writer.post("/items", files=files, data={"preview": "True"}, headers=OURS).json()
    assert look["changes"] == []


def test_items_are_added_once_found_at_once_and_removed_again(writer: TestClient) -> None:
    files = [("file", ("a.png", png(1, 901))), ("file", ("b.png", png(2, 902))), ("file", ("c.png", b"none"))]
    said = {"label": ["new", MARKUP, "x"], "category": "things", "attributes": json.dumps({"colour": "red"})}
    look = writer.post("/items", files=files, data={**said, "preview": "true"}, headers=OURS).json()
    assert look["changes"] == []
    assert writer.get("/items").json()["total"] == 60
    added = writer.post("/items", files=files, data=said, headers=OURS).json()
    (change,) = added["changes"]
    assert change["items"] == [61, 62]
    assert added["candidates"][2]["refused"].startswith("not an image")
    found = writer.post("/search", files={"file": ("a.png", png(2, 902))}).json()
    for column in found["columns"]:
        hit = next(hit for hit in column["hits"] if hit["number"] == 62)
        assert hit["distance"] <= column["hits"][0]["distance"] or column["key"] == "phash+color+rrf"
        assert (hit["number"], hit["label"], hit["category"]) == (62, MARKUP, "things")
        assert hit["attributes"] == {"colour": "red"}
    assert writer.get(hit["picture"]).headers["content-type"] == "image/jpeg"
    again = writer.post("/items", files=files[:1], data={"label": "new"}, headers=OURS).json()
    assert again["changes"] == []
    (same,) = again["candidates"][0]["duplicates"]
    assert (same["number"], same["exact"], same["why"]) == (61, True, "same picture")
    listed = writer.get("/items", params={"label": MARKUP, "attribute": "colour=red"}).json()
    assert [item["number"] for item in listed["items"]] == [62]
    gone = writer.request("DELETE", f"/items?id={listed['items'][0]['id']}&id=nobody", headers=OURS).json()
    assert gone[1]["refused"] == {"no such item": ["nobody"]}
    assert writer.get("/items/0/62").status_code == 404
    assert writer.request("DELETE", "/items?id=nobody", headers=OURS).status_code == 404
    for operation in (gone[0]["operation"], change["operation"]):
        assert writer.post(f"/operations/0/{operation}/undo", headers=OURS).status_code == 200
    assert writer.get("/items").json()["total"] == 60
    assert writer.post("/operations/0/999/undo", headers=OURS).status_code == 400


def test_what_cannot_be_kept_of_an_item_is_refused(writer: TestClient) -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"label": "x" * 201},
        {"label": "a\x00b"},
        {"label": ["a", "b", "c"]},
        {"id": "one"},
        {"attributes": "[1]"},
        {"attributes": json.dumps({"label": "cup"})},
        {"attributes": json.dumps({"a": {"b": 1}})},
        {"attributes": json.dumps({str(n): "x" for n in range(30)})},
    )
    for said in wrong:
        answer = writer.post("/items", files=[("file", png(1, 1)), ("file", png(1, 2))], data=said, headers=OURS)
        assert answer.status_code == 400, said
        assert error_of(answer)
    assert writer.get("/items").json()["total"] == 60


def photo_with_place() -> bytes:
    """A JPEG that lies on its side, with a place, a remark and a thumbnail of a maker's own in its EXIF."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x010F] = 6, "a remark", "SecretMaker"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 30.0), 3: "E", 4: (16.0, 22.0, 0.0)})
    buffer = io.BytesIO()
    coarse = np.random.default_rng(5).integers(0, 256, (4, 6, 3), np.uint8)
    photo = Image.fromarray(coarse).resize((96, 64), Image.Resampling.BICUBIC)
    photo.save(buffer, "JPEG", exif=exif, quality=95, comment=b"a comment")
    return buffer.getvalue()


def test_what_is_beside_the_pixels_is_never_stored(own_service: SearchService, tmp_path: Path) -> None:
    """Orientation is applied; places, makers and remarks go, in what is kept and in what is shown."""
    data = photo_with_place()
    assert b"SecretMaker" in data
    with client_of(own_service, tmp_path, keep=True) as client:
        added = client.post("/items", files={"file": ("IMG_GPS.jpg", data)}, data={"label": "x"}, headers=OURS).json()
        word = client.post("/search", files={"file": ("IMG_GPS.jpg", data)}).json()["query"]
        number = added["changes"][0]["items"][0]
        shown = [client.get(path).content for path in (f"/pictures/0/{number}?side=96", f"/uploads/{word}?side=96")]
    assert all(decode(one).shape == (96, 64, 3) for one in shown)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    kept = [file for file in files if file.suffix == ".jpg"]
    assert len(kept) == 2, "the item, and the upload that --keep keeps"
    for content in [*shown, *(file.read_bytes() for file in files)]:
        assert b"SecretMaker" not in content
        assert b"Exif" not in content
        assert b"a comment" not in content
        assert b"IMG_GPS" not in content


def test_a_picture_that_is_also_a_script_is_kept_as_a_picture_alone(own_service: SearchService, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(1, 55)).convert("P").save(
        buffer, "GIF", comment=b"*/=1;alert(1)//<script>alert(1)</script>"
    )
    assert b"alert(1)" in buffer.getvalue()
    with client_of(own_service, tmp_path) as client:
        files = {"file": ("x.js", buffer.getvalue(), "text/javascript")}
        added = client.post("/items", files=files, data={"label": MARKUP}, headers=OURS).json()
        shown = client.get(f"/pictures/0/{added['changes'][0]['items'][0]}")
        word = client.post("/search", files=files).json()["query"]
        again = client.get(f"/uploads/{word}")
    for answer in (shown, again):
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"alert" not in answer.content
    (kept,) = (tmp_path / "index" / "pictures").iterdir()
    assert b"alert" not in kept.read_bytes()


def test_uploads_for_searching_are_not_kept(own_service: SearchService, tmp_path: Path) -> None:
    before = {file: file.stat().st_size for file in tmp_path.rglob("*") if file.suffix != ".sqlite-shm"}
    with client_of(own_service, tmp_path) as client:
        client.post("/search", files={"file": ("x.jpg", photo_with_place())})
    assert {file: file.stat().st_size for file in tmp_path.rglob("*") if file.suffix != ".sqlite-shm"} == before


def test_pictures_are_small_and_never_change(client: TestClient) -> None:
    address = client.get("/items?count=1").json()["items"][0]["picture"]
    first = client.get(f"{address}&side=30")
    assert decode(first.content).shape == (48, 48, 3)
    assert "immutable" in first.headers["cache-control"]
    assert client.get(f"{address}&side=30", headers={"if-none-match": first.headers["etag"]}).status_code == 304
    assert client.get(address.partition("?")[0]).headers["cache-control"] == "no-cache"
    assert decode(client.get("/queries/0/3").content).shape == (48, 48, 3)
    for path in (f"{address}&side=0", "/items?count=-1", "/items?count=1001", "/items?start=-1", "/operations?last=0"):
        assert client.get(path).status_code == 400, path
    for path in (
        "/pictures/0/999",
        "/pictures/9/1",
        "/queries/0/999",
        "/uploads/none",
        "/pictures/0/-1",
        "/pictures/0/1e3",
    ):
        assert client.get(path).status_code in (400, 404), path


def test_beyond_the_bound_clients_are_told_when_to_come_again(own_service: SearchService, tmp_path: Path) -> None:
    with client_of(own_service, tmp_path) as client:
        held = [own_service.admitted() for _ in range(own_service.capacity.requests)]
        for one in held:
            one.__enter__()
        answer = client.post("/search", files={"file": png()})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/healthz").json()["under_way"] == len(held)
        for one in held:
            one.__exit__(None, None, None)
        assert client.post("/search", files={"file": png()}).status_code == 200


def test_a_bug_of_ours_tells_clients_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(SearchService, "search", broken)
    answer = client.post("/search", files={"file": png()})
    assert answer.status_code == 500
    assert error_of(answer) == "this is a bug of the service; its log says more"
    assert "secret path" in caplog.text


def test_feedback_becomes_queries_of_a_run(own_service: SearchService, tmp_path: Path) -> None:
    from retrieval_bench.experiment import runner
    from tests.support.runs import plan

    def say(client: TestClient, **fields: object) -> dict[str, str]:
        answer = client.post("/feedback", data={"index": "0", **fields}, headers=OURS)
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()
        return found

    with client_of(own_service, tmp_path, keep=True) as client:
        word = client.post("/search", files={"file": ("x.png", png(3, 77))}).json()["query"]
        assert say(client, query=word, number="40", right="true")["query_id"].startswith("sent/")
        assert say(client, known="0:0", number="60", right="false", label="product-0")["query_id"]
        assert "nobody said" in say(client, known="0:1", number="60", right="false")["why_not"]
        assert "already" in say(client, known="0:0", number="1", right="true")["why_not"]
        assert "itself" in say(client, item="gallery/product-0/0.png", number="1", right="true")["why_not"]
        assert (
            client.post("/feedback", data={"known": "0:1", "index": "0", "number": "1"}, headers=OURS).status_code
            == 400
        )
    with client_of(own_service, tmp_path) as client:
        word = client.post("/search", files={"file": ("x.png", png(3, 78))}).json()["query"]
        assert "not kept" in say(client, query=word, number="40", right="true")["why_not"]
    folder = tmp_path / "feedback"
    log = [json.loads(line) for line in (folder / "feedback.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["right"] for line in log] == [True, False, False, True, True, True]
    from retrieval_bench.images.fence import allow_outside

    allow_outside(True)
    try:
        dataset = parse(DATASETS, "manifest").build(folder)
        assert (len(dataset.gallery), len(dataset.query)) == (60, 2)
        record = runner.run(plan(dataset, "phash"), tmp_path / "out")
    finally:
        allow_outside(False)
    assert record.rows[0].status == "ok"
    assert record.rows[0].scores["accuracy"] == 1.0


def test_words_alone_and_with_a_picture_are_searched_for(told: SearchService, tmp_path: Path) -> None:
    with client_of(told, tmp_path) as client:
        alone = client.post("/search", data={"text": "crimson cup", "k": "2"})
        assert alone.status_code == 200
        by_key = {column["key"]: column for column in alone.json()["columns"]}
        assert by_key["bm25"]["hits"][0]["text"] == "crimson cup honey"
        assert by_key["hsv"]["refused"] == "hsv reads a picture, and the query has none"
        assert (alone.json()["text"], alone.json()["joined"]["hits"][0]["label"]) == ("crimson cup", "product-0")
        both = client.post("/search", data={"text": "crimson cup"}, files={"file": ("x.png", png(0))}).json()
        assert [column["refused"] for column in both["columns"]] == [""] * 4
        again = client.post("/search", data={"text": "crimson cup", "query": both["query"]}).json()
        assert [one["hits"] for one in again["columns"]] == [one["hits"] for one in both["columns"]]
        assert client.post("/search?text=crimson+cup&in_id=none").json()["columns"][1]["hits"] == []
        long = client.post("/search", data={"text": "x" * 2001})
        assert (long.status_code, error_of(long)) == (413, "the text has 2,001 characters; at most 2,000 are read")
        assert client.get("/", params={"text": "x" * 2001}).status_code == 413
        compares = {one["key"]: one["compares"] for one in client.get("/methods").json()["columns"]}
        assert compares == {"hsv": "image", "tfidf": "text", "bm25": "text", "hsv+tfidf": "image+text"}
        judged = client.post(
            "/feedback", data={"text": "crimson cup", "index": 0, "number": 1, "right": "true"}, headers=OURS
        )
        assert "words alone" in judged.json()["why_not"]
        log = (tmp_path / "feedback" / "feedback.jsonl").read_text(encoding="utf-8")
        assert json.loads(log)["text"] == "crimson cup"
        known = {"known": "0:3", "index": 0, "number": 1, "right": "true"}
        assert client.post("/feedback", data=known, headers=OURS).json()["query_id"]
        listed = (tmp_path / "feedback" / "manifest.csv").read_text(encoding="utf-8").splitlines()
        assert (listed[0], listed[-1].rpartition(",")[2]) == ("path,label,split,id,category,text", "crimson cup honey")


def test_an_item_is_added_with_its_text_and_found_by_it(told_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(told_folder, tmp_path / "index")
    service = service_over(tmp_path / "index")
    try:
        with client_of(service, tmp_path) as client:
            said = {"label": "new", "text": f"orange lantern {MARKUP}"}
            added = client.post("/items", files={"file": ("x.png", png(2, 777))}, data=said, headers=OURS)
            assert added.status_code == 200, added.text
            assert (
                client.post("/items", files={"file": png(2, 7)}, data={"text": "x" * 2001}, headers=OURS).status_code
                == 413
            )
            found = client.post("/search", data={"text": "orange lantern", "methods": "bm25,tfidf"}).json()["columns"]
            assert [column["hits"][0]["label"] for column in found] == ["new", "new"]
            assert found[0]["hits"][0]["text"] == said["text"]
            assert client.get("/items?label=new").json()["items"][0]["text"] == said["text"]
            pages = client.get("/catalogue?label=new").text, client.get("/?text=orange+lantern").text
            for page in pages:
                assert "orange lantern &lt;script&gt;" in page
                assert "<script>alert" not in page
    finally:
        service.close()
