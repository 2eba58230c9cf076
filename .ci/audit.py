"""Ask the OSV database which packages of requirements-dev.txt have known weaknesses; nothing of them is installed.

`make audit` runs it, by pip-audit in an environment that is removed again. Exit code 1: there are some, or nobody could
be asked, as one sentence says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_REACHED = re.compile(r"connection ?error|max retries|name resolution|timed? ?out|temporary failure|proxy", re.I)


def main() -> None:
    """Show what pip-audit shows."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        programs = Path(folder, "Scripts" if os.name == "nt" else "bin")
        pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pip-audit"]
        if subprocess.run(pip, check=False).returncode:
            raise SystemExit("audit: pip-audit cannot be installed; is there a network?")
        words = ("--disable-pip", "--require-hashes", "--vulnerability-service", "osv", "--progress-spinner", "off")
        command = [programs / "pip-audit", *words, "--requirement", str(ROOT / "requirements-dev.txt")]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode and NOT_REACHED.search(done.stderr):
        raise SystemExit(
            "audit: the database of weaknesses cannot be reached, so nothing was checked; try it with a network"
        )
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
