"""The pages as a client without a browser gets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retrieval_bench.images.reading import encode_png
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.application import create_app
from retrieval_bench.serving.requests.guards import FIELD, Guarded
from retrieval_bench.serving.requests.settings import ServingSettings
from retrieval_bench.serving.requests.uploads import UploadLimits
from tests.support.served import LOCAL
from tests.support.shop import picture

pytestmark = pytest.mark.slow(reason="builds an index and starts processes that decode")


@pytest.fixture
def site(own_service: SearchService, tmp_path: Path) -> Iterator[TestClient]:
    settings = ServingSettings(
        guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback", upload=UploadLimits(bytes=100_000)
    )
    with TestClient(create_app(own_service, settings), base_url=LOCAL) as made:
        yield made


def word_of(page: str) -> str:
    """What a form of the page says of the session."""
    found = re.search(rf'name="{FIELD}" value="(\w+)"', page)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(("path", "tab"), [("/", "Search"), ("/catalogue", "Catalogue")])
def test_the_page_that_is_shown_is_marked(site: TestClient, path: str, tab: str) -> None:
    assert re.findall(r'aria-current="page">(\w+)<', site.get(path).text) == [tab]


def test_what_is_refused_is_a_page_that_says_why_and_is_counted(site: TestClient) -> None:
    word = word_of(site.get("/").text)
    large = {"file": ("large.png", bytes(200_000), "image/png")}
    answer = site.post("/upload", data={FIELD: word}, files=large)
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["connection"] == "close", "the rest of it was not read"
    assert "MiB" in re.sub("<[^>]+>", "", answer.text)
    assert site.get("/?k=0").status_code == 400
    assert site.get("/?q=item:nobody").status_code == 404
    assert site.get("/?q=known:0:99999").status_code == 404
    assert site.get("/?q=known:9:0").status_code == 404
    counted = site.get("/metrics").text
    assert re.search(r'refused\w*\{[^}]*"413"[^}]*\} 1\.0', counted)


def test_a_change_leaves_the_user_where_he_was(site: TestClient) -> None:
    page = site.get("/catalogue?label=product-3").text
    action = re.search(r'action="(/catalogue/remove[^"]*)"', page)
    name = re.search(r'name="id" value="([^"]+)"', page)
    assert action is not None
    assert name is not None
    answer = site.post(action[1].replace("&amp;", "&"), data={FIELD: word_of(page), "id": name[1]})
    assert "11 items" in answer.text
    assert 'value="product-3"' in answer.text


def test_an_upload_is_searched_for_at_an_address_of_its_own(site: TestClient) -> None:
    word = word_of(site.get("/").text)
    photo = {"file": ("photo.png", encode_png(picture(2, 950)), "image/png")}
    answer = site.post("/upload", data={FIELD: word, "state": "k=3&label=product-2"}, files=photo)
    assert answer.status_code == 200
    assert dict(answer.url.params)["k"] == "3"
    assert dict(answer.url.params)["q"].startswith("up:")
    assert answer.text.count('<li class="hit') == 12, "three hits of three columns and the joined one"


def test_words_are_searched_for_at_an_address_of_their_own(told: SearchService, tmp_path: Path) -> None:
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback")
    with TestClient(create_app(told, settings), base_url=LOCAL) as site:
        page = site.get("/").text
        assert '<label for="text">' in page
        assert "compares image+text" in site.get("/?text=mug").text
        word = word_of(page)
        words = site.post("/upload", data={FIELD: word, "state": "k=2", "text": "crimson cup"})
        assert dict(words.url.params) == {"text": "crimson cup", "k": "2"}
        assert 'value="crimson cup"' in words.text
        assert "hsv reads a picture, and the query has none." in words.text
        photo = {"file": ("photo.png", encode_png(picture(0, 950)), "image/png")}
        both = site.post("/upload", data={FIELD: word, "text": "crimson cup"}, files=photo)
        assert dict(both.url.params).keys() == {"q", "text"}
        assert "the query has none" not in both.text
        state = both.url.query.decode()
        other = site.post("/upload", data={FIELD: word, "state": state, "text": "plum sneaker"})
        assert dict(other.url.params) == {"q": both.url.params["q"], "text": "plum sneaker"}
        assert "picture decides alone" in site.post("/upload", data={FIELD: word, "state": state, "text": ""}).text
        nothing = site.post("/upload", data={FIELD: word, "text": " "})
        assert (nothing.status_code, "no words were written" in nothing.text) == (400, True)
        known = re.search(r'href="(/\?q=known[^"]*text=[^"]*)"', page)
        assert known is not None, "a known query has its words"
        assert "the query has none" not in site.get(known[1].replace("&amp;", "&")).text


def test_why_shows_which_words_made_an_item_near(told: SearchService, tmp_path: Path) -> None:
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback")
    with TestClient(create_app(told, settings), base_url=LOCAL) as site:
        for column, said in (("bm25", "from 2 of 3 words"), ("tfidf", "what it loses without the word")):
            where = {"column": column, "index": 0, "number": 2, "text": "crimson unknown cup"}
            page = site.get("/why", params=where).text
            assert said in page
            assert re.search(r'<th scope="row">crimson</th>.*class="adds".*<td>\+[\d.]+</td>', page)
            assert "Its text: crimson cup honey" in page
        where = {"column": "hsv+tfidf", "index": 0, "number": 2, "text": "crimson cup", "q": "known:0:1"}
        page = site.get("/why", params=where).text
        assert (page.count("data:image/png"), page.count('class="bars"')) == (1, 1)
        where = {"column": "hsv+tfidf", "index": 0, "number": 2, "text": "crimson cup"}
        assert "it looks at pictures, and the query has none" in site.get("/why", params=where).text
