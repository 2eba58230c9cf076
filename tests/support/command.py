"""The command line, called within the process."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from benchmark.cli import app


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def run(shelf: Path, out: Path, *words: object) -> Result:
    return call("run", "--dataset", "folder", "--data-root", shelf, "--out", out, "--k", "1,3", *words)
