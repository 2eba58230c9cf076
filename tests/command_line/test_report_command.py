"""`python -m benchmark report`: forms, errors, and images found again."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from retrieval_bench.records.files import load
from retrieval_bench.report import table
from tests.support.command import call
from tests.support.evidences import METHODS, assert_safe, read_page, saved
from tests.support.shop import picture

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is split already, with a label that is markup, and a record of a run on it."""
    home = tmp_path_factory.mktemp("report")
    for first, part in enumerate(("train", "gallery", "query")):
        for label in range(4):
            folder = home / "shelf" / part / ("<b>&\"'", "pear", "plum", "fig")[label]
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(picture(label, 100 * first + number)).save(folder / f"{number}.png")
    words = ("--dataset", "folder", "--data-root", home / "shelf", "--out", home / "out", "--methods", "hsv,phash,lbp")
    result = call("run", *words, "--k", "1,3", "--heads", "knn", "--recompute")
    assert result.exit_code == 0, result.stderr
    return home


@pytest.mark.slow(reason="a run, and a page of its images")
def test_a_run_becomes_a_page_with_its_images(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    result = call("report", shelf / "out", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "report:" in result.stderr
    read = read_page(out.read_text(encoding="utf-8"))
    assert_safe(read)
    assert "Images are not shown" not in read.text
    assert sum(value.startswith("data:image/jpeg;base64,") for value in read.values("src")) > 10
    assert "<b>&\"'" in read.text
    assert "roc" in read.values("id")


@pytest.mark.slow(reason="a run, and a page of its images")
def test_images_that_moved_are_told_and_found_with_data_root(shelf: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (shelf / "shelf").rename(moved)
    try:
        out = tmp_path / "report.html"
        result = call("report", shelf / "out", "--out", out)
        assert result.exit_code == 0
        assert "is not a directory" in result.stderr
        assert "Images are not shown" in out.read_text()
        assert call("report", shelf / "out", "--out", out, "--data-root", moved).exit_code == 0
        assert "data:image/jpeg;base64," in out.read_text()
        Image.new("RGB", (40, 40)).save(moved / "query" / "fig" / "0.png")
        result = call("report", shelf / "out", "--out", out, "--data-root", moved)
        assert "are not the images of the record" in result.stderr
        assert "data:image/jpeg;base64," not in out.read_text()
    finally:
        Image.fromarray(picture(3, 200)).save(moved / "query" / "fig" / "0.png")
        moved.rename(shelf / "shelf")


@pytest.mark.slow(reason="a run, and a page of its images")
def test_no_images_looks_for_none(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    result = call("report", shelf / "out", "--out", out, "--no-images")
    assert result.exit_code == 0
    assert "data:image/jpeg" not in out.read_text()
    assert "the report was made without images" in out.read_text()


def test_the_default_is_a_page_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "r")
    monkeypatch.chdir(tmp_path)
    assert call("report", folder, "--no-images").exit_code == 0
    assert_safe(read_page((tmp_path / "report.html").read_text()))


def test_markdown_and_csv_of_one_record_are_its_tables(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert call("report", folder, "--format", "md").stdout == table.markdown(load(folder))
    assert call("report", folder, "--format", "csv").stdout == table.tidy_csv(load(folder))
    out = tmp_path / "t.md"
    assert call("report", folder, "--format", "md", "--out", out).stdout == ""
    assert out.read_text() == table.markdown(load(folder))


def test_several_records_in_every_form(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", {"x|y": "local"}, classifiers=())
    text = call("report", first, second, "--format", "md").stdout
    assert f"| sift | {first} |" in text
    assert "| x\\|y |" in text
    lines = list(csv.DictReader(io.StringIO(call("report", first, second, "--format", "csv").stdout)))
    assert [(line["record"], line["method"]) for line in lines] == [
        *((str(first), name) for name in METHODS),
        (str(second), "x|y"),
    ]
    assert float(lines[0]["accuracy"]) == load(first).rows[0].scores["accuracy"]
    text = call("report", first, second, "--format", "latex").stdout
    assert text.count(r"\begin{tabular}") == 1
    other = saved(tmp_path / "c", dataset={"fingerprint": "cd" * 32})
    text = call("report", first, other, "--format", "latex").stdout
    assert text.count(r"\begin{tabular}") == 2
    assert "must not stand in one table" in call("report", first, other, "--format", "md").stdout


def test_json_has_the_record_and_what_the_page_draws(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (content,) = json.loads(call("report", folder, "--format", "json").stdout)["records"]
    assert content["record"] == load(folder).model_dump(mode="json", by_alias=True)
    figures = content["figures"]
    scores = load(folder).rows[0].scores
    assert dict(map(tuple, figures["hit_rate_at_k"]["sift"]))[5] == pytest.approx(scores["hit_rate@5"])
    assert figures["pareto_fronts"]["end_to_end_p50"][0] == "sift"
    assert {one["method"] for one in figures["roc"]} == {"sift", "color", "phash", "random"} - {"random"}


def test_latex_escapes_everything(tmp_path: Path) -> None:
    folder = saved(tmp_path, {"a_b&c%d$e#f{g}~h^i\\j": "local"})
    text = call("report", folder, "--format", "latex").stdout
    line = r"a\_b\&c\%d\$e\#f\{g\}\textasciitilde{}h\textasciicircum{}i\textbackslash{}j"
    assert line in text
    assert "95 \\%" in text
    columns = text.split(r"\begin{tabular}{")[1].split("}")[0]
    body = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert all(row.replace(r"\&", "").count("&") == len(columns) - 1 for row in body)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize("form", ["html", "md", "csv", "latex", "json"])
def test_a_record_that_is_not_there_is_one_sentence(tmp_path: Path, form: str) -> None:
    result = call("report", tmp_path / "none", "--format", form, "--out", tmp_path / "x")
    assert result.exit_code == 2
    assert "no such record" in result.stderr
    assert not (tmp_path / "x").exists()


def test_an_out_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    folder = saved(tmp_path / "r")
    result = call("report", folder, "--out", tmp_path)
    assert result.exit_code == 2
    assert "is a folder; name a file in it" in result.stderr
    (tmp_path / "file").write_text("")
    result = call("report", folder, "--out", tmp_path / "file" / "report.html")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert {path.name for path in folder.iterdir()} == {"run.json", "rankings.npz"}


def test_a_broken_record_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    result = call("report", tmp_path)
    assert result.exit_code == 2
    assert "not JSON" in result.stderr


def test_other_definitions_share_no_table(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b")
    content = json.loads((second / "run.json").read_text())
    content["metrics"]["accuracy"]["definition"] = "something else"
    (second / "run.json").write_text(json.dumps(content))
    text = call("report", first, second, "--format", "md").stdout
    assert "define accuracy differently" in text
    assert "| method | record |" not in text
    assert "| method | record |" in call("report", first, first.parent / "a" / "run.json", "--format", "md").stdout


def test_another_relevance_shares_no_table(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b")
    content = json.loads((second / "run.json").read_text())
    content["settings"]["relevance"] = "category"
    (second / "run.json").write_text(json.dumps(content))
    text = call("report", first, second, "--format", "md").stdout
    assert "its label in others, so their numbers must not stand in one table" in text
    assert "| method | record |" not in text


WRITERS = (
    ("report", "R"),
    ("report", "R", "--format", "json"),
    ("leaderboard", "R"),
    ("convert", "R", "--to", "csv"),
    ("cost", "R", "--images", "100"),
)
"""Commands that read the record R and write a file."""
HISTORY = ("history", "R")
"""Reads a folder of records, each called run.json."""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *itertools.product((*WRITERS, HISTORY), ("run.json", "rankings.npz", "link.json")),
        *itertools.product(WRITERS, ("kept.json",)),
    ],
)
def test_no_command_writes_over_a_record(words: tuple[str, ...], name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "r")
    (folder / "link.json").symlink_to("run.json")
    (folder / "kept.json").write_bytes((folder / "run.json").read_bytes())
    if name == "kept.json":
        words = tuple(str(folder / "kept.json") if word == "R" else word for word in words)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    option = "--json" if words[0] == "cost" else "--out"
    result = call(*(folder if word == "R" else word for word in words), option, folder / name)
    assert result.exit_code == 2, result.output
    assert f"error: {option} {folder / name}: is a file of a record, which would be lost; name another, such as " in (
        result.stderr
    )
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("a.md", "| method |"),
        ("a.csv", "method,"),
        ("a.tex", "% "),
        ("a.json", "{"),
        ("a.HTM", "<!DOCTYPE"),
        ("a", "<!DOC"),
    ],
)
def test_the_ending_says_the_form(name: str, begins: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "r")
    assert call("report", folder, "--no-images", "--out", tmp_path / name).exit_code == 0
    assert (tmp_path / name).read_text(encoding="utf-8").lstrip().startswith(begins)


def test_an_ending_that_is_no_form_is_refused_unless_the_form_is_said(tmp_path: Path) -> None:
    folder = saved(tmp_path / "r")
    done = call("report", folder, "--no-images", "--out", tmp_path / "a.pdf")
    assert done.exit_code == 2
    assert "a.pdf: .pdf is no form; end it in .html, " in done.stderr
    assert not (tmp_path / "a.pdf").exists()
    assert call("report", folder, "--no-images", "--out", tmp_path / "a.txt", "--format", "md").exit_code == 0


@pytest.mark.parametrize("form", ["md", "csv", "latex"])
def test_the_place_of_pictures_is_refused_where_none_is_shown(form: str, tmp_path: Path) -> None:
    done = call("report", saved(tmp_path / "r"), "--format", form, "--data-root", tmp_path)
    assert done.exit_code == 2
    assert f"--data-root is of the pictures that html and json show; leave it out of --format {form}" in done.stderr
