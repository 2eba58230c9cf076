"""Install the project and all that its chores need into the environment of the Python that runs this.

`make` runs it; by hand: `python .ci/install.py` in an environment of its own. Packages are those of
requirements-dev.txt, each of the version and with one of the checksums that stand there, so that everybody tests with
the same and a file that was changed on the way is refused. On a Python that the file is not made for, and with
LOCKED=no, the newest packages that pyproject.toml allows are installed in their place.

With TORCH_INDEX, an index of PyTorch builds, torch and torchvision come from there in the versions of the file. Its
checksums are of other builds, so these two are taken as that index gives them, and what only PyPI's builds need stays
out.
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
        pip("--editable", f"{ROOT}[dev]")
        return
    blocks = locked(LOCK.read_text(encoding="utf-8"))
    if index:
        pip("--index-url", index, *(blocks[name].split()[0] for name in FROM_TORCH_INDEX))
        blocks = {name: b for name, b in blocks.items() if name not in FROM_TORCH_INDEX and not OF_CUDA.match(name)}
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, LOCK.name)
        wanted.write_text("\n".join(blocks.values()), encoding="utf-8")
        pip("--no-deps", "--require-hashes", "--requirement", str(wanted))  # the file has all that they need
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


def pip(*words: str) -> None:
    """Run `pip install`, quietly."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
