"""Make the pictures of the documentation again: `make pictures`. Chromium must be installed.

`report.webp` is the top of the report page of the reference record, `explain.webp` one query of it as `explain` shows
it, `search*.webp` are the pages of `serve`, `label.webp` is that of `label`, and `leaderboard.webp` the top of what
`leaderboard` makes of the records beside the reference. Nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
RECORD = "results/reference/products"
QUERY = "query/cap/cap-06/view-09.png"
"""An unsharp photo: keypoints and bits are lost in the blur, colours are not."""
SERVED = "sift,phash,color,efficientnet_lite0,convnet"
ASKED = "known:0:14"
SKIPPED = 6
"""Images that the labelling page shows first, since little is near them."""
BOARD = (RECORD, "results/turned/products", "results/grocery-test/classical")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDEST = 1600
MOST_BYTES = 250_000


def main() -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"no browser: install one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page, why = folder / "report.html", folder / "explain.png"
        bench("report", RECORD, "--out", str(page))
        shoot(browser, page.as_uri(), folder / "report.png", folder / "profile")
        bench("explain", RECORD, "--query", QUERY, "--methods", "sift,phash,color", "--top", "3", "--out", str(why))
        keep(folder / "report.png", PICTURES / "report.webp")
        keep(why, PICTURES / "explain.webp")
        search_pages(browser, folder)
        labelling_page(browser, folder)
        board = folder / "leaderboard.html"
        bench("leaderboard", *BOARD, "--out", str(board))
        shoot(browser, board.as_uri(), folder / "leaderboard.png", folder / "profile")
        keep(folder / "leaderboard.png", PICTURES / "leaderboard.webp")


def search_pages(browser: str, folder: Path) -> None:
    """One photo, every method side by side: on a desk, with the reasons, and on a phone at night."""
    from playwright.sync_api import sync_playwright

    serving = service("serve", "--methods", SERVED, "--read-only")
    with serving as address, sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        desk = opened.new_page(viewport={"width": 1440, "height": 1290})
        desk.goto(f"{address}?q=known:0:0")  # the first search also pays for what starts with it
        desk.goto(f"{address}?q={ASKED}&k=4&t.color=0.45")
        desk.wait_for_load_state("networkidle")
        desk.screenshot(path=folder / "search.png")
        desk.goto(f"{address}?q={ASKED}&k=1&c=sift&c=phash&c=color")
        for number in range(3):
            desk.locator("a.why").nth(number).click()
            desk.locator(".explained img").nth(number).wait_for()
        desk.locator("#answer").screenshot(path=folder / "why.png")
        phone = opened.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark", device_scale_factor=2)
        phone.goto(f"{address}?q={ASKED}&c=color&c=efficientnet_lite0&c=phash")
        phone.wait_for_load_state("networkidle")
        phone.locator("#answer").evaluate("place => place.scrollIntoView()")
        phone.wait_for_load_state("networkidle")
        phone.screenshot(path=folder / "phone.png")
        opened.close()
    for name in ("search", "why", "phone"):
        keep(folder / f"{name}.png", PICTURES / ("search.webp" if name == "search" else f"search-{name}.webp"))


def labelling_page(browser: str, folder: Path) -> None:
    """A proposal with its evidence."""
    from playwright.sync_api import sync_playwright

    of = ("--known", "5", "--method", "efficientnet_lite0+color", "--out", str(folder / "labelled.csv"))
    with service("label", "products", *of, "--serve") as address, sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        desk = opened.new_page(viewport={"width": 1100, "height": 1130})
        desk.goto(address)
        for _ in range(SKIPPED):
            with desk.expect_navigation():
                desk.keyboard.press("s")
        desk.wait_for_load_state("networkidle")
        desk.screenshot(path=folder / "label.png")
        opened.close()
    keep(folder / "label.png", PICTURES / "label.webp")


@contextmanager
def service(*words: str) -> Iterator[str]:
    """The address of a service that runs while the block does."""
    command = [sys.executable, "-m", "benchmark", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if "http://" in line).split()[-1]
        finally:
            process.terminate()


def bench(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "benchmark", *words], cwd=ROOT, check=True)


def shoot(browser: str, address: str, out: Path, profile: Path) -> None:
    """The top of a page, 1280 x 930 pixels."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
    where = (f"--user-data-dir={profile}", "--hide-scrollbars", "--window-size=1280,930", f"--screenshot={out}")
    made = subprocess.run([browser, *flags, *where, address], check=False, stderr=subprocess.PIPE, text=True)
    if made.returncode or not out.exists():  # what a browser writes to stderr matters only where it fails
        sys.exit(f"{browser} made no picture:\n{made.stderr}")


def keep(picture: Path, out: Path) -> None:
    """As WebP, at most WIDEST pixels wide."""
    with Image.open(picture) as opened:
        image = opened.convert("RGB")
    image.thumbnail((WIDEST, WIDEST * 4), Image.Resampling.LANCZOS)
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out, "WEBP", quality=82, method=6)
    size = out.stat().st_size
    print(f"{out.relative_to(ROOT)}: {image.width} x {image.height}, {size:,} bytes")
    if size > MOST_BYTES:
        sys.exit(f"{out.name} has more than {MOST_BYTES:,} bytes; lower its quality or its width")


if __name__ == "__main__":
    main()
