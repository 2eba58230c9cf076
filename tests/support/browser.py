"""A real browser, where one is installed, and a service that listens for it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from retrieval_bench.serving.answering.service import SearchService
from retrieval_bench.serving.application import create_app
from retrieval_bench.serving.requests.settings import ServingSettings
from retrieval_bench.serving.running import address_of, listening, server_of

PATIENCE_MS = 30_000


def chromium() -> str:
    """The system's Chromium; skips where there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium is installed; on Debian: apt-get install chromium")
    return found


@contextmanager
def listening_service(service: SearchService, settings: ServingSettings) -> Iterator[str]:
    """The address of a service that listens while the block runs."""
    listener = listening("127.0.0.1", 0)
    server = server_of(create_app(service, settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield address_of(listener).rstrip("/")
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def await_count(page: Any, selector: str, count: int) -> None:
    """Wait for a page that shows so many: a click returns before what it asked for is there."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(count, timeout=PATIENCE_MS)


def await_text(page: Any, selector: str, text: str) -> None:
    """Wait for a page that says this there."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(text, timeout=PATIENCE_MS)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
