"""Make the pictures of the documentation again: `make pictures`. Chromium must be installed.

`report.webp` is the top of the report page of the reference record, `explain.webp` one query of it as `explain` shows
it. Both are from the embedded dataset, so that nothing is downloaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
RECORD = "results/reference/products"
QUERY = "query/cap/cap-06/view-09.png"
"""An unsharp photo: keypoints and bits are lost in the blur, colours are not."""
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
