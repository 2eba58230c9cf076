"""The measurement of an index: it builds one, adds to a large one, and tells both."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmark.indexing import app


@pytest.mark.slow(reason="pictures are drawn, and indexes built of them")
def test_building_and_adding_are_measured(tmp_path: Path) -> None:
    words = ["--images", 40, "--methods", "phash", "--items", 3000, "--rounds", 1, "--threads", 1, "--folder", tmp_path]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    for what in ("40 images: build / describing", "3,000 x 128: 1,000 added, s", "3,000 x 128: then found, s"):
        assert what in done.stdout
    assert [one.name for one in tmp_path.iterdir()] == ["pictures"]
    wrong = CliRunner().invoke(app, ["--methods", "phush", "--images", "1", "--items", "0"])
    assert (wrong.exit_code, "unknown method" in wrong.stderr) == (2, True)
