"""`python -m benchmark convert`: files for other programs, and mistakes in one sentence."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import call
from tests.support.paths import ROOT

SCHEMA_1 = ROOT / "tests" / "records" / "schema_1"
"""A record of 12 queries and five methods that rank the whole gallery."""
REFERENCE = ROOT / "results" / "reference" / "products"


def test_trec_files_of_every_method(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "er"
    result = call("convert", SCHEMA_1, "--to", "trec", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{out}: qrels.trec, and a run file for each of 5 methods\n"
    runs = {f"{name}.run.trec" for name in ("color", "phash", "hsv+phash+rrf", "random", "oracle")}
    assert {file.name for file in out.iterdir()} == {"qrels.trec", *runs}
    assert len((out / "qrels.trec").read_bytes().splitlines()) == 12 * 3
    assert all(len((out / name).read_bytes().splitlines()) == 12 * 12 for name in runs)
    for words in ((), ("--methods", "phash")):
        again = call("convert", SCHEMA_1 / "run.json", "--to", "trec", "--out", out, *words)
        assert again.exit_code == 0, again.stderr
        assert len(list(out.iterdir())) == 6


def test_a_run_that_ends_before_the_gallery_is_told(tmp_path: Path) -> None:
    result = call("convert", REFERENCE, "--to", "trec", "--methods", "sift", "--out", tmp_path / "trec")
    assert result.exit_code == 0, result.stderr
    assert "A run holds the first 100 of 400 images." in result.stdout
    assert {file.name for file in (tmp_path / "trec").iterdir()} == {"qrels.trec", "sift.run.trec"}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_scores_of_each_query(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason='needs pip install "retrieval-bench[parquet]"')
    monkeypatch.chdir(tmp_path)
    result = call("convert", SCHEMA_1, "--to", form, "--methods", "phash,color")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"per_query.{form}: 24 rows, one for each of 2 methods and each query\n"
    assert [file.name for file in tmp_path.iterdir()] == [f"per_query.{form}"]
    if form == "csv":
        with (tmp_path / "per_query.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["method"] for row in rows} == {"phash", "color"}
        assert all(0 <= float(row["map@r"]) <= 1 for row in rows)


def with_ids(folder: Path, *ids: str) -> Path:
    """The record whose first queries have these names."""
    shutil.copytree(SCHEMA_1, folder)
    with np.load(folder / "rankings.npz") as file:
        arrays = dict(file)
    arrays["query_ids"] = np.array([*ids, *arrays["query_ids"][len(ids) :].tolist()])
    np.savez_compressed(folder / "rankings.npz", **arrays)
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["rankings"]["sha256"] = hashlib.sha256((folder / "rankings.npz").read_bytes()).hexdigest()
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_odd_names_come_back_or_are_escaped(form: str, tmp_path: Path) -> None:
    record, out = with_ids(tmp_path / "record", "a\rb", "q\udcff", "\ud800"), tmp_path / f"scores.{form}"
    result = call("convert", record, "--to", form, "--methods", "phash", "--out", out)
    assert result.exit_code == 0, result.stderr
    if form == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            names = [row["query"] for row in csv.DictReader(file)]
    else:
        names = (
            pytest.importorskip("pyarrow.parquet", reason='needs pip install "retrieval-bench[parquet]"')
            .read_table(out)
            .to_pydict()["query"]
        )
    assert names[:3] == ["a\rb", r"q\xff", r"\ud800"]
    assert len(names) == 12


def test_a_folder_with_files_of_another_record_is_refused(tmp_path: Path) -> None:
    result = call("convert", REFERENCE, "--to", "trec", "--methods", "sift", "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    result = call("convert", SCHEMA_1, "--to", "trec", "--out", tmp_path)
    assert result.exit_code == 2
    assert "holds sift.run.trec of a record with other queries or labels" in result.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing", "--to", "trec"), "no such record"),
        ((SCHEMA_1, "--to", "csv", "--methods", "sift"), "--methods 'sift': the record has color, phash"),
        ((SCHEMA_1, "--to", "csv", "--out", "."), "is a folder; name a file in it, such as per_query.csv"),
        ((SCHEMA_1, "--to", "csv", "--methods", ""), "--methods '': the record has color, phash"),
        ((SCHEMA_1, "--to", "csv", "--out", "x.parquet"), "--to csv writes no parquet; say --to parquet"),
        ((SCHEMA_1, "--to", "trec", "--out", "file"), "is a file; name a folder"),
        ((SCHEMA_1, "--to", "csv", "--out", "file/below"), "cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    result = call("convert", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_record_without_its_rankings_is_refused(tmp_path: Path) -> None:
    shutil.copy(SCHEMA_1 / "run.json", tmp_path)
    result = call("convert", tmp_path, "--to", "trec", "--out", tmp_path / "trec")
    assert result.exit_code == 2
    assert "rankings.npz: cannot be read" in result.stderr
    assert not (tmp_path / "trec").exists()


def test_without_pyarrow_one_sentence_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    result = call("convert", SCHEMA_1, "--to", "parquet", "--out", tmp_path / "scores.parquet")
    assert result.exit_code == 2
    assert "pip install 'retrieval-bench[parquet]'" in result.stderr
    assert list(tmp_path.iterdir()) == []
