"""The pages in a real browser: by mouse, by keys, without a script, on a phone, in the dark, for screen readers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retrieval_bench.experiment.runner import run
from retrieval_bench.methods.parse import parse_method
from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.requests.guards import Guarded
from retrieval_bench.serving.requests.settings import ServingSettings
from tests.support.browser import await_count, await_text, browser, listening_service
from tests.support.served import plan_of
from tests.support.shop import picture

pytestmark = pytest.mark.long(reason="starts a browser and a service")

KNOWN = "/?q=known:0:7"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture
def site(own_service: SearchService, tmp_path: Path) -> Iterator[str]:
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback")
    with listening_service(own_service, settings) as address:
        yield address


@contextmanager
def opened(chrome: Any, site: str, path: str = "/", **options: Any) -> Iterator[Any]:
    """A page on which nothing goes wrong, and which asks nobody but us for anything."""
    context = chrome.new_context(**options)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((site, "data:", "blob:")) else 0
    )
    page.goto(site + path)
    page.set_default_timeout(10_000)
    yield page
    assert wrong == []
    context.close()


def png(label: int, number: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(picture(label, number)).save(buffer, "PNG")
    return {"name": f"photo-{number}.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


def labels(page: Any, column: str) -> list[str]:
    found = page.locator(f'.column[data-key="{column}"] .hit .label').all_inner_texts()
    return [re.sub(r"^\d+\s+|\s+[✓✗] \w+$", "", text) for text in found]


def test_one_picture_every_method(chrome: Any, site: str) -> None:
    with opened(chrome, site) as page:
        page.set_input_files("#file", png(2, 950))
        page.wait_for_selector("#answer")
        assert "q=up%3A" in page.url
        titles = page.locator(".column h3").all_inner_texts()
        assert titles == ["phash", "color", "phash+color+rrf", "joined"]
        assert labels(page, "color")[0] == "product-2"
        assert page.locator(".column").first.locator(".hit").count() == 6
        framed = page.locator(".hit.frame-A")
        assert framed.count() > 1
        assert len(set(framed.locator(".id").all_inner_texts())) == 1, "one letter, one item"
        assert re.search(r"right: \d+%", page.locator('.column[data-key="color"] .chance').first.inner_text())
        assert "No probability" in page.locator('.column[data-key="phash+color+rrf"]').inner_text()


def test_a_threshold_answers_at_once_and_is_kept_in_the_address(chrome: Any, site: str) -> None:
    with opened(chrome, site, KNOWN) as page:
        column = page.locator('.column[data-key="color"]')
        slider = column.locator("input[type=range]")
        least = slider.get_attribute("min")
        before = column.locator(".threshold p").inner_text()
        slider.fill(least)
        assert column.locator(".hit.beyond").count() >= 5
        assert column.locator(".threshold p").inner_text() != before
        assert "precision" in before
        assert f"t.color={float(least):g}"[:9] in page.url
        page.reload()
        assert column.locator(".hit.beyond").count() >= 5
        if column.locator(".hit").count() == column.locator(".hit.beyond").count():
            assert "Not in the catalogue" in column.inner_text()


def test_filters_still_give_all_hits_and_columns_move(chrome: Any, site: str) -> None:
    with opened(chrome, site, KNOWN) as page:
        page.locator("summary").click()
        page.fill("input[name=label]", "product-4")
        page.locator("#controls button").click()
        page.wait_for_url("**label=product-4**")
        assert set(labels(page, "phash")) == {"product-4"}
        assert len(labels(page, "phash")) == 6
        page.get_by_label("Move phash to the right").click()
        page.wait_for_url("**c=color&c=phash&**")
        page.get_by_label("Hide phash", exact=True).click()
        page.wait_for_selector("text=show phash")
        assert page.locator(".column").count() == 3
        page.go_back()
        page.wait_for_selector(".column >> nth=3")
        page.get_by_label(re.compile("^Leave ")).first.click()
        page.wait_for_url("**without=**")


def test_a_part_is_searched_by_dragging_and_by_keys(chrome: Any, site: str) -> None:
    with opened(chrome, site, KNOWN) as page:
        canvas = page.locator("#crop canvas")
        area = canvas.bounding_box()
        page.mouse.move(area["x"] + 10, area["y"] + 10)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] / 2, area["y"] + area["height"] / 2, steps=4)
        page.mouse.up()
        page.wait_for_url("**crop=**")
        first = page.url
        page.locator("#crop canvas").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_url(lambda address: address != first)
        page.get_by_text("Turn right").click()
        page.wait_for_url("**turn=90**")
        assert page.locator("#answer").is_visible()
        found = page.locator('.column[data-key="color"] .hit .label').all_inner_texts()
        known = page.locator(".names").inner_text().rpartition(" ")[2]
        assert [known in text for text in found] == ["✓ right" in text for text in found]


def test_why_is_drawn_on_demand(chrome: Any, site: str) -> None:
    with opened(chrome, site, KNOWN) as page:
        assert page.locator(".explained").count() == 0
        page.locator('.column[data-key="phash"] a.why').first.click()
        page.wait_for_selector('.column[data-key="phash"] .explained img')
        assert page.locator('.column[data-key="phash"] .explained img').evaluate("it => it.naturalWidth") > 100
        page.locator('.column[data-key="phash"] a.why').first.click()
        await_count(page, ".explained", 0)


def test_feedback_is_noted(chrome: Any, site: str, tmp_path: Path) -> None:
    with opened(chrome, site, KNOWN) as page:
        page.locator('.column[data-key="color"] .judge button').first.click()
        page.wait_for_selector("text=Noted as right")
    assert '"right": true' in (tmp_path / "feedback" / "feedback.jsonl").read_text()


def test_pictures_are_added_found_removed_and_brought_back(chrome: Any, site: str) -> None:
    fresh = png(3, 971)
    with opened(chrome, site, "/catalogue") as page:
        page.set_input_files("#files", [fresh, png(4, 972)])
        page.fill("form[action='/catalogue/look'] input[name=label]", "<b>new</b>")
        page.get_by_text("Look at them").click()
        await_count(page, "input[name=word]", 2)
        for place in range(2):  # pictures that are merely like others are not ticked at first
            page.locator("input[name=word]").nth(place).check()
        page.get_by_text("Add what is ticked").click()
        await_text(page, "section[role=status]", "2 items by operation")
        page.goto(site + "/")
        page.set_input_files("#file", fresh)
        page.wait_for_selector("#answer")
        assert all(labels(page, column)[0] == "<b>new</b>" for column in ("phash", "color", "phash+color+rrf"))
        page.goto(site + "/catalogue")
        page.set_input_files("#files", fresh)
        page.get_by_text("Look at them").click()
        await_text(page, "main", "May be there already")
        assert not page.locator("input[name=word]").is_checked()
        page.goto(site + "/catalogue?label=%3Cb%3Enew%3C/b%3E")
        page.get_by_text("remove", exact=True).first.click()
        page.wait_for_selector("section[role=status]")
        page.goto(site + "/catalogue?label=%3Cb%3Enew%3C/b%3E")
        assert "1 item" in page.locator("#items-title").inner_text()
        page.get_by_label(re.compile("^Undo operation")).first.click()
        page.wait_for_selector("section[role=status]")
        page.goto(site + "/catalogue?label=%3Cb%3Enew%3C/b%3E")
        assert "2 items" in page.locator("#items-title").inner_text()


def test_everything_works_without_a_script(chrome: Any, site: str) -> None:
    with opened(chrome, site, "/", java_script_enabled=False) as page:
        page.set_input_files("#file", png(1, 960))
        page.locator("#upload button").click()
        await_count(page, ".column", 4)
        page.locator("summary").click()
        page.select_option("select[name=sort]", "agreement")
        page.locator("#controls button").click()
        page.wait_for_url("**sort=agreement**")
        page.locator("a.why").first.click()
        await_count(page, ".explained", 1)
        page.get_by_text("Back to the search").click()
        page.get_by_text("Turn right").click()
        page.locator(".judge button").first.click()
        await_text(page, "main", "Noted as right")


def test_by_keyboard_alone(chrome: Any, site: str) -> None:
    with opened(chrome, site) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.strip') !== null"):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        seen = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            seen.add(page.evaluate("document.activeElement.tagName + '.' + (document.activeElement.className || '')"))
        assert {"CANVAS.", "A.shown", "A.why", "INPUT."} <= seen


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_no_serious_barrier_is_left(chrome: Any, site: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    look = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    # The policy of our pages forbids scripts of others, and axe is one.
    with opened(chrome, site, KNOWN, **look, bypass_csp=True) as page:
        for path in (KNOWN, "/", "/catalogue", "/docs", "/why?q=known:0:7&column=phash&index=0&number=1"):
            page.goto(site + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            found = axe.Axe().run(page).response["violations"]
            bad = [
                (one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")
            ]
            assert bad == [], path


def test_the_record_lies_beside_the_search(chrome: Any, service: SearchService, shelf: Path, tmp_path: Path) -> None:
    run(replace(plan_of(shelf), methods=(parse_method("phash"),)), tmp_path / "record")
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), record=tmp_path / "record")
    with listening_service(service, settings) as site, opened(chrome, site, "/record") as page:
        assert "phash" in page.locator("tbody th").all_inner_texts()
        report = page.frame_locator("iframe")
        assert "Image retrieval" in report.locator("h1").inner_text()
        assert report.locator("main section").count() > 3


def test_markup_in_names_is_text(chrome: Any, own_service: SearchService, site: str) -> None:
    with opened(chrome, site, "/?in-id=%3Cscript%3Ealert(1)%3C/script%3E&q=known:0:1") as page:
        assert page.evaluate("document.querySelectorAll('script').length") == 2
        assert "no item passes the filters" in page.locator("#answer").inner_text()


@pytest.mark.parametrize("scripted", [True, False])
def test_words_are_typed_and_a_picture_joins_them(
    chrome: Any, told: SearchService, tmp_path: Path, scripted: bool
) -> None:
    settings = ServingSettings(guarded=Guarded(requests_a_second=0), feedback=tmp_path / "feedback")
    look = {"viewport": {"width": 360, "height": 800}, "java_script_enabled": scripted}
    with listening_service(told, settings) as site, opened(chrome, site, **look) as page:
        page.get_by_label("Words", exact=True).fill("mustard tee")
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer")
        assert labels(page, "bm25")[0] == "product-3"
        assert "reads a picture, and the query has none" in page.locator('.column[data-key="hsv"]').inner_text()
        page.set_input_files("#file", png(3, 950))
        if not scripted:
            page.locator("#upload button").click()
        page.wait_for_selector("#crop")
        assert "text=mustard+tee" in page.url
        assert labels(page, "hsv+tfidf")[0] == "product-3"
        page.locator('.column[data-key="bm25"] a.why').first.click()
        page.wait_for_selector(".explained .bars")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360 if scripted else True
