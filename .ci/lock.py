"""Renew requirements-dev.txt: packages that pyproject.toml allows, for every system and Python that it names.

`make lock` runs it. What is new there comes in its newest version. Versions that stand in the file already are kept;
ARGS=--upgrade takes newer ones, and ARGS="--upgrade-package NAME" that of one package. The file holds a checksum of
each of PyPI's files of a version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Let uv, in an environment that is removed again, resolve what is wanted."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder, "Scripts" if os.name == "nt" else "bin")
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
        command = (
            *(programs / "uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-annotate"),
            *("--python", sys.executable, "--python-version", "3.11.5", "--no-python-downloads"),
            *("--custom-compile-command", "make lock", "--extra", "dev"),
            *("--output-file", "requirements-dev.txt", "pyproject.toml", *sys.argv[1:]),
        )
        raise SystemExit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
