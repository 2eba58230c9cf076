"""The labelling page in a real browser, by keyboard alone, and on a phone."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from retrieval_bench.serving.decoding.pool import DecodingPool
from retrieval_bench.serving.labelling_app import create_labelling_app
from retrieval_bench.serving.running import address_of, listening, server_of
from tests.support.browser import browser
from tests.support.half_labelled import half_labelled_at, session_at


@pytest.mark.slow(reason="starts a browser, and a process that decodes")
def test_a_person_labels_by_keyboard(tmp_path: Path) -> None:
    session = session_at(half_labelled_at(tmp_path / "shop"), tmp_path / "log.jsonl", noise=4)
    children = DecodingPool(1)
    listener = listening("127.0.0.1", 0)
    server = server_of(create_labelling_app(session, children))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with browser() as chrome:
            page = chrome.new_page(viewport={"width": 1280, "height": 860})
            wrong: list[str] = []
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.set_default_timeout(10_000)
            site = address_of(listener)
            page.goto(site)

            def shown() -> str:
                return str(page.locator(".shown .id").inner_text())

            def press(*keys: str) -> str:
                """What was shown before; returns when another page is there."""
                before = shown()
                with page.expect_navigation():
                    for key in keys:
                        page.keyboard.press(key)
                return before

            first = press("Enter")
            assert session.by[session.pool.ids.index(first)] == "person"
            page.wait_for_selector("button[data-digit='2']")
            second = press("2")
            done = session.log.decisions[-1]
            assert (done.items[0].id, done.proposed != "") == (second, True)
            page.keyboard.press("t")
            page.keyboard.type("product-5")
            page.wait_for_selector("#offers li")
            third = press("Enter")
            assert session.label_of(session.pool.ids.index(third)) == "product-5"
            page.keyboard.press("t")
            page.keyboard.type("pro new")
            page.wait_for_selector("text=New label: pro new")
            fourth = press("Enter")
            assert session.names()[-1] == "pro new"
            press("u")
            assert shown() == fourth
            press("s")
            assert session.log.decisions[-1].do == "skip"
            press("n")
            assert session.log.decisions[-1].do == "nothing"
            assert page.locator(".near img").first.evaluate("it => it.naturalWidth") > 0
            page.get_by_text("that are sure").click()
            page.wait_for_selector("text=at once; u takes")
            assert session.standing().machine > 0

            axe = pytest.importorskip(
                "axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing"
            )
            phone = chrome.new_context(
                viewport={"width": 390, "height": 844}, color_scheme="dark", bypass_csp=True
            ).new_page()
            for path in ("", "?queue=suspects"):
                phone.goto(site + path)
                assert phone.evaluate("document.documentElement.scrollWidth") <= 390
                found = axe.Axe().run(phone).response["violations"]
                assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
            assert wrong == []
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        children.close()
