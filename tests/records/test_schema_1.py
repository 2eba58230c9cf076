"""A record that version 0.1 wrote loads, shows, compares and reports as it did then, for ever.

`schema_1` was written by the last commit before the package was laid out in rooms; its files are never renewed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from retrieval_bench.records.files import load, load_rankings
from tests.support.command import call

RECORD = Path(__file__).with_name("schema_1")
DIGESTS = {"rankings.npz": "76535cf281b1ef1b", "run.json": "16503178966bb62a", "table.csv": "95fc5cb9b8ab3aff"}


def test_the_files_are_those_of_then() -> None:
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in RECORD.iterdir()}
    assert digests == DIGESTS


def test_it_loads_and_nothing_of_it_is_lost() -> None:
    record = load(RECORD)
    assert [row.method for row in record.rows if row.status == "failed"] == ["squeezenet1_1"]
    assert record.settings.classifiers == ("knn", "svm")
    assert json.loads(record.to_json()) == json.loads((RECORD / "run.json").read_text(encoding="utf-8"))
    assert "color/heads/svm/scores" in load_rankings(RECORD, record)


def test_it_shows_the_same_figures() -> None:
    then = (RECORD / "table.csv").read_text(encoding="utf-8")
    assert call("show", RECORD, "--format", "csv").stdout == then


@pytest.mark.parametrize("form", ["table", "md", "json"])
def test_it_shows(form: str) -> None:
    done = call("show", RECORD, "--format", form)
    assert done.exit_code == 0, done.stderr
    assert "0.9444" in done.stdout or "0.944" in done.stdout


def test_it_compares_with_itself() -> None:
    done = call("diff", RECORD, RECORD, "--format", "json")
    assert done.exit_code == 1, "a failed row is never fine"
    verdict = json.loads(done.stdout)
    assert len(verdict["quality"]) > 100
    assert all(figure["before"] == figure["after"] for figure in verdict["quality"])


def test_it_reports_without_its_images(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = call("report", RECORD, "--out", page)
    assert done.exit_code == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    for name in ("color", "phash", "hsv+phash+rrf", "svm", "blur"):
        assert name in text
    assert "shelf is not a directory" in done.stderr
