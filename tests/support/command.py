"""The command line, called within the process."""

from __future__ import annotations

import functools
from pathlib import Path

import typer.testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from benchmark.cli import app

typer.testing._get_command = functools.cache(get_command)  # type: ignore[attr-defined]
"""All commands with their options are read from their signatures: 0.2 s, which each call would take."""


def call(*words: object) -> Result:
    """`run` without a process of its own, which costs a second and sees nothing of what a test has put in place."""
    isolate = ["--isolate", "off"] if words[:1] == ("run",) and "--isolate" not in words else []
    return CliRunner().invoke(app, [str(word) for word in words] + isolate)


def run(shelf: Path, out: Path, *words: object) -> Result:
    return call("run", "--dataset", "folder", "--data-root", shelf, "--out", out, "--k", "1,3", *words)
