"""Commands whose stdin, stdout or stderr is closed, or cannot be written, end with 0 or with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.evidences import saved
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix closes them")

COMMANDS = {
    "show": "show {record}",
    "help": "run --help",
    "list": "list --json",
    "wrong record": "show {folder}/none",
    "dry run": "run --dry-run --limit 10 --methods phash",
}
MISTAKES = {"wrong record"}


@pytest.mark.slow(reason="a process for each")
@pytest.mark.parametrize(
    ("name", "end"),
    [
        *(("show", end) for end in (">&-", "2>&-", "<&- >&- 2>&-")),
        *((name, ">&- 2>&-") for name in COMMANDS if name != "show"),
    ],
)
def test_closed(name: str, end: str, tmp_path: Path) -> None:
    code, text = ended(name, tmp_path, end)
    assert code == (2 if name in MISTAKES else 0), text
    assert "Traceback" not in text


@pytest.mark.slow(reason="a process of its own")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no disk that is always full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    code, text = ended("show", tmp_path, ">/dev/full")
    assert code == 2
    assert text == "error: standard output cannot be written (No space left on device)\n"


def ended(name: str, folder: Path, end: str) -> tuple[int, str]:
    """Exit code of a command, and what it could still print."""
    record = folder / "record"
    if not record.exists():
        saved(record)
    words = COMMANDS[name].format(record=record, folder=folder)
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m benchmark {words} {end}', sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr
