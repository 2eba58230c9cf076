"""Install the project and all that its chores need into the environment of the Python that runs this.

`make` runs it; by hand: `python .ci/install.py` in an environment of its own. Packages are those of
requirements-dev.txt, each of the version and with one of the checksums that stand there, so that everybody tests with
the same and a file that was changed on the way is refused. On a Python that the file is not made for, and with
LOCKED=no, the newest packages that pyproject.toml allows are installed in their place.

With TORCH_INDEX, an index of PyTorch builds, torch and torchvision come from there in the versions of the file. Its
checksums are of other builds, so these two are taken as that index gives them, and what only PyPI's builds need stays
out.

uv installs them, in a sixth of pip's time, from the places that pip is told to look in. Where uv cannot,
pip does it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-dev.txt"
PYTHONS = ((3, 11, 5), (3, 14))
"""From the first, below the second."""
FROM_TORCH_INDEX = ("torch", "torchvision")
OF_CUDA = re.compile(r"(nvidia|cuda)-|triton$")
"""What PyPI's torch for Linux brings."""


def main() -> None:
    """Install, or end with the exit code of the pip that could not."""
    index = os.environ.get("TORCH_INDEX", "")
    if os.environ.get("LOCKED", "yes") == "no" or not PYTHONS[0] <= sys.version_info[:3] < PYTHONS[1]:
        print(f"installing the newest packages, not those of {LOCK.name}: {reason()}", flush=True)
        if index:
            pip("--index-url", index, *FROM_TORCH_INDEX)
        pip("uv")
        limits = pip_settings().get("constraint", "").split()
        by_uv("--editable", f"{ROOT}[dev]", *(word for file in limits for word in ("--constraint", file)))
        return
    blocks = locked(LOCK.read_text(encoding="utf-8"))
    if index:
        pip("--index-url", index, *(blocks[name].split()[0] for name in FROM_TORCH_INDEX))
        blocks = {name: b for name, b in blocks.items() if name not in FROM_TORCH_INDEX and not OF_CUDA.match(name)}
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, LOCK.name)
        wanted.write_text("\n".join(blocks.values()), encoding="utf-8")
        uv = Path(folder, "uv.txt")
        uv.write_text(blocks["uv"], encoding="utf-8")
        pip("--no-deps", "--require-hashes", "--requirement", str(uv))
        by_uv("--no-deps", "--require-hashes", "--requirement", str(wanted))  # the file has all that they need
    # What builds it is installed by now, so nothing is fetched for that; and neither is what it depends on.
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def reason() -> str:
    """Why the file is not used."""
    if os.environ.get("LOCKED", "yes") == "no":
        return "LOCKED=no"
    least, beyond = (".".join(map(str, version)) for version in PYTHONS)
    return f"it is for Python {least} and later, below {beyond}, and this is {sys.version.split()[0]}"


def locked(text: str) -> dict[str, str]:
    """Package -> its lines of the file: version, for which systems, checksums."""
    blocks = re.findall(r"^[A-Za-z0-9][^\n]*(?:\n[ \t]+[^\n]*)*", text, re.M)
    return {re.split(r"[=\s\[]", block, maxsplit=1)[0]: block for block in blocks}


def by_uv(*words: str) -> None:
    """Run `uv pip install`, quietly; where uv cannot, pip."""
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, *words]
    if subprocess.run(command, check=False, env=uv_settings(pip_settings()) | dict(os.environ)).returncode:
        print("uv could not install them; pip tries", flush=True)
        pip(*words)


def pip_settings() -> dict[str, str]:
    """What pip's files and variables say: option -> value, the one that pip itself would take."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)='(.*)'$", said, re.M)
    order = ("global", "install", ":env:")
    return {option: value for _, option, value in sorted(found, key=lambda one: order.index(one[0]))}


def uv_settings(settings: dict[str, str]) -> dict[str, str]:
    """The same as environment variables of uv, which reads nothing of pip's."""
    names = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE", "timeout": "UV_HTTP_TIMEOUT"}
    names |= {"extra-index-url": "UV_INDEX", "default-timeout": "UV_HTTP_TIMEOUT"}
    given = {names[option]: " ".join(value.split()) for option, value in settings.items() if option in names}
    if "find-links" in settings:
        given["UV_FIND_LINKS"] = ",".join(settings["find-links"].split())
    # pip looks for a version in all places alike; uv, else, in the first that knows the package.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **given}


def pip(*words: str) -> None:
    """Run `pip install`, quietly."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
