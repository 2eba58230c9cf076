"""Build sdist and wheel, install the wheel in an empty environment outside this tree, and use what was installed there.

`make wheel` runs it; by hand: `python .ci/wheel.py` with the package `build` installed. The wheel is built from the
sdist, as a packager does it. The environment and all that it wrote are removed at the end; `dist/` stays. It needs 7 GB
of temporary disk, or 2 GB where TORCH_INDEX names an index of PyTorch builds without CUDA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGES = ("retrieval_bench", "benchmark")


def main() -> None:
    wheel = build()
    # On macOS the temporary folder is a link, and a path that is not resolved would look like another place.
    with tempfile.TemporaryDirectory(prefix="retrieval_bench_wheel_") as folder:
        outside = Path(folder).resolve()
        python = install(wheel, outside)
        use(python, outside)
        check_page(wheel, outside / "report.html")
    say(f"{wheel.name} installs and works; it lies in {DIST}")


def build() -> Path:
    """The wheel, made from the sdist beside it; what lay in dist/ before is removed."""
    shutil.rmtree(DIST, ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)])
    (wheel,) = DIST.glob("*.whl")
    return wheel


def install(wheel: Path, outside: Path) -> Path:
    """The interpreter of a new environment that holds the wheel and what it depends on, and nothing else."""
    home = outside / "environment"
    venv.create(home, with_pip=True, symlinks=os.name != "nt")
    python = home / ("Scripts" if os.name == "nt" else "bin") / ("python.exe" if os.name == "nt" else "python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if index := os.environ.get("TORCH_INDEX"):
        run([*pip, "--index-url", index, "torch", "torchvision"])
    run([*pip, str(wheel)])
    return python


def use(python: Path, outside: Path) -> None:
    """Run the commands from a folder outside the tree. A command that fails ends this program."""
    program = python.with_name("retrieval-bench.exe" if os.name == "nt" else "retrieval-bench")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RETRIEVAL_"))}
    environment["RETRIEVAL_BENCH_CACHE"] = str(outside / "cache")
    for package in PACKAGES:
        code = f"import {package}; print({package}.__file__)"
        found = run([str(python), "-c", code], outside, environment, capture=True).strip()
        if outside not in Path(found).resolve().parents:
            raise SystemExit(f"{package} was not taken from the wheel but from {found}")
    bench = [str(python), "-m", "benchmark"]
    run([*bench, "run", "--limit", "10"], outside, environment)
    run([str(program), "doctor"], outside, environment)
    run([*bench, "report", str(Path("results", "products")), "--out", "report.html"], outside, environment)


def check_page(wheel: Path, page: Path) -> None:
    """The page is there and holds the style sheet of the wheel."""
    if not page.is_file():
        raise SystemExit("`report` ended well, but there is no page")
    with zipfile.ZipFile(wheel) as archive:
        sheets = [name for name in archive.namelist() if name.endswith("report/page.css")]
        css = ["\n".join(archive.read(name).decode().splitlines()) for name in sheets]
    if not css:
        raise SystemExit(f"{wheel.name} holds no report/page.css")
    text = page.read_text(encoding="utf-8")
    if not all(sheet.strip() in text for sheet in css):
        raise SystemExit("the page lacks the style sheet of the wheel")


def run(
    command: list[str], folder: Path = ROOT, environment: dict[str, str] | None = None, *, capture: bool = False
) -> str:
    """What the command printed, where it is captured. Ends this program where it fails."""
    say(subprocess.list2cmdline(command))
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE if capture else None, encoding="utf-8", check=False
    )
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {subprocess.list2cmdline(command)}")
    return done.stdout or ""


def say(sentence: str) -> None:
    print(f"wheel: {sentence}", flush=True)


if __name__ == "__main__":
    main()
